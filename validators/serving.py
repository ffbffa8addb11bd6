"""TP: serving. Over how many GPUs the checkpoint can be split, with which kernels, and what the card's commands ask.

A size is judged as an error where it is 1 or where a command of the card asks for it, as a warning where it is the
usual node of eight GPUs and the model is large enough to need one, as information where somebody may want it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Iterator
from typing import Any

from publisher import jsonio
from publisher.checkpoint.parallel import Limit, experts_of, worth
from publisher.findings import ERROR, INFO, WARNING, Found, Severity
from publisher.rules import Scope, rule
from publisher.subjects import CARD, Serving

TILES, MEMORY, ENGINES = "hardware/tiles.json", "hardware/memory.json", "engines/serving.json"
LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
_NODE: int = jsonio.data(TILES)["node"]
_RANK = {ERROR: 0, WARNING: 1, INFO: 2}
_VERSION = re.compile(r"\d+(?:\.\d+)+")


def _holds(*forms: str) -> Scope:
    def has(serving: Serving) -> bool:
        quant = serving.checkpoint.quant
        return quant is not None and quant.format in forms

    return Scope(f"{' or '.join(forms)} declaration", has)


FP4 = _holds("nvfp4", "mxfp4", "mixed")


def _judged(serving: Serving, kinds: Collection[str], *, mild: bool = False) -> Iterator[Found]:
    """One finding per class of modules and kind of limit, with the sizes it concerns.

    Args:
        serving: the subject.
        kinds: kinds of limits.
        mild: whether a slower path is meant, which blocks nothing.
    """
    return (found for _, found in _by_backend(serving, kinds, mild))


def _by_backend(serving: Serving, kinds: Collection[str], mild: bool) -> Iterator[tuple[str | None, Found]]:
    grouped: dict[tuple[str, str, str | None], dict[int, Limit]] = {}
    for split in serving.splits:
        for limit in split.limits:
            if limit.kind in kinds:
                grouped.setdefault((limit.subject, limit.kind, limit.backend), {})[split.size] = limit
    for (subject, _, backend), limits in grouped.items():
        judged = {size: _weight(serving, size, limit, mild) for size, limit in limits.items()}
        weights = {size: weight for size, weight in judged.items() if weight is not None}
        if weights:
            yield backend, _found(subject, limits, weights)


def _weight(serving: Serving, size: int, limit: Limit, mild: bool) -> Severity | None:
    """How much it matters that a size does not work; None where nobody would ask for it."""
    asked = [c for c in serving.commands if c.tensor_parallel == size and c.engine in limit.engines]
    if asked:
        chosen = any(limit.backend is None or limit.backend in (command.backend or "") for command in asked)
        return INFO if mild else ERROR if chosen and limit.refuses else WARNING
    if size == 1 and limit.refuses and limit.backend is None:
        return ERROR
    if not worth(serving.checkpoint, size):
        return None
    return WARNING if size == _NODE and limit.refuses and limit.backend is None else INFO


def _found(subject: str, limits: dict[int, Limit], weights: dict[int, Severity]) -> Found:
    severity = min(weights.values(), key=_RANK.__getitem__)
    worst = min((size for size in weights if weights[size] is severity), default=1)
    limit = limits[worst]
    sizes = ", ".join(str(size) for size in sorted(weights))
    kernels = f" with {limit.backend} kernels" if limit.backend else ""
    message = f"Tensor parallel {sizes}{kernels}: {limit.reason} ({subject}). {_advice(limit, severity)}"
    error = severity is ERROR
    return Found(
        message,
        tensor=subject,
        severity=severity,
        engines=limit.engines if error else (),
        refuses=limit.engines if error and limit.refuses else (),
    )


def _advice(limit: Limit, severity: Severity) -> str:
    if limit.backend is not None:
        return "Serve with other kernels, or with another size."
    if not limit.refuses:
        return "Serve with fewer GPUs where memory allows."
    return "Name a size that divides." if severity is ERROR else "Print the sizes that divide."


@rule("TP01", "nvfp4-block-split", severity=ERROR, refuses=("vllm", "sglang", "tensorrt-llm"), scope=FP4)
def nvfp4_block_split(serving: Serving) -> Iterator[Found]:
    """A share of an NVFP4 layer's inputs is no whole number of blocks of 16.

    Why: layers whose input axis is split over GPUs need whole blocks on each; engines raise while they build the
    layer. Size 1 and the sizes of the card's commands are errors, the usual eight GPUs a warning.
    Fix: serve with a size that divides, or keep that layer unquantized.
    Seen: vllm-project/vllm issue 49949 (1856 inputs over 8 GPUs are 232).
    """
    yield from (found for found in _judged(serving, {"block"}) if _form(serving, found) != "mxfp4")


@rule("TP02", "mxfp4-block-split", severity=ERROR, refuses=("vllm", "sglang", "atom"), scope=FP4)
def mxfp4_block_split(serving: Serving) -> Iterator[Found]:
    """A share of an MXFP4 layer's inputs is no whole number of blocks of 32.

    Why: layers whose input axis is split over GPUs need whole blocks on each; engines raise while they build the layer.
    Fix: serve with a size that divides, or keep that layer unquantized.
    Seen: vLLM `quark/schemes/quark_ocp_mx.py`.
    """
    yield from (found for found in _judged(serving, {"block"}) if _form(serving, found) == "mxfp4")


def _form(serving: Serving, found: Found) -> str | None:
    """The format of the class a finding is about."""
    return serving.forms.get(found.tensor or "")


@rule("TP03", "cutlass-expert-split", severity=WARNING, engines=("vllm",), scope=FP4)
def cutlass_expert_split(serving: Serving) -> Iterator[Found]:
    """A share of an NVFP4 expert's width is no multiple of 64.

    Why: vLLM's CUTLASS kernels for experts refuse it; its TRT-LLM kernels pad. An error where the card's command
    chooses the CUTLASS kernels.
    Fix: serve with another size, or leave the choice of kernels to the engine.
    Seen: vLLM `quantization/utils/flashinfer_fp4_moe.py`.
    """
    yield from _judged(serving, {"expert-tile"})


@rule("TP04", "odd-expert-hidden-size", severity=WARNING, engines=("vllm", "sglang"), scope=FP4)
def odd_expert_hidden_size(serving: Serving) -> Iterator[Found]:
    """The hidden size of NVFP4 experts is no multiple of 64 (Marlin kernels), or of 256 (padded by TRT-LLM kernels).

    Why: GPUs before Blackwell serve experts with Marlin kernels, which refuse such a size; padding costs memory.
    Fix: serve on Blackwell, or keep the experts in another format.
    Seen: vLLM `quantization/utils/marlin_utils_fp4.py`.
    """
    for linear in serving.linears:
        row = jsonio.data(TILES)["marlin_hidden"]
        meant = linear.role == "expert" and linear.form in row["formats"] and linear.split == "column"
        if meant and linear.width % row["multiple"]:
            message = (
                f"The hidden size of {linear.kind} is {linear.width:,}, no multiple of {row['multiple']}; "
                "GPUs before Blackwell cannot serve it. Say so in the card."
            )
            yield Found(message, tensor=linear.kind)
    yield from _judged(serving, {"expert-pad"}, mild=True)


QUANTIZED = Scope("quantized layer", lambda serving: bool(serving.forms))


@rule("TP05", "mxfp8-expert-split", severity=ERROR, refuses=("vllm",), scope=QUANTIZED)
def mxfp8_expert_split(serving: Serving) -> Iterator[Found]:
    """A share of an MXFP8 expert's width, or its hidden size, is no multiple of 32.

    Why: vLLM refuses to build the layer.
    Fix: serve with a size that divides, or keep the experts in another format.
    Seen: vLLM `quantization/modelopt.py`, the MXFP8 experts.
    """
    yield from _judged(serving, {"mx-expert"})


@rule("TP06", "padded-experts", severity=WARNING, engines=("atom",), scope=FP4)
def padded_experts(serving: Serving) -> Iterator[Found]:
    """ATOM pads a share of an MXFP4 expert's width up to a multiple of 256.

    Why: the padding is memory and work: half a block more doubles both.
    Fix: split over fewer GPUs, or split experts by their number instead.
    Seen: ATOM `model_ops/moe.py`.
    """
    yield from _judged(serving, {"padding"})


SHARDS = Scope("shard", lambda serving: bool(serving.checkpoint.shards))


@rule("TP07", "undivided-heads", severity=ERROR, refuses=LOADERS, scope=SHARDS)
def undivided_heads(serving: Serving) -> Iterator[Found]:
    """Attention heads, key-value heads, output rows or experts do not divide by the size of the card's command.

    Why: engines refuse to start.
    Fix: name a size that divides in the card.
    Seen: vLLM `config/model.py`, the check of heads against the parallel configuration; SGLang's of experts.
    """
    yield from _judged(serving, {"heads", "kv-heads", "uneven"})
    experts = experts_of(serving.checkpoint)
    for command in serving.commands:
        size = command.expert_parallel
        if experts and size and experts % size:
            message = f"{experts:,} experts do not divide by the {size} GPUs of the card's {command.engine} command."
            # vLLM gives the first GPUs one expert more
            engines = () if command.engine == "vllm" else (command.engine,)
            severity = WARNING if command.engine == "vllm" else ERROR
            yield Found(
                f"{message} Name a size that divides.", file=CARD, severity=severity, engines=engines, refuses=engines
            )


@rule("TP08", "unservable-command", severity=ERROR, scope=FP4)
def unservable_command(serving: Serving) -> Iterator[Found]:
    """The card shows a command, or installs a version, of an engine that does not load this layout and format.

    Why: who follows the card meets a traceback.
    Fix: name the engines and versions that load it.
    Seen: W4A16_NVFP4, which vLLM 0.17.1 refuses; quant_algo mxfp4, which vLLM and SGLang refuse.
    """
    quant = serving.checkpoint.quant
    if quant is None or quant.format not in ("nvfp4", "mxfp4"):
        return
    pins, model = dict(serving.pins), serving.checkpoint.config.get("model_type")
    for engine in dict.fromkeys(command.engine for command in serving.commands):
        reason = _refusal(engine, quant, model)
        if reason is not None:
            message = f"The card serves with {engine}, which {reason}. Remove the command."
            yield Found(message, file=CARD, engines=(engine,), refuses=(engine,))
            continue
        needed = _needed(engine, quant, model)
        if needed is None:
            message = f"The card serves with {engine}, and no table says it loads {quant.dialect} {quant.format}."
            yield Found(f"{message} Try it first.", file=CARD, severity=WARNING, engines=())
        elif engine in pins and needed and _number(pins[engine]) < _number(needed):
            message = f"The card installs {engine} {pins[engine]}; this checkpoint needs {needed} or newer. Correct it."
            yield Found(message, file=CARD, engines=(engine,), refuses=(engine,))


def _refusal(engine: str, quant: Any, model: Any) -> str | None:
    for row in jsonio.data(ENGINES)["refuses"]:
        meant = (row["layout"], row["format"]) == (quant.dialect, quant.format) and model in row.get("models", [model])
        if row["engine"].lower() == engine and meant:
            return str(row["why"])
    return None


def _needed(engine: str, quant: Any, model: Any) -> str | None:
    """The lowest version that loads it, empty when any does; None when no row names the engine with it."""
    for row in jsonio.data(ENGINES)["engines"]:
        if row["engine"].lower() != engine or (row["layout"], row["format"]) != (quant.dialect, quant.format):
            continue
        if model in row.get("not_models", ()):
            continue
        if quant.activations is None or quant.activations in row["activations"]:
            match = _VERSION.search(str(row["version"]))
            newer = "or newer" in str(row["version"])
            return match.group() if match and newer else ""
    return None


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:4])


@rule("TP09", "too-large-for-gpu", severity=WARNING, scope=SHARDS)
def too_large_for_gpu(serving: Serving) -> Iterator[Found]:
    """The weights of one GPU's share do not fit the memory of the GPUs the card names.

    Why: engines take nine tenths of the memory, and activations, graphs and the key-value cache want some of it.
    Fix: name more or larger GPUs in the card.
    Seen: memory of each GPU from its maker's data sheet.
    """
    table = jsonio.data(MEMORY)
    for node in serving.nodes:
        sizes = [size for size in serving.advertised if size <= node.count] or [node.count]
        split = next((s for s in serving.splits if s.size == max(sizes)), None)
        if split is None:
            continue
        room = int(node.memory * table["share"]) - table["headroom_bytes"]
        if split.bytes_per_gpu > room:
            message = (
                f"Split over {split.size}, each GPU holds {split.bytes_per_gpu / 1e9:,.1f} GB of weights; "
                f"a {node.name} has {node.memory / 1e9:,.0f} GB, {room / 1e9:,.0f} GB of it for weights. "
                "Name more or larger GPUs."
            )
            yield Found(message, file=CARD)


@rule("TP11", "slow-tiles", severity=INFO, scope=FP4)
def slow_tiles(serving: Serving) -> Iterator[Found]:
    """A GPU's share of a layer is no multiple of the kernels' tiles.

    Why: some kernels refuse such shapes, others pad them or take a slower path.
    Fix: split over fewer GPUs, or keep that layer unquantized.
    Seen: flashinfer-ai/flashinfer issues 4653 and 5175; vllm-project/vllm PR 41947.
    """
    found: dict[str | None, list[Found]] = {}
    for backend, one in _by_backend(serving, {"tile"}, mild=True):
        found.setdefault(backend, []).append(one)
    for ones in found.values():
        more = f" The same holds for {len(ones) - 1:,} more classes of layers." if len(ones) > 1 else ""
        yield dataclasses.replace(ones[0], message=ones[0].message + more)


@rule("TP12", "coarse-block-split", severity=ERROR, refuses=("vllm", "sglang"), scope=QUANTIZED)
def coarse_block_split(serving: Serving) -> Iterator[Found]:
    """A share of a layer in FP8 squares or int4 groups is no whole number of its blocks.

    Why: such layers, kept from the source or beside FP4 ones, have blocks of 32 to 128; engines refuse to split one.
    Fix: serve with a size that divides, or decode that layer before quantizing.
    Seen: vllm-project/vllm issues 21695 and 17604 (29568 inputs are 231 blocks of 128).
    """
    yield from _judged(serving, {"coarse"})


@rule("TP13", "small-quantized-layer", severity=WARNING, scope=FP4)
def small_quantized_layer(serving: Serving) -> Iterator[Found]:
    """A quantized projection has fewer rows than one tile of scales, such as one row per attention head.

    Why: its share is a fraction of a tile, on which kernels assert, and its saving is nothing.
    Fix: keep it unquantized.
    Seen: NVIDIA/TensorRT-LLM PR 17551.
    """
    for linear in serving.linears:
        row = jsonio.data(TILES)["small_rows"]
        if linear.form in ("nvfp4", "mxfp4") and linear.out < row["rows"] and linear.width >= row["hidden"]:
            message = (
                f"{linear.kind} ({linear.count:,} modules) has {linear.out:,} rows, a tile of scales has "
                f"{row['rows']}; keep it unquantized."
            )
            yield Found(message, tensor=linear.example, engines=tuple(row["engines"]))


@rule("TP14", "limited-sizes", severity=INFO, scope=FP4)
def limited_sizes(serving: Serving) -> Iterator[Found]:
    """Not every tensor-parallel size works: which do, per engine, and why not.

    Why: who plans a node wants to know before the download.
    Fix: print the sizes in the card.
    Seen: cards that name one size and are served with another.
    """
    splits = [split for split in serving.splits if worth(serving.checkpoint, split.size)]
    works = {engine: [split.size for split in splits if split.works(engine)] for engine in LOADERS}
    if all(len(sizes) == len(splits) for sizes in works.values()):
        return
    told = "; ".join(f"{engine} {', '.join(map(str, sizes)) or 'none'}" for engine, sizes in works.items())
    limit = next(limit for split in splits for engine in LOADERS for limit in split.refused(engine))
    size = next(split.size for split in splits if limit in split.limits)
    message = f"Tensor parallel sizes that work: {told}. At {size}, {limit.reason} ({limit.subject})."
    yield Found(message, tensor=limit.subject)
