"""A checkpoint in numbers for a page: the census of its headers and a sample of its scales.

The census is exact. Scales are sampled: of each class of modules at most `TENSORS` tensors spread over its layers, of
each tensor at most its first `SAMPLE` bytes, so the cost is bounded whatever the checkpoint's size, and the page says
how much was looked at. At level headers no scale is read. Nothing is judged here; rules read every scale they judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from publisher.checkpoint import census
from publisher.checkpoint.census import Census
from publisher.checkpoint.files import Files
from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import class_of
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.errors import PublisherError
from publisher.formats import e4m3, e8m0

TENSORS = 64  # of one class
REMOTE_TENSORS = 3
CLASSES = 40
SAMPLE = 128 << 10  # bytes of one tensor
GLOBALS = ("weight_scale_2", "weight_global_scale", "input_scale", "input_global_scale")
CODES: Mapping[str, npt.NDArray[np.float32]] = {"nvfp4": e4m3.DECODE, "mxfp4": e8m0.DECODE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How often each scale code occurs in a sample of one class.

    Args:
        pattern: the class of modules.
        format: nvfp4 (E4M3 codes) or mxfp4 (E8M0 codes).
        counts: occurrences of each of the 256 codes.
        tensors: scale tensors looked at.
        of: scale tensors there are.
    """

    pattern: str
    format: str
    counts: tuple[int, ...]
    tensors: int
    of: int

    @property
    def scales(self) -> int:
        """Scales looked at."""
        return sum(self.counts)

    def share(self, *codes: int) -> float:
        """The part of the scales with one of these codes."""
        return sum(self.counts[code] for code in codes) / self.scales if self.scales else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The global scales of one class, as far as they were looked at.

    Args:
        pattern: the class of modules.
        suffix: such as `weight_scale_2`.
        low: the smallest finite value, None where there is none.
        middle: the median.
        high: the largest.
        odd: values that are no positive finite number.
        tensors: scalars looked at.
        of: scalars there are.
    """

    pattern: str
    suffix: str
    low: float | None
    middle: float | None
    high: float | None
    odd: int
    tensors: int
    of: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A checkpoint in numbers.

    Args:
        census: what the headers hold.
        declared: every quantization declaration, the one engines obey first.
        histograms: block scales by class; empty at level headers.
        ranges: global scales by class; empty at level headers and for a repository.
    """

    census: Census
    declared: tuple[QuantConfig, ...]
    histograms: tuple[Histogram, ...] = ()
    ranges: tuple[Range, ...] = ()


def look(checkpoint: Checkpoint, *, level: str) -> Overview:
    """Count a checkpoint and, above level headers, sample its scales.

    Of a repository few tensors are sampled and no scalars, because each would cost a request.
    """
    counted, declared = census.take(checkpoint), checkpoint.declarations
    if level == "headers":
        return Overview(census=counted, declared=declared)
    blocks, scalars = _scales(checkpoint)
    shards = next(iter(checkpoint.shards), None)
    near = shards is not None and checkpoint.files.local(shards) is not None
    return Overview(
        census=counted,
        declared=declared,
        histograms=tuple(_histograms(checkpoint.files, blocks, TENSORS if near else REMOTE_TENSORS)),
        ranges=tuple(_ranges(checkpoint.files, scalars)) if near else (),
    )


def _scales(
    checkpoint: Checkpoint,
) -> tuple[dict[tuple[str, str], list[TensorRef]], dict[tuple[str, str], list[TensorRef]]]:
    """Block scales by (class, format) and global scales by (class, suffix)."""
    blocks: dict[tuple[str, str], list[TensorRef]] = {}
    scalars: dict[tuple[str, str], list[TensorRef]] = {}
    for module in checkpoint.modules.values():
        form = census.stored_as(module)
        if form not in CODES:
            continue
        pattern = class_of(module.name)
        scale = module.tensors.get("weight_scale")
        if scale is not None and scale.dtype in ("U8", "F8_E4M3", "F8_E8M0"):
            blocks.setdefault((pattern, form), []).append(scale)
        for suffix in GLOBALS:
            ref = module.tensors.get(suffix)
            if ref is not None and ref.dtype == "F32" and ref.size == 4:
                scalars.setdefault((pattern, suffix), []).append(ref)
    return blocks, scalars


def _histograms(
    files: Files, blocks: Mapping[tuple[str, str], Sequence[TensorRef]], tensors: int
) -> Iterator[Histogram]:
    for (pattern, form), refs in _largest(blocks):
        counts = np.zeros(256, np.int64)
        looked = 0
        for ref in _spread(refs, tensors):
            data = _read(files, ref, SAMPLE)
            looked += bool(data)
            counts += np.bincount(np.frombuffer(data, np.uint8), minlength=256)
        if looked:
            numbers = tuple(int(count) for count in counts)
            yield Histogram(pattern=pattern, format=form, counts=numbers, tensors=looked, of=len(refs))


def _ranges(files: Files, scalars: Mapping[tuple[str, str], Sequence[TensorRef]]) -> Iterator[Range]:
    for (pattern, suffix), refs in _largest(scalars):
        read = [data for ref in _spread(refs, TENSORS) if len(data := _read(files, ref, 4)) == 4]
        values = np.frombuffer(b"".join(read), "<f4")
        good = np.sort(values[np.isfinite(values) & (values > 0)])
        middle = float(good[len(good) // 2]) if len(good) else None
        yield Range(
            pattern=pattern,
            suffix=suffix,
            low=float(good[0]) if len(good) else None,
            middle=middle,
            high=float(good[-1]) if len(good) else None,
            odd=len(values) - len(good),
            tensors=len(values),
            of=len(refs),
        )


def _largest(
    classes: Mapping[tuple[str, str], Sequence[TensorRef]],
) -> Iterable[tuple[tuple[str, str], Sequence[TensorRef]]]:
    """The classes with the most bytes, in name order; a stranger may have made up any number of them."""
    kept = sorted(classes, key=lambda key: -sum(ref.size for ref in classes[key]))[:CLASSES]
    return [(key, classes[key]) for key in sorted(kept)]


def _spread(refs: Sequence[TensorRef], limit: int) -> Sequence[TensorRef]:
    """At most `limit` tensors, evenly over the class, in file order."""
    if len(refs) > limit:
        refs = [refs[number * (len(refs) - 1) // max(limit - 1, 1)] for number in range(limit)]
    return sorted(refs, key=lambda ref: (ref.shard, ref.begin))


def _read(files: Files, ref: TensorRef, limit: int) -> bytes:
    """The tensor's first bytes; nothing where they cannot be read, which rules report."""
    try:
        return files.read(ref.shard, ref.begin, min(ref.end, ref.begin + limit))
    except PublisherError:
        return b""
