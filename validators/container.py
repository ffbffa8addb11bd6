"""CN: the container. Shard headers, the index, and whether both tell the same story; nothing of what the bytes mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from publisher.checkpoint.files import shard_name
from publisher.checkpoint.header import DTYPE_BITS
from publisher.checkpoint.open import INDEX
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import Headers, Shard

DTYPES = frozenset({"U8", "F8_E4M3", "F32", "BF16", "F16"})
INTEGERS = frozenset({"I32", "I64"})  # payload and shape of int4 pack-quantized sources
BY_INDEX = ("vllm", "sglang", "atom", "transformers")  # they open the files the index names, and no others
INDEXED = Scope("model.safetensors.index.json", lambda headers: headers.checkpoint.index is not None)
SHARDED = Scope(
    "safetensors shard and no index",
    lambda headers: bool(headers.checkpoint.shards) or INDEX in headers.checkpoint.files.sizes,
)


@rule("CN01", "bad-header-length", severity=ERROR, refuses=ENGINES)
def bad_header_length(shard: Shard) -> Iterator[Found]:
    """A shard's first eight bytes claim a header that is out of bounds or longer than the file.

    Why: every reader takes the header's place and size from these bytes, and refuses the file.
    Fix: write or download the shard again.
    Seen: bounds as in safetensors `src/tensor.rs`.
    """
    for flaw in shard.header.flaws:
        if flaw.kind in ("length", "truncated"):
            yield Found(f"In {shard.header.shard} {flaw.message}; copy the file again.", file=shard.header.shard)


@rule("CN02", "unreadable-header", severity=ERROR, refuses=ENGINES)
def unreadable_header(shard: Shard) -> Iterator[Found]:
    """A shard's header is not a JSON object of tensors with dtype, shape and offsets.

    Why: no reader can find a tensor in the file.
    Fix: write or download the shard again.
    Seen: safetensors README, "Format".
    """
    for flaw in shard.header.flaws:
        if flaw.kind in ("json", "entry"):
            message = f"In {shard.header.shard} {flaw.message}; write the shard again."
            yield Found(message, file=shard.header.shard, tensor=flaw.tensor)


@rule("CN03", "duplicate-header-key", severity=ERROR, engines=ENGINES)
def duplicate_header_key(shard: Shard) -> Iterator[Found]:
    """A header names one tensor twice.

    Why: readers disagree on which entry counts; Python's json keeps the last without a word.
    Fix: write the shard again with each name once.
    Seen: forbidden by the safetensors README.
    """
    for flaw in shard.header.flaws:
        if flaw.kind == "duplicate":
            message = f"In {shard.header.shard} {flaw.message}; write the shard again."
            yield Found(message, file=shard.header.shard, tensor=flaw.tensor)


@rule("CN04", "holes-or-overlap", severity=ERROR, refuses=ENGINES)
def holes_or_overlap(shard: Shard) -> Iterator[Found]:
    """Tensors overlap, leave holes, or do not end where the file ends.

    Why: the safetensors library refuses the file; readers that do not check take one tensor's bytes for another's.
    Fix: write the shard again, or copy it again when it is shorter than its header says.
    Seen: safetensors `src/tensor.rs`, `Metadata::validate`.
    """
    header = shard.header
    if not header.length or any(flaw.kind in ("json", "entry") for flaw in header.flaws):
        return
    at = header.data_start
    for ref in sorted(header.tensors, key=lambda ref: (ref.begin, ref.end)):
        if ref.begin != at:
            kind = "overlaps the tensor before it by" if ref.begin < at else "leaves a hole before it of"
            message = f"{ref.name} {kind} {abs(ref.begin - at):,} bytes; write {header.shard} again."
            yield Found(message, file=header.shard, tensor=ref.name)
        at = max(at, ref.end)
    if at != header.file_size:
        message = f"{header.shard} has {header.file_size:,} bytes, its tensors end at {at:,}; copy the file again."
        yield Found(message, file=header.shard)


@rule("CN05", "wrong-byte-count", severity=ERROR, refuses=ENGINES)
def wrong_byte_count(shard: Shard) -> Iterator[Found]:
    """A tensor's bytes are not what its shape and dtype need.

    Why: the safetensors library refuses the file.
    Fix: write the shard again with the tensor's true shape and dtype.
    Seen: safetensors `src/tensor.rs`, `TensorInfo` checks.
    """
    for ref in shard.header.tensors:
        bits = DTYPE_BITS.get(ref.dtype)
        if bits is not None and ref.elements * bits != ref.size * 8:
            need = ref.elements * bits / 8
            message = f"{ref.name} {ref.dtype} {list(ref.shape)} needs {need:,.10g} bytes, {ref.size:,} are stored."
            yield Found(message + " Write the shard again.", file=ref.shard, tensor=ref.name)


@rule("CN06", "no-format-metadata", severity=WARNING, engines=("transformers",))
def no_format_metadata(shard: Shard) -> Iterator[Found]:
    """A shard's `__metadata__` is not a text-to-text map with `format: pt`.

    Why: some readers refuse or guess without it, though several official repositories lack it and serve well.
    Fix: write the shard with `{"format": "pt"}` as metadata.
    Seen: foundation-model-stack/fastsafetensors issue 96; openai/gpt-oss-120b lacks it.
    """
    metadata, name = shard.header.metadata, shard.header.shard
    if shard.header.flaws:
        return
    if metadata is None:
        yield Found(f"{name} has no __metadata__; write it with format: pt.", file=name)
    elif not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        yield Found(f"The __metadata__ of {name} is no map from text to text; write only strings.", file=name)
    elif metadata.get("format") != "pt":
        given = str(metadata.get("format"))[:40]
        yield Found(f"The __metadata__ of {name} says format {given}, not pt; write format: pt.", file=name)


@rule("CN07", "forbidden-dtype", severity=ERROR, engines=("vllm", "sglang", "atom"))
def forbidden_dtype(headers: Headers) -> Iterator[Found]:
    """A tensor has a dtype that the loaders of FP4 checkpoints do not reinterpret.

    Why: loaders copy numbers, not bytes, so a scale typed F8_E8M0 or a payload typed F4 is converted, not taken as it
    is. Where no FP4 is declared this is only a warning.
    Fix: store payloads and MX scales as U8, NVFP4 scales as F8_E4M3, everything else as F32, BF16 or F16.
    Seen: vLLM `model_executor/parameter.py`; huggingface/candle issue 2875 (readers that refuse newer dtypes).
    """
    quant = headers.checkpoint.quant
    fp4 = quant is not None and quant.format in ("nvfp4", "mxfp4", "mixed")
    allowed = DTYPES | INTEGERS if quant is not None and quant.format == "int4" else DTYPES
    for ref in (ref for header in headers.checkpoint.shards.values() for ref in header.tensors):
        if ref.dtype not in allowed:
            message = f"{ref.name} is {ref.dtype[:20]}; loaders expect {', '.join(sorted(allowed))}."
            yield Found(message, file=ref.shard, tensor=ref.name, severity=ERROR if fp4 else WARNING)


@rule("CN08", "index-disagrees", severity=ERROR, engines=("vllm", "sglang", "atom"), scope=INDEXED)
def index_disagrees(headers: Headers) -> Iterator[Found]:
    """The index and the shards' headers do not list the same tensors in the same files.

    Why: engines take only file names from the index. A listed tensor that is absent stays uninitialised memory, an
    unlisted one is loaded over a current one.
    Fix: rebuild the index from the shards' headers, or bring the missing tensor back.
    Seen: vllm-project/vllm PR 54230 (1,024 stale tensors in reused shards).
    """
    checkpoint, listed = headers.checkpoint, headers.checkpoint.weight_map
    if not listed:
        yield Found(f"{INDEX} has no weight_map; rebuild the index.", file=INDEX)
        return
    names = {shard: {ref.name for ref in header.tensors} for shard, header in checkpoint.shards.items()}
    for name, shard in listed.items():
        if shard in names and name not in names[shard]:
            where = checkpoint.tensors[name].shard if name in checkpoint.tensors else "no shard"
            message = f"The index puts {name} into {shard}, but {where} holds it; rebuild the index."
            yield Found(message, file=shard, tensor=name)
    for shard in names.keys() & set(listed.values()):
        for ref in checkpoint.shards[shard].tensors:
            if ref.name not in listed:
                yield Found(f"{ref.name} is in {shard} but not in the index; rebuild it.", file=shard, tensor=ref.name)


@rule("CN09", "missing-or-stray-shard", severity=ERROR, engines=ENGINES, scope=SHARDED)
def missing_or_stray_shard(headers: Headers) -> Iterator[Found]:
    """A shard the index names is missing, or a shard lies beside the index without being named.

    Why: a missing file stops the load or leaves garbage; a stray old shard is ignored by some engines and loaded by
    those that read every `*.safetensors`.
    Fix: copy the missing shard, remove the stray one, or rebuild the index.
    Seen: vllm-project/vllm issue 34859; NVIDIA/Model-Optimizer PR 2199 (old shards left by a second export).
    """
    checkpoint, present = headers.checkpoint, set(headers.checkpoint.shards)
    if checkpoint.index is None:
        flaw = checkpoint.document_flaws.get(INDEX)
        if flaw is not None:
            yield Found(f"The index cannot be read: {flaw} Rebuild it.", file=INDEX, refuses=BY_INDEX)
        elif len(present) > 1:
            message = f"There are {len(present)} shards and no {INDEX}; write one."
            yield Found(message, file=INDEX, engines=("transformers",), refuses=("transformers",))
        return
    counts = Counter(checkpoint.weight_map.values())
    listed = {shard: count for shard, count in counts.items() if shard_name(shard)}  # CN18 names the others
    for shard in sorted(listed.keys() - present):
        message = f"{shard} is missing; the index puts {listed[shard]:,} tensors there. Copy or download it again."
        yield Found(message, file=shard, refuses=BY_INDEX)
    for shard in sorted(present - listed.keys()) if listed else ():
        message = f"{shard} is not in the index; remove it, or rebuild the index."
        yield Found(message, file=shard, engines=("tensorrt-llm",))


@rule("CN10", "tensor-in-two-shards", severity=ERROR, engines=ENGINES)
def tensor_in_two_shards(headers: Headers) -> Iterator[Found]:
    """One tensor name occurs in two shards.

    Why: whichever file is read last wins, so what is served depends on the order of files.
    Fix: remove the stale copy and rebuild the index.
    Seen: JustVugg/colibri issue 1479.
    """
    seen: dict[str, str] = {}
    for shard, header in headers.checkpoint.shards.items():
        for ref in header.tensors:
            first = seen.setdefault(ref.name, shard)
            if first != shard:
                message = f"{ref.name} is in {first} and in {shard}; keep one of them."
                yield Found(message, file=shard, tensor=ref.name)


@rule("CN11", "wrong-total-size", severity=WARNING, scope=INDEXED)
def wrong_total_size(headers: Headers) -> Iterator[Found]:
    """The index's `total_size` is not the sum of the tensors' bytes.

    Why: the Hub's page and tools that plan memory show a wrong size.
    Fix: rebuild the index; the sum counts tensors, not whole files.
    Seen: huggingface/huggingface_hub issue 4221.
    """
    index = headers.checkpoint.index or {}
    metadata = index.get("metadata")
    claimed = metadata.get("total_size") if isinstance(metadata, dict) else None
    stored = sum(ref.size for header in headers.checkpoint.shards.values() for ref in header.tensors)
    if claimed != stored:
        told = f"{claimed:,}" if isinstance(claimed, int | float) else "nothing"
        yield Found(f"The index says total_size {told}; the tensors have {stored:,} bytes. Rebuild it.", file=INDEX)


_NUMBERED = re.compile(r"model-(\d{5,6})-of-(\d{5,6})\.safetensors")


@rule("CN12", "odd-shard-names", severity=WARNING, scope=SHARDED)
def odd_shard_names(headers: Headers) -> Iterator[Found]:
    """Shards are not numbered 1 to N as `model-00001-of-0000N.safetensors`.

    Why: loaders follow the index, but people and tools count on the names to see that a set is complete.
    Fix: name the shards in order, or copy the missing one.
    Seen: the convention of `save_pretrained` in transformers.
    """
    names = sorted(headers.checkpoint.shards)
    if names == ["model.safetensors"]:
        return
    numbers: dict[str, set[int]] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match is None:
            yield Found(f"{name} is not named model-xxxxx-of-xxxxx.safetensors; rename it with the index.", file=name)
        else:
            numbers.setdefault(match.group(2), set()).add(int(match.group(1)))
    if len(numbers) > 1:
        yield Found(f"Shard names count to different totals: {', '.join(sorted(numbers))}; remove the other set.")
    for total, found in numbers.items():
        lost = set(range(1, min(int(total), 10_000) + 1)) - found
        if lost:
            yield Found(f"{len(lost):,} of {int(total):,} shard numbers are missing, the first is {min(lost)}.")


@rule("CN13", "no-weights-in-shard", severity=ERROR, refuses=ENGINES)
def no_weights_in_shard(shard: Shard) -> Iterator[Found]:
    """A shard is empty, cut short, or a Git LFS pointer.

    Why: the weights are not there; engines stop with a message about headers that hides the cause.
    Fix: run `git lfs pull`, or download the file again.
    Seen: huggingface/transformers issue 27923.
    """
    header = shard.header
    for flaw in header.flaws:
        if flaw.kind in ("empty", "pointer", "truncated"):
            yield Found(f"{header.shard}: {flaw.message}; download the file again.", file=header.shard)
    end = max((ref.end for ref in header.tensors), default=0)
    if end > header.file_size:
        message = f"{header.shard} is cut short: {header.file_size:,} of {end:,} bytes; download it again."
        yield Found(message, file=header.shard)
