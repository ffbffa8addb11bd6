"""NM: which tensors a quantized layer consists of, with which shapes and dtypes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import Module
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import BLOCK, CACHE_SCALARS, SCALARS, Modules
from publisher.subjects.modules import stack_of

LOADERS = ("vllm", "sglang", "tensorrt-llm", "atom")
# What may stand beside a quantized weight in any layout.
BESIDE = frozenset({"bias", "e_score_correction_bias", "k_bias", "v_bias", *CACHE_SCALARS})
# The exporter folds a smoothing vector into the layer before where it can, so these may stand there and need not.
SMOOTHED = {
    "NVFP4_AWQ": {"pre_quant_scale"},
    "NVFP4_SVD": {"pre_quant_scale", "svdquant_lora_a", "svdquant_lora_b"},
}
INPUTS = frozenset({"input_scale", "input_scale_2", "input_global_scale"})


def _dialect(name: str) -> Scope:
    return Scope(f"{name} declaration", lambda modules: modules.quant is not None and modules.quant.dialect == name)


PACKED = Scope("FP4 module", lambda modules: bool(modules.packed))


def _set(module: Module, needed: set[str], allowed: set[str]) -> Iterator[Found]:
    """A module must have what is needed and may have what is allowed; a surplus input scale is only a warning."""
    have = set(module.tensors)
    lost, surplus = sorted(needed - have), sorted(have - needed - allowed - BESIDE)
    if lost:
        message = f"{module.name} lacks {', '.join(lost)}; write or export the module again."
        yield Found(message, file=module.ref.shard, tensor=f"{module.name}.{lost[0]}")
    if surplus:
        mild = set(surplus) <= INPUTS
        message = f"{module.name} has {', '.join(surplus)}, which its declared format does not use; remove or declare."
        ref = module.tensors[surplus[0]]
        yield Found(message, file=ref.shard, tensor=ref.name, severity=WARNING if mild else ERROR)


@rule("NM01", "broken-modelopt-set", severity=ERROR, engines=LOADERS, scope=_dialect("modelopt"))
def broken_modelopt_set(modules: Modules) -> Iterator[Found]:
    """A quantized module of a modelopt checkpoint lacks a tensor of its set, or has one too many.

    Why: engines do not check that a quantized layer was loaded completely; a missing scale is whatever the memory
    held before.
    Fix: export again; where activations were not calibrated declare W4A16_NVFP4.
    Seen: vllm-project/vllm issue 45212 (input scales missing for four experts of one layer).
    """
    if modules.quant is None:
        return
    for module in modules.stacked:
        yield from _stack_set(module, inputs=modules.quant.activations == "static")
    for module in modules.packed:
        layer = modules.quant.layer(module.name) if modules.quant.layers else None
        algo = ((layer.algo if layer else modules.quant.algo) or "").upper()
        activations = layer.activations if layer else modules.quant.activations
        needed, form = {"weight", "weight_scale"}, modules.format_of(module)
        if form == "nvfp4":
            needed |= {"weight_scale_2"} | ({"input_scale"} if activations == "static" else set())
        loose = {"input_scale"} if activations is None else set()
        yield from _set(module, needed, SMOOTHED.get(algo, set()) | loose)


def _stack_set(module: Module, *, inputs: bool) -> Iterator[Found]:
    """The scalars and the scales' shape of experts that are packed in one tensor for each projection."""
    for projection in stack_of(module):
        payload, scales = module.tensors[projection], module.tensors[f"{projection}_weight_scale"]
        needed = [f"{projection}_weight_scale_2", *([f"{projection}_input_scale"] if inputs else [])]
        lost = [name for name in needed if name not in module.tensors]
        if lost:
            message = f"{module.name} lacks {', '.join(lost)}; write or export the module again."
            yield Found(message, file=module.ref.shard, tensor=f"{module.name}.{lost[0]}")
        count, half, rows = payload.shape
        wanted = (count, half * 2 // BLOCK["nvfp4"], rows)
        if scales.shape != wanted:
            message = f"{scales.name} is {list(scales.shape)[:8]}, its payload needs {list(wanted)}; export it again."
            yield Found(message, file=scales.shard, tensor=scales.name)


@rule("NM02", "broken-quark-set", severity=ERROR, engines=("vllm", "sglang", "atom"), scope=_dialect("quark"))
def broken_quark_set(modules: Modules) -> Iterator[Found]:
    """A quantized module of a Quark checkpoint lacks a tensor of its set, or has one too many.

    Why: engines fill what is missing with defaults or with whatever the memory held before.
    Fix: export again.
    Seen: vLLM `quark/schemes/quark_nvfp4.py` and `quark_ocp_mx.py`.
    """
    quant = modules.quant
    for module in modules.packed:
        needed = {"weight", "weight_scale"}
        if modules.format_of(module) == "nvfp4":
            needed |= {"weight_scale_2"} | ({"input_scale_2"} if quant and quant.activations != "none" else set())
        yield from _set(module, needed, set())


@rule(
    "NM03",
    "broken-compressed-set",
    severity=ERROR,
    engines=("vllm", "sglang", "tensorrt-llm", "transformers"),
    scope=_dialect("compressed-tensors"),
)
def broken_compressed_set(modules: Modules) -> Iterator[Found]:
    """A quantized module of a compressed-tensors checkpoint lacks a tensor of its set, or has one too many.

    Why: a scale that is missing is whatever the memory held before; a plain `weight` beside `weight_packed`, or the
    `weight_shape` of an integer format, is a name no loader has a place for.
    Fix: save again with the library that quantized; do not merge checkpoints by hand.
    Seen: compressed-tensors `compressors/nvfp4` and `mxfp4`; ModelCloud/GPTQModel PR 3077 (packed weights missing).
    """
    static, loose = _compressed_inputs(modules.quant.raw if modules.quant is not None else {})
    for module in modules.packed:
        if "weight_packed" not in module.tensors and module.weight is not None and module.weight.dtype == "U8":
            continue  # another method's layout, which CF02 names
        needed = {"weight_packed", "weight_scale"}
        if modules.format_of(module) == "nvfp4":
            needed |= {"weight_global_scale"} | ({"input_global_scale"} if static else set())
        yield from _set(module, needed, {"input_global_scale"} if loose else set())


def _compressed_inputs(raw: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether every group stores scales of its inputs, and whether only some do."""
    groups = raw.get("config_groups")
    specs = (
        [g.get("input_activations") for g in groups.values() if isinstance(g, dict)] if isinstance(groups, dict) else []
    )
    stored = {isinstance(spec, dict) and spec.get("dynamic") is not True for spec in specs}
    return stored == {True}, stored == {True, False}


@rule("NM04", "wrong-shape", severity=ERROR, refuses=ENGINES, scope=PACKED)
def wrong_shape(modules: Modules) -> Iterator[Found]:
    """A packed weight is not (out, in/2), or its block scales are not (out, in/block) in plain rows.

    Why: engines expect unpadded scales in row order and swizzle them themselves; out and in are those of the source,
    or of the configuration where the source is not at hand.
    Fix: export again without padding or swizzling; for a wrong weight compare with the source.
    Seen: NVIDIA/Model-Optimizer PR 2038 (scales computed from packed nibbles had half the columns).
    """
    geometry = _Geometry(modules.text)
    for module in modules.packed:
        yield from _shapes(modules, module, geometry)


def _shapes(modules: Modules, module: Module, geometry: _Geometry) -> Iterator[Found]:
    weight, scale, form = module.weight, module.tensors.get("weight_scale"), modules.format_of(module)
    if weight is None or len(weight.shape) == 1:  # NM18 names the latter
        return
    if len(weight.shape) != 2:
        message = f"{weight.name} has shape {list(weight.shape)}; a packed weight has two dimensions. Export it again."
        yield Found(message, file=weight.shard, tensor=weight.name)
        return
    rows, columns = weight.shape[0], weight.shape[1] * 2
    expected = _expected(modules, module, geometry)
    if expected is not None and expected[0] != (rows, columns):
        (out, width), where = expected
        message = (
            f"{weight.name} unpacks to {[rows, columns]}, {where} says {[out, width]}; quantize it from the source."
        )
        yield Found(message, file=weight.shard, tensor=weight.name)
    block = BLOCK.get(form or "")
    if scale is None or block is None:
        return
    if columns % block:
        message = f"{weight.name} has {columns:,} inputs, which blocks of {block} do not divide; keep it unquantized."
        yield Found(message, file=weight.shard, tensor=weight.name)
    elif scale.shape != (rows, columns // block):
        message = f"{scale.name} is {list(scale.shape)}, not {[rows, columns // block]}; export it plain and unpadded."
        yield Found(message, file=scale.shard, tensor=scale.name)


def _expected(modules: Modules, module: Module, geometry: _Geometry) -> tuple[tuple[int, ...], str] | None:
    """(out, in) and who says so."""
    original = modules.source.modules.get(module.name) if modules.source else None
    plain = original.weight if original else None
    if plain is not None and len(plain.shape) == 2:
        factor = {"I32": 8, "U8": 2}.get(plain.dtype, 1)
        return (plain.shape[0], plain.shape[1] * factor), "the source"
    shape = geometry.of(module)
    return (shape, "config.json") if shape is not None else None


class _Geometry:
    """(out, in) by the patterns of the model types whose modules are known, asked once per class of modules."""

    def __init__(self, text: Mapping[str, Any]) -> None:
        data = jsonio.data("architectures/geometry.json")
        self._rows: list[tuple[re.Pattern[str], tuple[int, int]]] = []
        self._known: dict[str, tuple[int, int] | None] = {}
        for family in data["model_types"].get(str(text.get("model_type")), ()):
            for row in data["linears"][family]:
                out, width = _size(text, row["out"]), _size(text, row["in"])
                if out and width:
                    self._rows.append((re.compile(row["pattern"]), (out, width)))

    def of(self, module: Module) -> tuple[int, int] | None:
        """A layer's shape, None when no pattern knows it."""
        if module.kind not in self._known:
            found = (shape for pattern, shape in self._rows if pattern.search(module.name))
            self._known[module.kind] = next(found, None)
        return self._known[module.kind]


def _size(config: Mapping[str, Any], keys: list[str]) -> int | None:
    """The product of config keys; None when one is no positive integer."""
    product = 1
    for key in keys:
        value = config.get(key)
        if value is None and key == "num_key_value_heads":
            value = config.get("num_attention_heads")
        if value is None and key == "head_dim":
            hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
            value = hidden // heads if type(hidden) is int and type(heads) is int and heads else None
        if type(value) is not int or value <= 0:
            return None
        product *= value
    return product


_ANY = {"weight": "U8", "weight_packed": "U8", **dict.fromkeys(SCALARS, "F32")}
_DTYPES = {None: _ANY, "nvfp4": {**_ANY, "weight_scale": "F8_E4M3"}, "mxfp4": {**_ANY, "weight_scale": "U8"}}


@rule("NM05", "wrong-dtype", severity=ERROR, engines=ENGINES, scope=PACKED)
def wrong_dtype(modules: Modules) -> Iterator[Found]:
    """A payload is not U8, a block scale not F8_E4M3 (NVFP4) or U8 (MX), or a scalar not F32.

    Why: loaders convert numbers, so an E4M3 scale typed U8 turns 0x38 into 56.0 without an error. A BF16 global scale,
    as old exports carry, is a warning.
    Fix: write the same bytes under the right dtype, or export again.
    Seen: jundot/omlx PR 2159 (E8M0 scales read as numbers: weights 450,000 times too large).
    """
    for module in modules.packed:
        for suffix, dtype in _DTYPES[modules.format_of(module)].items():
            ref = module.tensors.get(suffix)
            if ref is not None and ref.dtype != dtype:
                mild = suffix == "weight_scale_2" and ref.dtype == "BF16"
                message = f"{ref.name} is {ref.dtype[:20]}, not {dtype}; write it as {dtype}."
                file, tensor = ref.shard, ref.name
                if mild:
                    yield Found(message, file=file, tensor=tensor, severity=WARNING, engines=())
                else:
                    asserts = ("tensorrt-llm",) if suffix == "weight_scale" and dtype == "F8_E4M3" else ()
                    yield Found(message, file=file, tensor=tensor, refuses=asserts)


@rule("NM06", "scalar-with-shape", severity=ERROR, refuses=("vllm",), scope=PACKED)
def scalar_with_shape(modules: Modules) -> Iterator[Found]:
    """A per-tensor scale has more than one element.

    Why: vLLM refuses it; other loaders take the first element.
    Fix: store one number with shape [] or [1].
    Seen: vLLM `model_executor/parameter.py`, `PerTensorScaleParameter`.
    """
    for module in modules.packed:
        for suffix in SCALARS:
            ref = module.tensors.get(suffix)
            if ref is not None and ref.shape not in ((), (1,)):
                message = f"{ref.name} has shape {list(ref.shape)}, not []; store one number."
                yield Found(message, file=ref.shard, tensor=ref.name)
