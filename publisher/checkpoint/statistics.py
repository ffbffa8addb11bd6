"""Activation statistics: the largest input of every linear layer and how many tokens it saw, in one safetensors file.

For each module of the checkpoint, under its own name there, `<module>.input_amax` is an F32 scalar and
`<module>.tokens` an I64 scalar; where second moments were taken, `<module>.input_mean_square` has the mean square of
each of its inputs, F32 (in,) (see `checkpoint.moments`). The metadata say where the numbers come from. The same
statistics give the same bytes.

An input scale is made of them as the layouts want it, with their libraries' own operations: `amax / 2688` where readers
multiply (modelopt), `(1 / amax) 2688` where they divide (compressed-tensors). Members of a fused group have the largest
of their inputs. A routed expert that no token reached has no input of its own: it takes the largest of the same
projection of its layer's reached experts, and is named among those that did. Refused: a module without statistics, one
whose inputs were all zero, an unreached module that is no routed expert or belongs to a layer without a reached one; a
file that is no such file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from publisher.checkpoint import moments
from publisher.checkpoint.disk import disk_errors
from publisher.checkpoint.header import ShardHeader, TensorRef, read_header
from publisher.checkpoint.moments import MEAN_SQUARE, InMemory, Moments, Stored
from publisher.errors import CheckpointError
from publisher.formats.spec import NVFP4_DIVISOR, Layout

AMAX, TOKENS = "input_amax", "tokens"
KIND = {"kind": "activation statistics", "schema": "1"}
POLICY = "the largest input of the same projection among the layer's experts that were reached"
EXPERT = re.compile(r"^(.*\.experts)\.\d{1,6}\.(.+)$")
_DTYPES = {AMAX: ("F32", "<f4"), TOKENS: ("I64", "<i8")}
_DIVISOR = np.float32(NVFP4_DIVISOR)
_SMALLEST = np.finfo(np.float32).tiny * _DIVISOR  # of less, one of the two scales is no normal float32
_AGAIN = "Make it again with `publisher calibrate`."


@dataclass(frozen=True, slots=True)
class Observed:
    """What one module saw: the largest magnitude of its inputs, and how many tokens they were."""

    amax: float
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What every module of a model saw.

    Args:
        modules: by name as in the checkpoint.
        metadata: source, source_commit, data, samples, sequence_length, seed and what else is known, as strings.
        mean_squares: of their inputs, for the modules that have them; read when one is asked for.
    """

    modules: Mapping[str, Observed]
    metadata: Mapping[str, str] = field(default_factory=dict)
    mean_squares: Moments = field(default_factory=InMemory)

    @property
    def unreached(self) -> tuple[str, ...]:
        """Modules that saw no token, in name order."""
        return tuple(sorted(name for name, seen in self.modules.items() if not seen.tokens))


@dataclass(frozen=True, slots=True)
class Substitute:
    """Where the input range of an unreached expert comes from: `amax`, over `experts` reached ones of its layer."""

    amax: float
    experts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InputRanges:
    """The largest input each module is to be quantized for.

    Args:
        amax: by module; equal within a fused group.
        substituted: the modules that have another's, because no token reached them.
    """

    amax: Mapping[str, np.float32]
    substituted: Mapping[str, Substitute]


# --- scales --------------------------------------------------------------------------------------------------------


def input_ranges(
    statistics: Statistics, modules: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> InputRanges:
    """The input range of each module: its own, a substitute where it was not reached, unified in fused groups.

    Args:
        statistics: what was observed.
        modules: names as in the checkpoint.
        groups: fused layer to members; members outside `modules` do not count.

    Raises:
        CheckpointError: modules for which there is none; all are counted, the first are named.
    """
    layers = _reached(statistics)
    found: dict[str, np.float32] = {}
    substituted: dict[str, Substitute] = {}
    problems: list[str] = []
    for name in modules:
        seen = statistics.modules.get(name)
        substitute = layers.get(_layer(name)) if seen is not None and not seen.tokens else None
        if seen is None:
            problems.append(f"{name} is not in them")
        elif substitute is not None:
            substituted[name] = substitute
            found[name] = np.float32(substitute.amax)
        elif not seen.tokens:
            problems.append(f"no token reached {name}, nor another expert of its layer")
        elif not seen.amax >= _SMALLEST:
            problems.append(f"{name} saw {seen.tokens:,} tokens that were all zero")
        else:
            found[name] = np.float32(seen.amax)
    if problems:
        more = f" (and {len(problems) - 3:,} more)" if len(problems) > 3 else ""
        raise CheckpointError(
            "The activation statistics do not do: " + "; ".join(problems[:3]) + f"{more}.",
            hint="Calibrate again on more text, or keep these modules in the recipe.",
        )
    for members in (groups or {}).values():
        own = [name for name in members if name in found]
        largest = max((found[name] for name in own), default=None)
        if largest is not None:
            found.update(dict.fromkeys(own, largest))
    return InputRanges(amax=found, substituted=substituted)


def input_scales(
    statistics: Statistics, modules: Sequence[str], groups: Mapping[str, Sequence[str]] | None, layout: Layout
) -> dict[str, np.float32]:
    """The stored input scale of each module; see `input_ranges` for what it is made of.

    Args:
        statistics: what was observed.
        modules: names as in the checkpoint.
        groups: fused layer to members.
        layout: whose direction the scales have.

    Raises:
        CheckpointError: as `input_ranges`.
    """
    ranges = input_ranges(statistics, modules, groups)
    return {name: input_scale(amax, layout) for name, amax in ranges.amax.items()}


def input_scale(amax: np.float32, layout: Layout) -> np.float32:
    """One input scale, in float32: `amax / 2688`, or `(1 / amax) 2688` where readers divide, rounded twice."""
    return np.float32(np.float32(1) / amax * _DIVISOR if layout.direction == "divide" else amax / _DIVISOR)


def _layer(name: str) -> tuple[str, str] | None:
    """A routed expert's layer and projection."""
    match = EXPERT.match(name)
    return (match.group(1), match.group(2)) if match else None


def _reached(statistics: Statistics) -> dict[tuple[str, str] | None, Substitute]:
    """What every layer's reached experts saw, by layer and projection."""
    layers: dict[tuple[str, str] | None, Substitute] = {}
    for name, seen in statistics.modules.items():
        layer = _layer(name)
        if layer is not None and seen.tokens and seen.amax >= _SMALLEST:
            before = layers.get(layer, Substitute(0.0, 0))
            layers[layer] = Substitute(max(before.amax, seen.amax), before.experts + 1)
    return layers


# --- the file ------------------------------------------------------------------------------------------------------


def encode(statistics: Statistics) -> bytes:
    """The bytes of a file."""
    return b"".join(pieces(statistics))


def pieces(statistics: Statistics) -> Iterator[bytes]:
    """The same, one module's mean squares at a time; scalars come first."""
    names = sorted(statistics.modules)
    seen = [statistics.modules[name] for name in names]
    columns = {TOKENS: [one.tokens for one in seen], AMAX: [one.amax for one in seen]}  # wider elements first
    header: dict[str, object] = {"__metadata__": {**dict(sorted(statistics.metadata.items())), **KIND}}
    body, begin = b"", 0
    for suffix, column in columns.items():
        dtype, stored = _DTYPES[suffix]
        width = np.dtype(stored).itemsize
        for name in names:
            header[f"{name}.{suffix}"] = {"dtype": dtype, "shape": [], "data_offsets": [begin, begin + width]}
            begin += width
        body += np.array(column, stored).tobytes()
    squares = statistics.mean_squares
    measured = [(name, length) for name in names if (length := squares.length(name)) is not None]
    for name, length in measured:
        end = begin + length * squares.dtype.itemsize
        dtype = moments.DTYPES[squares.dtype]
        header[f"{name}.{MEAN_SQUARE}"] = {"dtype": dtype, "shape": [length], "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text + body
    for name, _ in measured:
        yield np.ascontiguousarray(squares.get(name), squares.dtype).tobytes()


def write(path: Path, statistics: Statistics) -> None:
    """Write the file; its name shows the whole of it or what was there before.

    Raises:
        EngineError: the disk is full.
    """
    partial = path.with_name(f".{path.name}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with disk_errors(path.parent, 0), partial.open("wb") as file:
            for piece in pieces(statistics):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def read(path: Path) -> Statistics:
    """Read a file.

    Raises:
        CheckpointError: it is missing, damaged, or holds something else.
    """
    file = _OneFile(path)
    header = read_header(file, path.name)
    if header.flaws:
        raise CheckpointError(f"{path}: {header.flaws[0].message}.", hint=_AGAIN)
    metadata = header.metadata if isinstance(header.metadata, Mapping) else {}
    if any(metadata.get(key) != value for key, value in KIND.items()):
        raise CheckpointError(f"{path} holds no activation statistics: its metadata do not say so.", hint=_AGAIN)
    scalars, vectors = _parts(path, header)
    columns = _columns(path, scalars, file)
    if columns[AMAX].keys() != columns[TOKENS].keys():
        odd = min(columns[AMAX].keys() ^ columns[TOKENS].keys())
        raise CheckpointError(f"{path}: {odd} has an input_amax or tokens without the other.", hint=_AGAIN)
    modules = {name: Observed(amax, int(columns[TOKENS][name])) for name, amax in columns[AMAX].items()}
    wrong = [name for name, one in modules.items() if not 0 <= one.amax < float("inf") or one.tokens < 0]
    if wrong:
        one = modules[wrong[0]]
        raise CheckpointError(
            f"{path}: {len(wrong):,} modules have an impossible range, first {wrong[0]} with the largest input "
            f"{one.amax} over {one.tokens:,} tokens.",
            hint=_AGAIN,
        )
    squares = {ref.name.removesuffix(f".{MEAN_SQUARE}"): ref for ref in vectors}
    stray = sorted(squares.keys() - modules.keys())
    if stray:
        raise CheckpointError(f"{path}: {stray[0]} has an {MEAN_SQUARE} and no {TOKENS}.", hint=_AGAIN)
    return Statistics(
        modules=modules,
        metadata={str(key): str(value) for key, value in metadata.items()},
        mean_squares=Stored(path=path, refs=squares),
    )


def _parts(path: Path, header: ShardHeader) -> tuple[list[TensorRef], list[TensorRef]]:
    """Scalars and rows; a scalar has few bytes, whatever the header claims."""
    scalars: list[TensorRef] = []
    vectors: list[TensorRef] = []
    for ref in header.tensors:
        suffix = ref.name.rpartition(".")[2]
        dtype, stored = _DTYPES.get(suffix, ("", "<f4"))
        if suffix == MEAN_SQUARE and moments.fits(ref):
            vectors.append(ref)
        elif ref.dtype == dtype and ref.elements == 1 and ref.size == np.dtype(stored).itemsize:
            scalars.append(ref)
        else:
            raise CheckpointError(
                f"{path}: {ref.name[:200]} is {ref.dtype[:20]} of shape {list(ref.shape[:4])}; a statistic is a "
                f"scalar, {AMAX} in F32 or {TOKENS} in I64, or a row of {MEAN_SQUARE} in F32.",
                hint=_AGAIN,
            )
    end = max((ref.end for ref in header.tensors), default=header.data_start)
    if end != header.file_size:
        raise CheckpointError(f"{path} has {header.file_size:,} bytes, its tensors end at {end:,}.", hint=_AGAIN)
    return scalars, vectors


def _columns(path: Path, scalars: Iterable[TensorRef], file: _OneFile) -> dict[str, dict[str, float]]:
    columns: dict[str, dict[str, float]] = {AMAX: {}, TOKENS: {}}
    for ref, value in _values(scalars, file):
        module, _, suffix = ref.name.rpartition(".")
        columns[suffix][module] = value
    if not columns[AMAX]:
        raise CheckpointError(f"{path} holds no statistics of any module.", hint=_AGAIN)
    return columns


def _values(scalars: Iterable[TensorRef], file: _OneFile) -> Iterator[tuple[TensorRef, float]]:
    for run in _runs(sorted(scalars, key=lambda ref: ref.begin)):
        data = file.read(run[0].shard, run[0].begin, run[-1].end)
        for ref in run:
            stored = _DTYPES[ref.name.rpartition(".")[2]][1]
            yield ref, np.frombuffer(data, stored, 1, ref.begin - run[0].begin)[0].item()


def _runs(scalars: Iterable[TensorRef]) -> Iterator[list[TensorRef]]:
    """Those that lie one behind the other, read at once."""
    run: list[TensorRef] = []
    for ref in scalars:
        if run and ref.begin != run[-1].end:
            yield run
            run = []
        run.append(ref)
    if run:
        yield run


class _OneFile:
    """A single file as the files of a checkpoint, for the header's reader."""

    def __init__(self, path: Path) -> None:
        try:
            self.sizes: Mapping[str, int] = {path.name: path.stat().st_size}
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or error}.", hint=_AGAIN) from None
        self.label = str(path)
        self._path = path

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Bytes of the file."""
        try:
            with self._path.open("rb") as file:
                file.seek(begin)
                return file.read() if end is None else file.read(max(end - begin, 0))
        except OSError as error:
            raise CheckpointError(
                f"{self.label}/{path} cannot be read: {error.strerror or error}.", hint=_AGAIN
            ) from None

    def local(self, path: str) -> Path | None:
        """The file itself."""
        return self._path if path == self._path.name else None
