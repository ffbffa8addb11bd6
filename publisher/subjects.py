"""What a rule may look at, cheapest first; the type of a rule's first parameter is the evidence it asks for.

`stream` makes the subjects of the kinds asked for. Headers, modules, the source and the card cost next to nothing.
Scales are read once, in file order, neighbours in one read, and handed to every rule that wants them; a tensor longer
than a piece is counted piece by piece, so memory stays bounded whatever the checkpoint's size. Tensors that lie beyond
the end of their file are not read; the meter keeps their number so that nobody takes them for checked.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from publisher import jsonio
from publisher.checkpoint.files import Files
from publisher.checkpoint.header import ShardHeader, TensorRef
from publisher.checkpoint.modules import Module, fused_group_of, fused_groups
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.errors import PublisherError

LEVELS = ("headers", "scales", "full")
PIECE = 8 << 20  # bytes of one read
GAP = 64 << 10  # bytes worth reading to save a read
BLOCK = {"nvfp4": 16, "mxfp4": 32}
# Scalars of a module that rules judge, as the layouts spell them.
SCALARS = ("weight_scale_2", "weight_global_scale", "input_scale", "input_scale_2", "input_global_scale")
SCALE_SUFFIXES = ("weight_scale", *SCALARS)
WIDTHS = {"F32": 4, "BF16": 2, "F16": 2}
CARD = "README.md"

Codes: TypeAlias = npt.NDArray[np.uint8]
Places: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything one validation may look at.

    Args:
        checkpoint: the result, opened.
        source: what it was made from, opened; None when not at hand.
        base_model: `org/name` of the source on the Hub, where it is known.
        card: None judges README.md when there is one, False leaves it alone, True expects it.
        gate: the gate the publication asks for: auto, manual or off.
        settings: the repository's settings as read back (`gated`, `private`), where they are known.
    """

    checkpoint: Checkpoint
    source: Checkpoint | None = None
    base_model: str | None = None
    card: bool | None = None
    gate: str | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def has_card(self) -> bool:
        """Whether the card is judged."""
        return CARD in self.checkpoint.files.sizes if self.card is None else self.card


@dataclass(slots=True, kw_only=True)
class Meter:
    """What a run has read: bytes, tensors it could not read, and how far it is."""

    progress: Callable[[int, int], None] | None = None
    bytes_read: int = 0
    unreadable: int = 0
    done: int = 0
    total: int = 0

    def read(self, files: Files, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Read and count."""
        data = files.read(path, begin, end)
        self.bytes_read += len(data)
        return data

    def step(self, size: int) -> None:
        """`size` more bytes of the planned reading are done."""
        self.done += size
        if self.progress is not None:
            self.progress(self.done, self.total)


# --- headers -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Headers:
    """The whole checkpoint as headers, index and JSON files tell it."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard's header."""

    checkpoint: Checkpoint
    header: ShardHeader


@dataclass(frozen=True)
class Modules:
    """The module table beside the quantization declared; shapes are checked against the source where it is at hand."""

    checkpoint: Checkpoint
    source: Checkpoint | None = None

    @property
    def quant(self) -> QuantConfig | None:
        """The declaration the engines obey."""
        return self.checkpoint.quant

    @functools.cached_property
    def packed(self) -> tuple[Module, ...]:
        """Modules stored as FP4, or meant to be: a packed payload, or scales of one."""
        return tuple(module for module in self.checkpoint.modules.values() if is_packed(module))

    def format_of(self, module: Module) -> str | None:
        """nvfp4, mxfp4, or None when the module is neither."""
        return module_format(self.checkpoint, module)


def is_packed(module: Module) -> bool:
    """Whether a module is FP4 by its tensors; FP8 and plain layers are not.

    A scale beside a plain or missing weight counts: it is a broken set, and somebody must say so.
    """
    weight = module.weight
    if weight is not None and weight.dtype in {"U8", "F4", "I8"}:
        return weight.name.endswith(("weight", "weight_packed")) and len(weight.shape) > 0
    if weight is not None and (weight.dtype.startswith("F8") or weight.dtype == "I32"):
        return "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors
    return any(suffix in module.tensors for suffix in ("weight_scale", "weight_scale_2", "weight_global_scale"))


def module_format(checkpoint: Checkpoint, module: Module) -> str | None:
    """A packed module's format: as declared, or by its tensors where the declaration leaves it to each layer."""
    declared = checkpoint.quant.format if checkpoint.quant else None
    if declared in BLOCK:
        return declared
    if "weight_scale_2" in module.tensors or "weight_global_scale" in module.tensors:
        return "nvfp4"
    scale = module.tensors.get("weight_scale")
    if scale is None:
        return None
    return "nvfp4" if scale.dtype == "F8_E4M3" else "mxfp4" if scale.dtype == "U8" else None


# --- scales --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockScales:
    """The block scales of one module.

    Args:
        checkpoint: where it belongs.
        module: the module.
        ref: its `weight_scale`.
        format: nvfp4 (E4M3 codes) or mxfp4 (E8M0 codes).
        histogram: how often each of the 256 codes occurs, shape (256,).
        meter: counts what is read later.
        data: the codes, where the tensor fits into one piece.
    """

    checkpoint: Checkpoint
    module: Module
    ref: TensorRef
    format: str
    histogram: npt.NDArray[np.int64]
    meter: Meter
    data: bytes | None

    def count(self, *codes: int) -> int:
        """How many scales have one of these codes."""
        return int(sum(self.histogram[code] for code in codes))

    def places(self, *codes: int) -> Iterator[Places]:
        """Flat positions of these codes, in order, at most one piece of the tensor at a time."""
        for begin in range(0, self.ref.size, PIECE):
            data = self.data if self.data is not None else self._piece(self.ref, begin, begin + PIECE)
            found = np.flatnonzero(np.isin(np.frombuffer(data, np.uint8), codes))
            if len(found):
                yield found.astype(np.int64) + begin

    def index(self, place: int) -> tuple[int, ...]:
        """The position (row, block) of a flat position."""
        return tuple(int(n) for n in np.unravel_index(place, self.ref.shape)) if self.ref.shape else ()

    def nonzero(self, places: Places) -> tuple[int, int | None]:
        """How many of these blocks hold a code other than ±0, and the first of them.

        Reads the blocks' payload only; (0, None) where payload and scales do not fit together.
        """
        weight, width = self.module.weight, BLOCK[self.format] // 2
        if weight is None or weight.size != self.ref.size * width:
            return 0, None
        total, first = 0, None
        for run in _runs(places, GAP // width, PIECE // width):
            begin = int(run[0])
            raw = np.frombuffer(self._piece(weight, begin * width, (int(run[-1]) + 1) * width), np.uint8)
            blocks = raw[: len(raw) // width * width].reshape(-1, width)[(run - begin)[: len(raw) // width]]
            hit = np.flatnonzero((blocks & 0x77).any(axis=1))
            total += len(hit)
            if first is None and len(hit):
                first = int(run[hit[0]])
        return total, first

    def _piece(self, ref: TensorRef, begin: int, end: int) -> bytes:
        return self.meter.read(self.checkpoint.files, ref.shard, ref.begin + begin, min(ref.begin + end, ref.end))


def _runs(places: Places, gap: int, span: int) -> Iterator[Places]:
    """Cut sorted positions where a hole is wider than `gap`, and every `span` positions."""
    for run in np.split(places, np.flatnonzero(np.diff(places) > gap) + 1):
        while len(run):
            cut = int(np.searchsorted(run, run[0] + span))
            yield run[:cut]
            run = run[cut:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalars:
    """All scalars of one kind.

    Args:
        checkpoint: where they belong.
        suffix: such as `weight_scale_2`.
        refs: their tensors, in file order.
        values: float32, shape (n,).
    """

    checkpoint: Checkpoint
    suffix: str
    refs: tuple[TensorRef, ...]
    values: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class FusedGroup:
    """Modules that become one layer in the engines, with their global scales.

    Args:
        checkpoint: where they belong.
        name: the fused layer.
        kind: its last name part: qkv_proj, gate_up_proj, fused_qkv_a_proj or w13.
        role: the members' role.
        suffix: the global scale's name: weight_scale_2 or weight_global_scale.
        refs: the members' global scales.
        values: the same as numbers.
        bits: the same as bit patterns.
    """

    checkpoint: Checkpoint
    name: str
    kind: str
    role: str
    suffix: str
    refs: tuple[TensorRef, ...]
    values: tuple[float, ...]
    bits: tuple[int, ...]


# --- source and card -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The checkpoint and what it was made from."""

    checkpoint: Checkpoint
    source: Checkpoint
    meter: Meter

    def same(self, path: str) -> bool:
        """Whether a file has the same bytes in both; both must have it."""
        mine, theirs = self.checkpoint.files, self.source.files
        size = mine.sizes[path]
        if size != theirs.sizes[path]:
            return False
        return all(
            self.meter.read(mine, path, begin, begin + PIECE) == self.meter.read(theirs, path, begin, begin + PIECE)
            for begin in range(0, size, PIECE)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The metadata block at the head of a model card; `flaw` says why it could not be read."""

    metadata: Mapping[str, Any] = field(default_factory=dict)
    flaw: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The card as the Hub will read it, the files beside it, and the repository's settings where they are known."""

    checkpoint: Checkpoint
    card: Card
    base_model: str | None
    gate: str | None
    settings: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """The card beside the source's card."""

    checkpoint: Checkpoint
    card: Card
    source: Checkpoint
    source_card: Card


_FRONT = re.compile(r"\A---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)


def read_card(files: Files, meter: Meter) -> Card:
    """Parse a README.md's front matter; what is wrong becomes the card's flaw."""
    size = files.sizes.get(CARD)
    if size is None:
        return Card(flaw=f"There is no {CARD}.")
    if size > 16 << 20:
        return Card(flaw=f"{CARD} has {size:,} bytes; no model card does.")
    try:
        text = meter.read(files, CARD).decode("utf-8")
        match = _FRONT.match(text)
        if match is None:
            return Card(flaw=f"{CARD} does not begin with a metadata block between two lines of `---`.")
        metadata = jsonio.loads_yaml(match.group(1), CARD)
    except UnicodeDecodeError as error:
        return Card(flaw=f"{CARD} is not UTF-8 (byte {error.start}).")
    except PublisherError as error:
        return Card(flaw=error.message)
    if not isinstance(metadata, Mapping):
        return Card(flaw=f"The metadata block of {CARD} is no mapping.")
    return Card(metadata={str(key): value for key, value in metadata.items()})


# --- the stream ----------------------------------------------------------------------------------------------------

Subject: TypeAlias = Headers | Shard | Modules | BlockScales | Scalars | FusedGroup | Pair | Repository | Upstream
SCALE_KINDS: frozenset[type] = frozenset({BlockScales, Scalars, FusedGroup})
# The noun of each kind, for counts and for `does not apply`.
NOUNS: Mapping[type, str] = {
    Headers: "checkpoints",
    Shard: "shards",
    Modules: "module tables",
    BlockScales: "block scale tensors",
    Scalars: "kinds of scalars",
    FusedGroup: "fused groups",
    Pair: "sources",
    Repository: "cards",
    Upstream: "upstream cards",
}


def lacking(kind: type, evidence: Evidence, level: str) -> str | None:
    """What must be given before a rule on this kind of evidence can run; None when nothing is missing."""
    if kind in SCALE_KINDS and LEVELS.index(level) < LEVELS.index("scales"):
        return "needs --level scales"
    if kind in (Pair, Upstream) and evidence.source is None:
        return "needs the source: --source"
    if kind in (Repository, Upstream) and not evidence.has_card:
        return f"needs the model card: {CARD}"
    return None


def stream(evidence: Evidence, kinds: Collection[type], meter: Meter) -> Iterator[Subject]:
    """The subjects of the kinds asked for, cheapest first; scales in file order.

    Raises:
        CheckpointError: a file cannot be read at all.
    """
    checkpoint = evidence.checkpoint
    if Headers in kinds:
        yield Headers(checkpoint)
    if Shard in kinds:
        yield from (Shard(checkpoint, header) for header in checkpoint.shards.values())
    if Modules in kinds:
        yield Modules(checkpoint, evidence.source)
    yield from _publication(evidence, kinds, meter)
    if SCALE_KINDS & set(kinds):
        yield from _scales(checkpoint, kinds, meter)


def _publication(evidence: Evidence, kinds: Collection[type], meter: Meter) -> Iterator[Subject]:
    checkpoint, source = evidence.checkpoint, evidence.source
    if Pair in kinds and source is not None:
        yield Pair(checkpoint=checkpoint, source=source, meter=meter)
    if not {Repository, Upstream} & set(kinds):
        return
    card = read_card(checkpoint.files, meter)
    if Repository in kinds:
        yield Repository(
            checkpoint=checkpoint,
            card=card,
            base_model=evidence.base_model,
            gate=evidence.gate,
            settings=evidence.settings,
        )
    if Upstream in kinds and source is not None:
        yield Upstream(checkpoint=checkpoint, card=card, source=source, source_card=read_card(source.files, meter))


def _scales(checkpoint: Checkpoint, kinds: Collection[type], meter: Meter) -> Iterator[Subject]:
    """One pass over scales and scalars in file order; what needs all scalars comes last."""
    blocks: dict[str, tuple[Module, str]] = {}
    scalars: dict[str, str] = {}
    for module in filter(is_packed, checkpoint.modules.values()):
        form = module_format(checkpoint, module)
        ref = module.tensors.get("weight_scale")
        if BlockScales in kinds and ref is not None and form is not None and ref.dtype in {"U8", "F8_E4M3", "F8_E8M0"}:
            blocks[ref.name] = module, form
        for suffix in SCALARS:
            scalar = module.tensors.get(suffix)
            if scalar is not None and scalar.dtype in WIDTHS and scalar.shape in ((), (1,)):
                scalars[scalar.name] = suffix
    refs = [checkpoint.tensors[name] for name in (*blocks, *scalars)]
    values: dict[str, dict[TensorRef, np.float32]] = {}
    for ref, histogram, data in _counted(checkpoint, _readable(checkpoint, refs, meter), meter):
        if ref.name in blocks:
            module, form = blocks[ref.name]
            yield BlockScales(
                checkpoint=checkpoint,
                module=module,
                ref=ref,
                format=form,
                histogram=histogram,
                meter=meter,
                data=data,
            )
        elif data is not None and len(data) == WIDTHS[ref.dtype]:
            values.setdefault(scalars[ref.name], {})[ref] = _value(ref.dtype, data)
    for suffix, found in values.items():
        if Scalars in kinds:
            numbers = np.array(list(found.values()), np.float32)
            yield Scalars(checkpoint=checkpoint, suffix=suffix, refs=tuple(found), values=numbers)
    if FusedGroup in kinds:
        for suffix in ("weight_scale_2", "weight_global_scale"):
            yield from _groups(checkpoint, suffix, values.get(suffix, {}))


def _readable(checkpoint: Checkpoint, refs: Iterable[TensorRef], meter: Meter) -> list[TensorRef]:
    """The tensors whose bytes exist, in file order."""
    found, lost = [], 0
    for ref in refs:
        header = checkpoint.shards[ref.shard]
        if ref.end <= header.file_size and ref.size == ref.elements * WIDTHS.get(ref.dtype, 1):
            found.append(ref)
        else:
            lost += 1
    meter.unreadable += lost
    meter.total += sum(ref.size for ref in found)
    return sorted(found, key=lambda ref: (ref.shard, ref.begin))


def _counted(
    checkpoint: Checkpoint, refs: list[TensorRef], meter: Meter
) -> Iterator[tuple[TensorRef, npt.NDArray[np.int64], bytes | None]]:
    """Each tensor with the histogram of its bytes, and its bytes where they fit into one piece."""
    for run in _neighbours(refs):
        begin, end = run[0].begin, max(ref.end for ref in run)
        if len(run) == 1 and end - begin > PIECE:
            histogram = np.zeros(256, np.int64)
            for at in range(begin, end, PIECE):
                piece = meter.read(checkpoint.files, run[0].shard, at, min(at + PIECE, end))
                histogram += _histogram(piece)
                meter.step(len(piece))
            yield run[0], histogram, None
            continue
        data = meter.read(checkpoint.files, run[0].shard, begin, end)
        for ref in run:
            own = data[ref.begin - begin : ref.end - begin]
            meter.step(len(own))
            yield ref, _histogram(own), own


def _neighbours(refs: list[TensorRef]) -> Iterator[list[TensorRef]]:
    """Tensors close enough to one another for one read of at most a piece."""
    run: list[TensorRef] = []
    for ref in refs:
        near = run and ref.shard == run[0].shard and ref.begin - run[-1].end <= GAP
        if run and not (near and ref.end - run[0].begin <= PIECE):
            yield run
            run = []
        run.append(ref)
    if run:
        yield run


def _histogram(data: bytes) -> npt.NDArray[np.int64]:
    """Counts of the 256 byte values; pairs are counted at once, which halves the work on long tensors."""
    if len(data) < 1 << 16:
        return np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    even = len(data) // 2 * 2
    pairs = np.bincount(np.frombuffer(data, np.uint16, even // 2), minlength=1 << 16).reshape(256, 256)
    counts: npt.NDArray[np.int64] = pairs.sum(axis=0) + pairs.sum(axis=1)
    if even != len(data):
        counts[data[-1]] += 1
    return counts


def _value(dtype: str, data: bytes) -> np.float32:
    if dtype == "BF16":
        return np.float32(np.frombuffer(b"\0\0" + data, "<f4")[0])
    return np.float32(np.frombuffer(data, "<f4" if dtype == "F32" else "<f2")[0])


def _groups(checkpoint: Checkpoint, suffix: str, values: Mapping[TensorRef, np.float32]) -> Iterator[FusedGroup]:
    refs = {ref.name.rpartition(".")[0]: ref for ref in values}
    for name, members in fused_groups(sorted(refs)).items():
        own = tuple(refs[member] for member in members)
        numbers = np.array([values[ref] for ref in own], np.float32)
        yield FusedGroup(
            checkpoint=checkpoint,
            name=name,
            kind=(fused_group_of(members[0]) or name).rpartition(".")[2],
            role=checkpoint.modules[members[0]].role,
            suffix=suffix,
            refs=own,
            values=tuple(float(number) for number in numbers),
            bits=tuple(int(bit) for bit in numbers.view(np.uint32)),
        )
