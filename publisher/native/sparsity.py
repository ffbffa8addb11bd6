"""Which weights of a job are pruned, and by what: the seam between a job, the statistics and the kernel.

With `hessian` the pairs of a module are compared by magnitude times the root mean square of their inputs. A routed
expert that no token reached has no inputs to go by and is pruned by magnitude; how many those are is said and recorded.
Refused before anything is written: statistics without mean squares, modules they do not name, and mean squares of
another length than a module's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from publisher.checkpoint import statistics
from publisher.checkpoint.header import TensorRef
from publisher.errors import CheckpointError
from publisher.formats import sparse

if TYPE_CHECKING:
    from torch import Tensor

    from publisher.checkpoint.statistics import Statistics
    from publisher.native.job import Job

MAGNITUDE, HESSIAN = "magnitude", "hessian"
PLAIN = ("BF16", "F16", "F32")


class Pruning:
    """Prunes the weights a job names; made once in every process that quantizes.

    Args:
        job: the job; without `sparsity` nothing is pruned.
    """

    def __init__(self, job: Job) -> None:
        asked = job.sparsity
        self._modules = asked.modules if asked else frozenset[str]()
        self._seen = statistics.read(job.statistics) if asked and asked.choose == HESSIAN and job.statistics else None

    def prune(self, ref: TensorRef, weight: Tensor) -> Tensor | None:
        """Zero what is pruned of a weight, in place.

        Returns:
            The sum of the squares that were lost, float64 on the weight's device; None where nothing is pruned.
        """
        import torch

        from publisher.native import kernels

        module = ref.name.removesuffix(".weight")
        if module not in self._modules:
            return None
        squares = None if self._seen is None else self._seen.mean_squares.get(module)
        factors = None if squares is None else torch.from_numpy(sparse.importance(squares))
        return kernels.prune(weight, factors)


def by_magnitude(job: Job, refs: Mapping[str, TensorRef], seen: Statistics | None) -> tuple[str, ...]:
    """The modules that are pruned by magnitude although the job says hessian: those no token reached, in name order.

    Raises:
        CheckpointError: a module is no matrix that is quantized here, or the statistics do not do; all problems are
            counted, the first are named.
    """
    _refuse_others(job, refs)
    if job.sparsity is None or job.sparsity.choose != HESSIAN or seen is None:
        return ()
    found = list(_unfit(job.sparsity.modules, refs, seen))
    if found:
        more = f" (and {len(found) - 3:,} more)" if len(found) > 3 else ""
        raise CheckpointError(
            "The statistics do not do for pruning: " + "; ".join(found[:3]) + f"{more}.",
            hint="Calibrate again with --second-moments, or choose magnitude in the recipe.",
        )
    return tuple(sorted(name for name in job.sparsity.modules if not seen.modules[name].tokens))


def _refuse_others(job: Job, refs: Mapping[str, TensorRef]) -> None:
    """Refuse to pass over what is stored as it is: experts in one tensor, and codes that are copied."""
    asked = job.sparsity.modules if job.sparsity else frozenset[str]()
    weights = {name: refs.get(f"{name}.weight") for name in asked}
    odd = sorted(name for name, ref in weights.items() if ref is None or len(ref.shape) != 2 or ref.dtype not in PLAIN)
    if odd:
        raise CheckpointError(
            f"{len(odd):,} modules are to be pruned and are no matrices to quantize one by one, first {odd[0]}.",
            hint="Leave them out of `sparsity.modules` in the recipe.",
        )


def _unfit(modules: frozenset[str], refs: Mapping[str, TensorRef], seen: Statistics) -> Iterator[str]:
    for name in sorted(modules):
        known, ref = seen.modules.get(name), refs.get(f"{name}.weight")
        length = seen.mean_squares.length(name)
        if known is None:
            yield f"{name} is not in them"
        elif known.tokens and length is None:
            yield f"{name} has no mean squares"
        elif known.tokens and ref is not None and length != ref.shape[-1]:
            yield f"{name} has {length:,} mean squares for rows of {ref.shape[-1]:,} weights"


def record(job: Job, unreached: tuple[str, ...]) -> dict[str, Any] | None:
    """What docs/job-file.md asks of the record; None where nothing is pruned."""
    if job.sparsity is None:
        return None
    return {
        "pattern": job.sparsity.pattern,
        "choose": job.sparsity.choose,
        "modules": len(job.sparsity.modules),
        "by_magnitude": list(unreached),
    }
