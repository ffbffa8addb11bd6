"""NM: every tensor of the source is accounted for under its own name, and nothing is there that the source has not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from publisher.checkpoint.header import TensorRef
from publisher.checkpoint.modules import Module
from publisher.checkpoint.open import Checkpoint
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, rule
from publisher.subjects import CACHE_SCALARS, SCALE_SUFFIXES, Modules, Pair
from publisher.subjects.modules import stack_of

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
# A quantized layer's own tensors, in any format a source may have; they go when the layer is quantized anew.
REPLACED = frozenset(
    {"weight", "weight_packed", "weight_shape", "weight_scale_inv", "weight_zero_point", "weight_g_idx", "scale"}
    | {"qweight", "qzeros", "scales", "g_idx", *SCALE_SUFFIXES}
)
SMOOTHING = frozenset({"pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"})
ADDED = frozenset({"weight_packed", "k_bias", "v_bias", *SCALE_SUFFIXES, *CACHE_SCALARS, *SMOOTHING})
# One tensor for all experts of a layer, and what its packed form is called after it.
STACKED = ("gate_up_proj", "down_proj", "gate_proj", "up_proj", "w1", "w2", "w3", "w13")
_WRAPPERS = re.compile(r"(?:(?:model|language_model|text_model|llm)\.)*")


def _core(name: str) -> str:
    """A module's name without the wrappers around the language model, which exporters lose or double."""
    return _WRAPPERS.sub("", name, count=1)


def _renamed(pair: Pair) -> Mapping[str, str]:
    """Source module to the result's module that is the same but for the wrappers around it."""
    mine, theirs = pair.checkpoint.modules, pair.source.modules
    lost = {_core(name): name for name in theirs if name not in mine}
    return {lost[core]: name for name in mine if name not in theirs and (core := _core(name)) in lost}


def _classes(refs: Iterator[TensorRef], kind: Mapping[str, Module]) -> Iterator[tuple[str, list[TensorRef]]]:
    """Tensors by class of names, in the order of their first."""
    found: dict[str, list[TensorRef]] = {}
    for ref in refs:
        module, _, suffix = ref.name.rpartition(".")
        found.setdefault(f"{kind[module].kind}.{suffix}", []).append(ref)
    yield from found.items()


def _examples(name: str, refs: list[TensorRef]) -> str:
    return refs[0].name if len(refs) == 1 else f"{len(refs):,} tensors {name}, the first is {refs[0].name},"


@rule("NM12", "unaccounted-tensor", severity=ERROR, engines=LOADERS)
def unaccounted_tensor(pair: Pair) -> Iterator[Found]:
    """A tensor of the source is neither there nor replaced by a quantized one, or a tensor is there from nowhere.

    Why: engines do not check that a quantized model was loaded completely, so what is lost is uninitialised memory; a
    layer that was copied but whose scale got another name is read without it. Lost prediction layers (MTP) are a
    warning: only speculative decoding needs them.
    Fix: copy what is missing from the source under the source's names; remove what the source does not have.
    Seen: vllm-project/vllm issue 54900 (copied FP8 layers with renamed scales); NVIDIA/Model-Optimizer issue 157.
    """
    renamed, source = _renamed(pair), Modules(pair.source)
    for name, refs in _classes(_lost(pair, renamed), pair.source.modules):
        mild = all(source.predicts(ref.name) for ref in refs)
        message = f"{_examples(name, refs)} of the source is neither copied nor quantized; restore it."
        yield Found(message, tensor=refs[0].name, severity=WARNING if mild else ERROR)
    for name, refs in _classes(_new(pair, renamed), pair.checkpoint.modules):
        message = f"{_examples(name, refs)} is not in the source and belongs to no quantized layer; remove it."
        yield Found(message, file=refs[0].shard, tensor=refs[0].name)


def _lost(pair: Pair, renamed: Mapping[str, str]) -> Iterator[TensorRef]:
    """Tensors of the source that the result neither holds nor replaces."""
    numbered = _numbered(pair.checkpoint)
    for name, module in pair.source.modules.items():
        mine = pair.checkpoint.modules.get(renamed.get(name, name))
        for suffix, ref in module.tensors.items():
            have = mine is not None and (suffix in mine.tensors or _replaced(module, mine, suffix))
            if not (have or _dispensable(pair, module, suffix) or (name in numbered and suffix.startswith(STACKED))):
                yield ref


def _numbered(checkpoint: Checkpoint) -> frozenset[str]:
    """Modules whose experts are stored one by one below them, as `….experts.0.up_proj`."""
    found = set()
    for name in checkpoint.modules:
        head, mark, _ = name.rpartition(".experts.0.")
        if mark:
            found.add(f"{head}.experts")
    return frozenset(found)


def _replaced(source: Module, mine: Module, suffix: str) -> bool:
    """Whether a new payload stands for a tensor of the source's layer."""
    if suffix in REPLACED:
        old, new = source.weight, mine.weight
        return new is not None and (old is None or (old.dtype, old.shape) != (new.dtype, new.shape))
    if suffix.removesuffix("_blocks").removesuffix("_scales") in stack_of(mine):
        return True
    return suffix in STACKED and any(
        f"{suffix}_{form}" in mine.tensors for form in ("blocks", "packed", "weight_packed")
    )


def _dispensable(pair: Pair, module: Module, suffix: str) -> bool:
    """Buffers that are computed anew, and a head that is the embedding."""
    text = Modules(pair.checkpoint).text
    tied = text.get("tie_word_embeddings", pair.checkpoint.config.get("tie_word_embeddings")) is True
    return suffix == "inv_freq" or (module.role == "head" and tied)


def _new(pair: Pair, renamed: Mapping[str, str]) -> Iterator[TensorRef]:
    """Tensors that the source has not and that quantization does not add."""
    origin = {mine: theirs for theirs, mine in renamed.items()}
    for name, module in pair.checkpoint.modules.items():
        original = pair.source.modules.get(origin.get(name, name))
        stack = _stack(pair.source, name)
        for suffix, ref in module.tensors.items():
            if stack or suffix in CACHE_SCALARS or (module.role == "head" and original is None):
                continue
            if original is None or not (suffix in original.tensors or _adds(original, module, suffix)):
                yield ref


def _stack(source: Checkpoint, name: str) -> bool:
    """Whether the source stores this expert together with the others of its layer."""
    head, mark, _ = name.rpartition(".experts.")
    stacked = source.modules.get(f"{head}.experts") if mark else None
    return stacked is not None and any(suffix.startswith(STACKED) for suffix in stacked.tensors)


def _adds(original: Module, module: Module, suffix: str) -> bool:
    """Whether quantizing a layer adds such a tensor: not to one that was copied."""
    old, new = original.weight, module.weight
    if old is not None and new is not None and (old.dtype, old.shape) == (new.dtype, new.shape):
        return suffix not in REPLACED and suffix in ADDED
    stem = next((name for name in STACKED if suffix == name or suffix.startswith(f"{name}_")), None)
    known = stem is not None and not original.tensors.keys().isdisjoint({stem, f"{stem}_blocks"})
    return suffix in ADDED or suffix == "weight" or known


@rule("NM14", "other-namespace", severity=ERROR, engines=LOADERS, refuses=("vllm", "sglang"))
def other_namespace(pair: Pair) -> Iterator[Found]:
    """Modules stand under another prefix than in the source, such as `model.layers` for `language_model.model.layers`.

    Why: loaders and exclude lists map the names of the source; under another prefix weights are dropped, or a layer
    meant to stay plain is built packed.
    Fix: write the names of the source, not those of the model in memory.
    Seen: NVIDIA/Model-Optimizer 0.46 (MiniMax-M3, Qwen3.5, Llava written under names of the model in memory).
    """
    found: dict[tuple[str, str], list[str]] = {}
    for theirs, mine in _renamed(pair).items():
        core = _core(mine)
        found.setdefault((theirs.removesuffix(core), mine.removesuffix(core)), []).append(mine)
    for (theirs, mine), names in found.items():
        message = (
            f"{len(names):,} modules stand under {mine or 'no prefix'!r} instead of the source's "
            f"{theirs or 'no prefix'!r}, such as {names[0]}; keep the source's names."
        )
        yield Found(message, file=pair.checkpoint.modules[names[0]].ref.shard, tensor=names[0])


@rule("NM25", "lost-precision", severity=WARNING, engines=ENGINES)
def lost_precision(pair: Pair) -> Iterator[Found]:
    """A tensor that the source keeps in F32 is stored in 16 bits although it is not quantized.

    Why: state-space parameters, routers and their biases are in F32 because 8 bits of mantissa change the outcome.
    Fix: copy the tensor from the source; do not cast the whole model.
    Seen: sgl-project/sglang PR 31213 (238 distinct biases became 8); NVIDIA-NeMo/Automodel issue 2553.
    """
    wide = sum(ref.dtype == "F32" for ref in pair.source.tensors.values())
    if _declared(pair.source) == "float32" or 2 * wide > len(pair.source.tensors):
        return  # a model that is F32 throughout may be stored narrower on purpose
    for ref in pair.source.tensors.values():
        mine = pair.checkpoint.tensors.get(ref.name) if ref.dtype == "F32" else None
        if mine is not None and mine.dtype in {"BF16", "F16"} and not ref.name.endswith("e_score_correction_bias"):
            module = pair.checkpoint.modules[ref.name.rpartition(".")[0]]
            message = f"{ref.name} is {mine.dtype} and was F32 in the source; copy it from there."
            yield Found(
                message, file=mine.shard, tensor=ref.name, severity=ERROR if module.role == "router" else WARNING
            )


def _declared(checkpoint: Checkpoint) -> str | None:
    """The dtype config.json names."""
    for place in (checkpoint.config, Modules(checkpoint).text):
        value = place.get("dtype", place.get("torch_dtype"))
        if isinstance(value, str):
            return value
    return None
