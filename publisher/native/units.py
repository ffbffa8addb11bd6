"""The work, cut into units: what is read together, what of it is written, and where all of it goes.

A unit is a fused group (its members share one global scale), one module or one copied tensor. Units are in the order
the source lies on the disk, and the shards of the result follow that order, so both depend on the plan alone. A `Task`
is a unit with those of its tensors that are to be written now: all of them, or, where a group lies across the end of a
shard, the ones of that shard.

Refused: a module to quantize without a weight, a weight that is no matrix of whole blocks or no floating-point tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from publisher.checkpoint.header import DTYPE_BITS, TensorRef
from publisher.checkpoint.layout import ShardLayout, TensorSpec, plan_shards
from publisher.errors import CheckpointError
from publisher.formats import Layout
from publisher.native.job import Job
from publisher.native.recode import FP8, STACK, specs
from publisher.native.source import TORCH_DTYPES


@dataclass(frozen=True, slots=True)
class Unit:
    """Tensors handled together: the weights of one fused group to quantize, or one tensor to copy.

    Args:
        refs: the tensors of the source.
        quantized: whether they are loaded and quantized.
        form: how they are stored where that is not the job's own way (`recode`).
    """

    refs: tuple[TensorRef, ...]
    quantized: bool
    form: str = ""

    @property
    def size(self) -> int:
        """Bytes in the source."""
        return sum(ref.size for ref in self.refs)

    @property
    def memory(self) -> int:
        """Bytes of the weights in memory; more than in the source where they are stored in INT4 or FP8."""
        return sum(max(ref.size, ref.elements * DTYPE_BITS[ref.dtype] // 8) for ref in self.refs)


@dataclass(frozen=True, slots=True)
class Task:
    """A unit, and the tensors of it that are to be written."""

    unit: Unit
    refs: tuple[TensorRef, ...]


def plan_units(
    refs: Mapping[str, TensorRef], job: Job, *, repacked: Collection[str] = (), stacks: Collection[str] = ()
) -> tuple[Unit, ...]:
    """Order the work: as the source lies on the disk, members of a fused group at the place of their first.

    Args:
        refs: the source's tensors.
        job: what to do with them.
        repacked: modules whose tensors are what is to be written already.
        stacks: tensors that hold the experts of a layer and stay one.

    Raises:
        CheckpointError: a module to quantize has no weight, or one that cannot be quantized; all are counted.
    """
    _refuse_unfit(refs, job, repacked)
    group_of = {member: members for members in job.groups.values() for member in members}
    fp8 = frozenset(job.fp8)
    quantize = frozenset(job.quantize).difference(repacked) | fp8
    units: list[Unit] = []
    taken: set[str] = set()
    for name, ref in refs.items():
        module = name.removesuffix(".weight")
        if name in stacks:
            units.append(Unit((ref,), quantized=False, form=STACK))
        elif module == name or module not in quantize:
            units.append(Unit((ref,), quantized=False))
        elif module not in taken:
            form = FP8 if module in fp8 else ""
            shared = form or job.format == "nvfp4"
            members = group_of.get(module, (module,)) if shared else (module,)
            taken.update(members)
            units.append(Unit(tuple(refs[f"{member}.weight"] for member in members), quantized=True, form=form))
    return tuple(units)


def _refuse_unfit(refs: Mapping[str, TensorRef], job: Job, repacked: Collection[str]) -> None:
    whole = job.stored.spec.block
    problems: list[str] = []
    wanted = [(module, whole) for module in job.quantize if module not in repacked]
    for module, block in (*wanted, *((module, 1) for module in job.fp8)):
        ref = refs.get(f"{module}.weight") or refs.get(module)
        if ref is None:
            problems.append(f"{module} has no weight in the source")
        elif ref.dtype not in TORCH_DTYPES:
            problems.append(f"{ref.name} is {ref.dtype}, only {', '.join(TORCH_DTYPES)} can be quantized")
        elif len(ref.shape) != (3 if ref.name == module else 2) or ref.shape[-1] % block or not ref.elements:
            problems.append(f"{ref.name} has the shape {list(ref.shape)}, not rows of whole blocks of {block}")
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise CheckpointError("; ".join(problems[:3]) + f"{more}.", hint="Keep these modules in the recipe.")


def output_specs(unit: Unit, job: Job, *, inputs: bool = False) -> Iterator[tuple[TensorSpec, ...]]:
    """What a unit is stored as, one bundle for each of its tensors; with an input scale where there are `inputs`."""
    layout = job.stored
    for ref in unit.refs:
        if unit.form:
            yield specs(unit.form, ref, job, inputs=inputs)
            continue
        if not unit.quantized:
            yield (TensorSpec(ref.name, ref.dtype, ref.shape),)
            continue
        module, (rows, columns) = ref.name.removesuffix(".weight"), ref.shape
        yield tuple(
            TensorSpec(f"{module}.{role.suffix}", role.dtype, role.written_shape(layout.spec, rows, columns))
            for role in layout.roles
            if role.required or inputs
        )


def plan_layout(units: Sequence[Unit], job: Job) -> tuple[ShardLayout, ...]:
    """The shards of the result."""
    inputs = job.statistics is not None
    bundles = (bundle for unit in units for bundle in output_specs(unit, job, inputs=inputs))
    return plan_shards(bundles, job.shard_size)


def stored_name(unit: Unit, ref: TensorRef, layout: Layout) -> str:
    """A name that tells the shard a tensor goes to: its payload's; all it is stored as lies in one shard."""
    if unit.form:
        return ref.name
    payload = layout.find("payload")
    return f"{ref.name.removesuffix('.weight')}.{payload.suffix if payload else ''}" if unit.quantized else ref.name


def pending(units: Iterable[Unit], layout: Layout, done: Callable[[str], bool]) -> tuple[Task, ...]:
    """The tasks whose tensors are not finished, by `done` of their stored names."""
    found: list[Task] = []
    for unit in units:
        refs = tuple(ref for ref in unit.refs if not done(stored_name(unit, ref, layout)))
        if refs:
            found.append(Task(unit, refs))
    return tuple(found)


def by_shard(units: Iterable[Unit], layout: Layout, shard_of: Callable[[str], str]) -> dict[str, list[Task]]:
    """The tasks of every shard of the result; a unit on both sides of a border has one in each."""
    found: dict[str, list[Task]] = {}
    for unit in units:
        parts: dict[str, list[TensorRef]] = {}
        for ref in unit.refs:
            parts.setdefault(shard_of(stored_name(unit, ref, layout)), []).append(ref)
        for shard, refs in parts.items():
            found.setdefault(shard, []).append(Task(unit, tuple(refs)))
    return found
