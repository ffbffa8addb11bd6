"""What a checkpoint becomes when its pruned FP4 weights are stored sparsely, and what a sparse one was.

Every shard stays a shard of the same name, its tensors in the same order; a packed weight `M.weight` or
`M.weight_packed` becomes `M.weight_kept` and `M.weight_metadata`, as `formats.sparse` lays them out. The shard's
`__metadata__` says what it is and holds the dense shard's header, letter by letter, so that the way back gives the same
bytes. config.json names a `quant_method` that no engine knows, so that none serves it by mistake; every document the
sparse form replaces lies in the folder `dense`, with the digests of the dense shards.

No tensor is read here. Refused: a checkpoint without packed FP4 weights, rows of no whole groups, headers with flaws
or holes, a name taken, a checkpoint that is sparse already; on the way back, tensors that do not fit the header kept
beside them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from publisher import jsonio
from publisher.checkpoint.files import LocalFiles, safe_name
from publisher.checkpoint.header import DTYPE_BITS, MAX_HEADER, ShardHeader, TensorRef, read_header
from publisher.checkpoint.layout import ShardLayout, TensorSpec
from publisher.checkpoint.open import INDEX, Checkpoint
from publisher.checkpoint.sidefiles import CONFIG, HF_QUANT_CONFIG
from publisher.errors import CheckpointError
from publisher.formats import sparse
from publisher.matching import Globs
from publisher.subjects.pruned import SPARSE_SUFFIX, pruned_in, stated_pruning

METHOD = "paired-4:8-sparse"
KEPT, METADATA = SPARSE_SUFFIX, "weight_metadata"
PAYLOADS = ("weight", "weight_packed")
DENSE = "dense"  # the folder of what the sparse form replaces
DIGESTS = "digests.json"
REPLACED = {name: f"{DENSE}/{name}" for name in (CONFIG, HF_QUANT_CONFIG, "README.md", "publish.json")}
REPLACED[INDEX] = f"{DENSE}/index.json"  # under its own name it would be taken for a second one
SAID = (
    "FP4 weights pruned 4 of 8 in pairs, stored as kept pairs and CUTLASS's ordered metadata. No serving engine loads "
    "this form; `publisher convert --to dense` gives back the dense checkpoint."
)
_HEADER, _STORAGE = "dense_header", "storage"
_AGAIN = "Copy or download the checkpoint again."


@dataclass(frozen=True, slots=True)
class Pair:
    """A packed weight in both forms.

    Args:
        dense: the packed codes, U8 (rows, columns / 2).
        kept: its kept bytes.
        metadata: where they were.
    """

    dense: TensorSpec
    kept: TensorSpec
    metadata: TensorSpec

    @property
    def columns(self) -> int:
        """Weights of a row."""
        return self.dense.shape[1] * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewriting:
    """What will be written.

    Args:
        checkpoint: what is converted.
        to: sparse or dense.
        layout: the new shards, one for each of the old ones.
        pairs: by the name of the packed weight.
        modules: what the new declaration calls the pruned modules.
    """

    checkpoint: Checkpoint
    to: Literal["sparse", "dense"]
    layout: tuple[ShardLayout, ...]
    pairs: Mapping[str, Pair]
    modules: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of what is read and what is made of it."""
        old = [[shard.shard, shard.file_size, shard.length] for shard in self.checkpoint.shards.values()]
        return jsonio.digest([self.to, old, [shard.header[8:].decode() for shard in self.layout]])


# --- to sparse -----------------------------------------------------------------------------------------------------


def to_sparse(checkpoint: Checkpoint, modules: Sequence[str] = ()) -> Rewriting:
    """See how a checkpoint can be stored sparsely.

    Args:
        checkpoint: with packed FP4 weights.
        modules: globs over the modules that are pruned; what config.json or the card declare, else the experts.

    Raises:
        CheckpointError: it cannot; with the reason.
    """
    files = folder_of(checkpoint)
    if is_sparse(checkpoint) or any(name.startswith(f"{DENSE}/") for name in files.sizes):
        raise CheckpointError(f"{files.label} is stored sparsely already.", hint="Convert it with --to dense.")
    globs = Globs(modules) if modules else None
    chosen = pruned_in(checkpoint, globs)
    if globs is not None and (idle := globs.unused(module.name for module in chosen)):
        raise CheckpointError(
            f"{idle[0]!r} matches no packed FP4 weight of {files.label}.", hint="Correct the pattern."
        )
    if not chosen:
        raise CheckpointError(f"{files.label} holds no packed FP4 weight.", hint="Quantize and prune it first.")
    pairs = {module.ref.name: _pair(module.ref) for module in chosen}
    new = {spec.name for pair in pairs.values() for spec in (pair.kept, pair.metadata)}
    if taken := new & checkpoint.tensors.keys():
        raise CheckpointError(f"{files.label} holds a tensor {min(taken)} of its own.", hint=_AGAIN)
    layout = [_sparse_shard(files, header, pairs) for header in sound(checkpoint)]
    return Rewriting(
        checkpoint=checkpoint,
        to="sparse",
        layout=tuple(layout),
        pairs=pairs,
        modules=tuple(modules) or tuple(dict.fromkeys(module.kind for module in chosen)),
    )


def _pair(ref: TensorRef) -> Pair:
    module, _, suffix = ref.name.rpartition(".")
    if ref.dtype != "U8" or len(ref.shape) != 2 or suffix not in PAYLOADS or not ref.elements or ref.shape[1] % 4:
        raise CheckpointError(
            f"{ref.name} is {ref.dtype} of shape {list(ref.shape)}, not packed rows of whole groups of eight weights.",
            hint="Name the modules that are pruned with --modules.",
        )
    rows, columns = ref.shape[0], ref.shape[1] * 2
    return Pair(
        TensorSpec(ref.name, "U8", ref.shape),
        TensorSpec(f"{module}.{KEPT}", "U8", sparse.kept_shape(rows, columns)),
        TensorSpec(f"{module}.{METADATA}", "U8", sparse.metadata_shape(rows, columns)),
    )


def _sparse_shard(files: LocalFiles, header: ShardHeader, pairs: Mapping[str, Pair]) -> ShardLayout:
    specs: list[TensorSpec] = []
    for ref in by_place(header):
        pair = pairs.get(ref.name)
        specs += [pair.kept, pair.metadata] if pair else [TensorSpec(ref.name, ref.dtype, ref.shape)]
    text = files.read(header.shard, 8, header.data_start).decode()
    return _layout(header.shard, specs, {"format": "pt", _STORAGE: f"{METHOD}: {SAID}", _HEADER: text})


def _layout(shard: str, specs: Sequence[TensorSpec], metadata: Mapping[str, str]) -> ShardLayout:
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    position = 0
    for spec in specs:
        offsets = [position, position + spec.size]
        entries[spec.name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": offsets}
        position += spec.size
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise CheckpointError(f"The header of {shard} would have {len(text):,} bytes; readers stop at {MAX_HEADER:,}.")
    header = len(text).to_bytes(8, "little") + text
    offsets_of = {spec.name: len(header) + entries[spec.name]["data_offsets"][0] for spec in specs}
    return ShardLayout(shard, tuple(specs), header, offsets_of)


def declared_config(made: Rewriting) -> dict[str, Any]:
    """config.json of the sparse form: a method no engine knows, and what it is."""
    config = {key: value for key, value in made.checkpoint.config.items() if key != "quantization_config"}
    statement = {"pattern": sparse.PATTERN, "storage": "sparse", "modules": list(made.modules)}
    return {**config, "sparsity": statement, "quantization_config": {"quant_method": METHOD, "note": SAID}}


# --- to dense ------------------------------------------------------------------------------------------------------


def is_sparse(checkpoint: Checkpoint) -> bool:
    """Whether config.json says that weights are stored sparsely."""
    stated = stated_pruning(checkpoint)
    return stated is not None and stated.storage == "sparse"


def to_dense(checkpoint: Checkpoint) -> Rewriting:
    """See what a sparse checkpoint was.

    Raises:
        CheckpointError: it is none, or tensors do not fit the header kept beside them.
    """
    files = folder_of(checkpoint)
    if not is_sparse(checkpoint):
        raise CheckpointError(f"{files.label} is not stored sparsely.", hint="Convert what --to sparse has written.")
    pairs: dict[str, Pair] = {}
    layout = []
    for header in sound(checkpoint):
        dense = _dense_header(files, header)
        pairs |= _match(header, dense)
        specs = tuple(TensorSpec(ref.name, ref.dtype, ref.shape) for ref in by_place(dense))
        text = header.metadata[_HEADER].encode()
        offsets = {ref.name: ref.begin for ref in dense.tensors}
        layout.append(ShardLayout(header.shard, specs, len(text).to_bytes(8, "little") + text, offsets))
    return Rewriting(checkpoint=checkpoint, to="dense", layout=tuple(layout), pairs=pairs)


class _Text:
    """A header's text as the file it once began."""

    def __init__(self, shard: str, text: bytes, size: int) -> None:
        self.label, self.sizes = shard, {shard: size}
        self._first = len(text).to_bytes(8, "little") + text

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        """Its first bytes."""
        return self._first[begin:end]

    def local(self, path: str) -> None:
        """Nowhere on the disk."""


def _dense_header(files: LocalFiles, header: ShardHeader) -> ShardHeader:
    text = header.metadata.get(_HEADER) if isinstance(header.metadata, Mapping) else None
    if not isinstance(text, str):
        raise CheckpointError(f"{files.label}/{header.shard} holds no header of a dense shard.", hint=_AGAIN)
    raw = text.encode()
    probe = read_header(_Text(header.shard, raw, MAX_HEADER << 20), header.shard)
    end = max((ref.end for ref in probe.tensors), default=probe.data_start)
    dense = read_header(_Text(header.shard, raw, end), header.shard)
    _refuse_flaws(f"the dense header of {header.shard}", dense)
    return dense


def _match(header: ShardHeader, dense: ShardHeader) -> dict[str, Pair]:
    """The packed weights of the dense header, each with its two tensors; everything else must be there as it is."""
    mine = {ref.name: TensorSpec(ref.name, ref.dtype, ref.shape) for ref in header.tensors}
    pairs: dict[str, Pair] = {}
    for ref in dense.tensors:
        spec = TensorSpec(ref.name, ref.dtype, ref.shape)
        if mine.get(ref.name) == spec:
            del mine[ref.name]
            continue
        pair = _pair(ref)
        if mine.pop(pair.kept.name, None) != pair.kept or mine.pop(pair.metadata.name, None) != pair.metadata:
            raise CheckpointError(f"{header.shard}: {ref.name} cannot be made of what is there.", hint=_AGAIN)
        pairs[ref.name] = pair
    if mine:
        raise CheckpointError(f"{header.shard}: {min(mine)} belongs to no tensor of the dense shard.", hint=_AGAIN)
    return pairs


# --- both ----------------------------------------------------------------------------------------------------------


def folder_of(checkpoint: Checkpoint) -> LocalFiles:
    """The folder; a repository has none.

    Raises:
        CheckpointError: no folder on this machine.
    """
    files = checkpoint.files
    if not isinstance(files, LocalFiles):
        raise CheckpointError(f"{files.label} is not a folder on this machine.", hint="Download it first.")
    return files


def sound(checkpoint: Checkpoint) -> Iterable[ShardHeader]:
    """Every shard's header, after all have been looked at.

    Raises:
        CheckpointError: one has flaws or no tensor, its tensors leave holes, or a tensor lies in two shards.
    """
    seen: dict[str, str] = {}
    for header in checkpoint.shards.values():
        _refuse_flaws(f"{checkpoint.files.label}/{header.shard}", header)
        if not header.tensors:
            raise CheckpointError(f"{header.shard} holds no tensor.", hint="Remove the file.")
        for ref in header.tensors:
            if seen.setdefault(ref.name, header.shard) != header.shard:
                raise CheckpointError(f"{ref.name} lies in {seen[ref.name]} and in {header.shard}.", hint=_AGAIN)
    if not checkpoint.shards or any(not safe_name(name) for name in checkpoint.shards):
        raise CheckpointError(f"{checkpoint.files.label} holds no *.safetensors file.", hint=_AGAIN)
    return checkpoint.shards.values()


def by_place(header: ShardHeader) -> list[TensorRef]:
    """A shard's tensors as they lie in it."""
    return sorted(header.tensors, key=lambda ref: (ref.begin, ref.end, ref.name))


def _refuse_flaws(label: str, header: ShardHeader) -> None:
    if header.flaws:
        raise CheckpointError(f"{label}: {header.flaws[0].message}.", hint=_AGAIN)
    position = header.data_start
    for ref in by_place(header):
        bits = DTYPE_BITS.get(ref.dtype, 0)
        if ref.begin != position or ref.elements * bits != ref.size * 8 or not bits:
            raise CheckpointError(f"{label}: {ref.name} is not where or as large as its header says.", hint=_AGAIN)
        position = ref.end
    if position != header.file_size:
        raise CheckpointError(f"{label} has {header.file_size:,} bytes, its tensors end at {position:,}.", hint=_AGAIN)
