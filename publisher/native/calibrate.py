"""`python -m publisher.native.calibrate job.json`: run a model on text and note what every linear layer's input is.

Samples are drawn from a file by a seed, run one after the other through the model, which is resident in transformers;
of every matrix the largest magnitude of its inputs and the tokens it saw are kept, of routed experts each on its own.
The result is one file of `checkpoint.statistics`, under the checkpoint's own names, there only when complete. The same
job on the same machine gives the same bytes; one that was stopped goes on from the last state it kept beside the
output (`<output>.partial`), and ends with the same bytes too.

The job's keys are `data/schemas/calibrate.schema.json`. Events go to standard output, one JSON object a line. Exit
codes: 0 done, 2 bad input, 5 the libraries or the hardware failed, 6 stopped.
Refused: matrices of the model that no tensor of the checkpoint accounts for, NaN and infinite inputs, and code that the
checkpoint brings along unless the job says it may run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from publisher import __version__, jsonio
from publisher.checkpoint import statistics
from publisher.checkpoint.modules import role_of
from publisher.checkpoint.moments import InMemory, Moments, Row
from publisher.checkpoint.statistics import Observed, Statistics
from publisher.errors import CheckpointError, EngineError, PublisherError
from publisher.native import edge
from publisher.native import samples as texts
from publisher.native.events import Progress, emit

if TYPE_CHECKING:
    from publisher.native.observe import Observer
    from publisher.native.source import SourceTensors

STAGE = "calibrate"
PROGRAM = edge.Program(
    stage=STAGE,
    module="publisher.native.calibrate",
    failed="The calibration failed",
    hint="Read the log; weight-only recipes need no statistics.",
)
PATHS = ("source", "data", "output")
PARTIAL = ".partial"
SAVING = 10  # a state that takes more than a second to keep is kept less often: about a tenth of the time at most
NAMED = 100  # modules an event names


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to observe; the keys of the schema."""

    source: Path
    data: Path
    output: Path
    samples: int = 512
    sequence_length: int = 2048
    seed: int = 0
    chat_template: bool = False
    trust_remote_code: bool = False
    device: str = "auto"
    second_moments: bool = False
    save_every: float = 60.0
    labels: Mapping[str, str] = field(default_factory=dict)


# --- the program ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run one job file; returns the exit code."""
    edge.interruptible()
    return edge.run(PROGRAM, arguments, lambda path: run(read_job(path)))


def read_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        DocumentError: naming every problem.
    """
    return Job(**edge.read_fields(path, "calibrate", paths=PATHS, hint="Let `publisher calibrate` write the job file."))


def run(job: Job) -> None:
    """Observe the model and write the statistics.

    Raises:
        PublisherError: bad data, a model that cannot be loaded or accounted for, inputs that are no numbers.
        EngineError: torch or transformers is missing, the device is not there, memory ran out.
    """
    edge.require_transformers("Calibration", "calibrate")
    import torch

    from publisher.native import resident
    from publisher.native.observe import Observer
    from publisher.native.source import SourceTensors

    drawn = texts.draw(job.data, job.samples, job.seed)
    tokenizer = resident.load_tokenizer(job.source, trust=job.trust_remote_code)
    sequences = list(texts.token_ids(drawn, tokenizer, job.sequence_length, chat=job.chat_template))
    if not sequences:
        raise PublisherError(f"{job.data} gives no token to calibrate on.", hint="Give a file with text in it.")
    if drawn.available < job.samples:
        message = f"The calibration data holds {drawn.available:,} samples, {job.samples:,} were asked for."
        emit(STAGE, "warning", message=message)
    emit(STAGE, "start", message=f"loading {job.source.name}: {len(sequences):,} samples will go through it")
    tensors = SourceTensors(job.source)
    try:
        model = resident.load(job.source, tensors, device=job.device, trust=job.trust_remote_code)
        observer = Observer(model, second_moments=job.second_moments)
        names = _Names(model, tensors, observer)
        _observe(job, model, observer, sequences, digest=_digest(job, drawn.sha256, tensors))
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise EngineError(
            f"Out of memory: {str(error)[:200] or 'an allocation failed'}; calibration holds the whole model.",
            hint="Calibrate where the unquantized model fits, or on shorter sequences.",
        ) from error
    found = Statistics(
        modules=names.modules(observer.amax(), observer.tokens),
        metadata=_metadata(job, drawn.sha256, sequences, str(model.dtype)),
        mean_squares=names.mean_squares(observer),
    )
    statistics.write(job.output, found)
    _partial(job).unlink(missing_ok=True)
    _tell(job, found, names.unobserved)


def _metadata(job: Job, sha256: str, sequences: Sequence[Sequence[int]], dtype: str) -> dict[str, str]:
    import torch
    import transformers

    found = {
        "source": job.source.name,
        "source_commit": "",
        "data": job.data.name,
        "data_sha256": sha256,
        "samples": len(sequences),
        "tokens": sum(map(len, sequences)),
        "sequence_length": job.sequence_length,
        "seed": job.seed,
        "chat_template": str(job.chat_template).lower(),
        "second_moments": str(job.second_moments).lower(),
        "dtype": dtype.removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "publisher": __version__,
    }
    return {**{key: str(value) for key, value in found.items()}, **job.labels}


def _tell(job: Job, found: Statistics, unobserved: Sequence[str]) -> None:
    if unobserved:
        message = (
            f"{len(unobserved):,} matrices of the checkpoint take part in no observed product, first {unobserved[0]}."
        )
        emit(STAGE, "log", message=message, modules=list(unobserved[:NAMED]))
    unreached = found.unreached
    if unreached:
        message = f"{len(unreached):,} of {len(found.modules):,} modules saw no token, first {unreached[0]}."
        emit(STAGE, "warning", message=message, modules=list(unreached[:NAMED]))
    emit(
        STAGE,
        "done",
        message=f"{len(found.modules):,} modules observed: {job.output}",
        modules=len(found.modules),
        unreached=len(unreached),
        unobserved=len(unobserved),
    )


# --- running the model ---------------------------------------------------------------------------------------------


def _observe(job: Job, model: Any, observer: Observer, sequences: Sequence[Sequence[int]], *, digest: str) -> None:
    """Run every sample that is not behind a kept state already."""
    import torch

    first = _go_on(job, observer, digest)
    device = model.get_input_embeddings().weight.device
    progress = Progress(STAGE, sum(map(len, sequences)), "tokens")
    if first:
        emit(STAGE, "log", message=f"Going on after {first:,} of {len(sequences):,} samples.")
        progress.add(sum(map(len, sequences[:first])), samples=first)
    saved, pause = time.monotonic(), job.save_every
    with torch.inference_mode():
        for number, ids in enumerate(sequences[first:], first + 1):
            model(input_ids=torch.tensor([list(ids)], device=device), use_cache=False)
            progress.add(len(ids), samples=number, samples_total=len(sequences))
            begun = time.monotonic()
            if number < len(sequences) and begun - saved >= pause:
                _keep(job, observer, number, digest)
                saved = time.monotonic()
                pause = max(pause, SAVING * (saved - begun - 1))
    observer.close()


def _digest(job: Job, sha256: str, tensors: SourceTensors) -> str:
    """What a state must have been made of to be gone on from."""
    import torch
    import transformers

    layout = [(ref.name, ref.dtype, ref.shape, ref.shard, ref.begin) for ref in tensors.refs.values()]
    stamps = sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in job.source.glob("*.*"))
    asked = [job.samples, job.sequence_length, job.seed, job.chat_template, job.device, job.second_moments, sha256]
    return jsonio.digest([asked, layout, stamps, torch.__version__, transformers.__version__, __version__])


def _partial(job: Job) -> Path:
    return job.output.with_name(job.output.name + PARTIAL)


def _keep(job: Job, observer: Observer, done: int, digest: str) -> None:
    amax = observer.amax()
    modules = {f"place.{n}": Observed(amax[n], observer.tokens[n]) for n in range(observer.size)}
    metadata = {"digest": digest, "done": str(done)}
    sums = {f"place.{n}": sums.cpu().numpy() for n, sums in observer.squares.items()}
    kept = Statistics(modules=modules, metadata=metadata, mean_squares=InMemory(sums, np.dtype("<f8")))
    statistics.write(_partial(job), kept)


def _go_on(job: Job, observer: Observer, digest: str) -> int:
    """How many samples a kept state of this very job holds; the observer goes on from them."""
    import torch

    if not _partial(job).is_file():
        return 0
    try:
        kept = statistics.read(_partial(job))
        if kept.metadata.get("digest") != digest or len(kept.modules) != observer.size:
            return 0
        places = [kept.modules[f"place.{n}"] for n in range(observer.size)]
        rows = {n: kept.mean_squares.get(f"place.{n}") for n in range(observer.size)}
        squares = {n: torch.from_numpy(row) for n, row in rows.items() if row is not None}
        observer.restore([one.amax for one in places], [one.tokens for one in places], squares)
        return int(kept.metadata["done"])
    except (CheckpointError, KeyError, ValueError):
        return 0  # a damaged state is worth nothing


# --- names ---------------------------------------------------------------------------------------------------------


class _Names:
    """The checkpoint's modules of every observed place, found before the work and not after it.

    Args:
        model: the model.
        tensors: its checkpoint's.
        observer: watches the model.

    Raises:
        CheckpointError: matrices in memory that no tensor of the checkpoint accounts for; all are counted.
    """

    def __init__(self, model: Any, tensors: SourceTensors, observer: Observer) -> None:
        from publisher.native import apart, naming

        made = naming.origins(model, tensors.refs)
        unknown: list[str] = []
        self._places: dict[str, list[int]] = {}
        for slot in observer.slots.values():
            sources = made.get(slot.parameter, [])
            if not sources and _is_tied(model, slot.parameter):
                continue
            if slot.stacked and sources:
                attribute = slot.parameter.rpartition(".")[2]
                experts = naming.expert_modules(attribute, slot.count, sources)
            else:
                experts = {0: naming.linear_modules(sources)}
            if not sources or experts is None:
                unknown.append(slot.parameter)
                continue
            for number, name in ((number, name) for number, names in experts.items() for name in names):
                self._places.setdefault(name, []).append(slot.first + number)
        if unknown:
            raise CheckpointError(
                f"{len(unknown)} matrices of {type(model).__name__} belong to no tensor of the checkpoint: "
                f"{', '.join(unknown[:5])}.",
                hint="Statistics go by the checkpoint's names; use the engine modelopt, or another transformers.",
            )
        matrices = {name.removesuffix(".weight") for name, ref in tensors.refs.items() if len(ref.shape) == 2}
        left = matrices - self._places.keys()
        self.unobserved = sorted(n for n in left if role_of(n) != "embedding" and not n.endswith(apart.BIAS))

    def modules(self, amax: Sequence[float], tokens: Sequence[int]) -> dict[str, Observed]:
        """What was observed, by the checkpoint's names; of a tensor that was split, what its parts have in common."""
        return {
            name: Observed(max(amax[place] for place in places), max(tokens[place] for place in places))
            for name, places in sorted(self._places.items())
        }

    def mean_squares(self, observer: Observer) -> Moments:
        """Mean squares of every module's inputs by the checkpoint's names; empty where none were taken."""
        return _MeanSquares(observer, self._places)


class _MeanSquares:
    """Made from the sums when a module is asked for, so that they are not in memory twice.

    Args:
        observer: has the sums and the tokens.
        places: where each module was observed; of a tensor that was split, the part that saw most tokens counts.
    """

    dtype = np.dtype("<f4")

    def __init__(self, observer: Observer, places: Mapping[str, Sequence[int]]) -> None:
        self._observer = observer
        self._place = {name: max(own, key=lambda place: observer.tokens[place]) for name, own in places.items()}

    def length(self, module: str) -> int | None:
        """How many inputs a module has."""
        sums = self._observer.squares.get(self._place.get(module, -1))
        return None if sums is None else len(sums)

    def get(self, module: str) -> Row | None:
        """A module's row: float64 sums over its tokens, rounded once to float32."""
        place = self._place.get(module, -1)
        sums = self._observer.squares.get(place)
        return None if sums is None else (sums.cpu().numpy() / self._observer.tokens[place]).astype(self.dtype)


def _is_tied(model: Any, parameter: str) -> bool:
    """Whether a parameter is another one's too, such as a head that is the embedding."""
    own = model.get_parameter(parameter)
    return sum(one is own for _, one in model.named_parameters(remove_duplicate=False)) > 1


if __name__ == "__main__":
    edge.leave(main(sys.argv[1:]))
