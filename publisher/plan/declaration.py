"""What the result says about itself: the quantization blocks of its configuration, and the exclude list in them.

The list is derived from the decisions, never copied from a recipe, and spelled so that every reader takes it alike:
full names, `prefix*` for a subtree that is kept whole (`prefix.*` where a sibling's name begins the same, and always
after a number, because `layers.1*` also means layer 10). Blocks as modelopt 0.47's `convert_hf_quant_config_format`,
Quark 0.13's exporter and compressed-tensors 0.20's presets write them; the keys vLLM and SGLang insist on are there
even where they are empty.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from publisher.checkpoint.modules import class_of
from publisher.formats.spec import FORMATS
from publisher.plan.model import Recipe
from publisher.plan.proof import INNER, moe_module

MODELOPT_VERSION = "0.47.0"  # the exporter whose layout this is
QUARK_VERSION = "0.13"
COMPRESSED_VERSION = "0.20.0"
MIXED_ALGO, MIXED_FORM = "MIXED_PRECISION", "mixed-precision"
MANY = 48  # more kept modules of one class than this are written as one anchored regex in Quark's list


# --- exclude lists -------------------------------------------------------------------------------------------------


def exclude_list(layout: str, quantized: Iterable[str], kept: Iterable[str]) -> tuple[str, ...]:
    """The exclude list of a layout, in natural order.

    Args:
        layout: modelopt, quark or compressed-tensors.
        quantized: modules that are quantized.
        kept: linear and embedding modules that are not.
    """
    quantized, kept = sorted(quantized), sorted(set(kept))
    globs = layout == "modelopt"
    entries = _modelopt(quantized, kept) if globs else _named(quantized, kept, literal=layout == "quark")
    return tuple(sorted(dict.fromkeys(entries), key=_natural))


def implied_head(modules: Iterable[str]) -> str | None:
    """The name of a head that shares the embedding's weights and so has no tensor; engines build it all the same."""
    for name in modules:
        before, found, _ = name.partition("model.embed_tokens")
        if found and name == before + found and (not before or before.endswith(".")):
            return f"{before}lm_head"
    return None


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part]


def _ancestors(name: str) -> Iterable[str]:
    position = name.find(".")
    while position >= 0:
        yield name[:position]
        position = name.find(".", position + 1)
    yield name


def _modelopt(quantized: Sequence[str], kept: Sequence[str]) -> Iterable[str]:
    """For each kept module the largest subtree around it that holds no quantized one."""
    taken = {ancestor for name in quantized for ancestor in _ancestors(name)}
    names = set(kept)
    for name in kept:
        subtree = next((ancestor for ancestor in _ancestors(name) if ancestor not in taken), name)
        ambiguous = _begins(quantized, subtree)
        if subtree == name and not _begins(kept, f"{name}."):
            yield _no_substring(name) if ambiguous else name
        elif ambiguous or subtree.rpartition(".")[2].isdecimal():
            yield f"{subtree}.*"
            if subtree in names:
                yield _no_substring(subtree)
        else:
            yield f"{subtree}*"


def _no_substring(name: str) -> str:
    """A glob for one name that is no part of a longer one: vLLM takes `mlp.gate` for a part of `mlp.gate_up_proj`.

    The star stands inside, so that SGLang can still strip `language_model.` from the front.
    """
    parent, dot, last = name.rpartition(".")
    return f"{parent}*{dot}{last}"


def _begins(ordered: Sequence[str], prefix: str) -> bool:
    """Whether any of the sorted names begins with the prefix."""
    index = bisect.bisect_left(ordered, prefix)
    return index < len(ordered) and ordered[index].startswith(prefix)


def _named(quantized: Sequence[str], kept: Sequence[str], *, literal: bool) -> Iterable[str]:
    """Full names; all experts of a layer as one entry; a class kept whole in many layers as one anchored regex.

    Args:
        quantized: modules that are quantized.
        kept: modules that are not.
        literal: a wrapped model's names stand as they are (SGLang builds Quark's with the prefix); otherwise as regexes
            that read the same without it (SGLang drops it for compressed-tensors).
    """
    units = dict.fromkeys(moe_module(name) or name for name in kept)
    busy = {class_of(moe_module(name) or name) for name in quantized}
    counts = Counter(map(class_of, units))
    experts = {moe for name in kept if (moe := moe_module(name))}
    for unit in units:
        kind = class_of(unit)
        many = counts[kind] > MANY and kind not in busy
        body = re.escape(kind).replace(r"\*", r"\d+") if many else re.escape(unit)
        tail = r"(\..*)?" if unit in experts else ""
        wrapped = unit.startswith(INNER) and not literal
        yield f"re:^{_with_or_without(body)}{tail}$" if many or tail or wrapped else unit


def _with_or_without(body: str) -> str:
    """A regex that reads the same where an engine builds the language model without its wrapper's prefix."""
    prefix = re.escape(INNER)
    return f"({prefix})?{body.removeprefix(prefix)}" if body.startswith(prefix) else body


# --- blocks --------------------------------------------------------------------------------------------------------


def quantization_config(
    recipe: Recipe, exclude: Sequence[str], layers: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The block for `config.json`.

    Args:
        recipe: gives layout, format and activations.
        exclude: the list.
        layers: where modules get more than one format, that of each quantized one.
    """
    return _MIXED[recipe.layout](recipe, exclude, layers) if layers else _BLOCKS[recipe.layout](recipe, exclude)


def hf_quant_config(
    recipe: Recipe, exclude: Sequence[str], layers: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """The content of `hf_quant_config.json`; None for layouts that have no such file."""
    if recipe.layout != "modelopt":
        return None
    if layers:
        return {
            "producer": _producer(),
            "quantization": {
                "quant_algo": MIXED_ALGO,
                "kv_cache_quant_algo": "FP8" if recipe.kv_cache != "none" else None,
                "quantized_layers": _quantized_layers(recipe, layers),
                "exclude_modules": list(exclude),
            },
        }
    return {
        "producer": _producer(),
        "quantization": {
            "quant_algo": _algo(recipe),
            "kv_cache_quant_algo": "FP8" if recipe.kv_cache != "none" else None,
            "group_size": FORMATS["nvfp4"].block,
            "exclude_modules": list(exclude),
        },
    }


def _producer() -> dict[str, str]:
    return {"name": "modelopt", "version": MODELOPT_VERSION}


def _algo(recipe: Recipe) -> str:
    return "NVFP4" if recipe.activations == "calibrated" else "W4A16_NVFP4"


def _modelopt_block(recipe: Recipe, exclude: Sequence[str]) -> dict[str, Any]:
    numbers = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": FORMATS["nvfp4"].block}
    group: dict[str, Any] = {"weights": dict(numbers), "targets": ["Linear"]}
    if recipe.activations == "calibrated":
        group["input_activations"] = dict(numbers)
    block: dict[str, Any] = {
        "config_groups": {"group_0": group},
        "ignore": list(exclude),
        "quant_algo": _algo(recipe),
        "producer": _producer(),
        "quant_method": "modelopt",
    }
    if recipe.kv_cache != "none":
        block["kv_cache_scheme"] = {"dynamic": False, "num_bits": 8, "type": "float"}
    return block


def _quantized_layers(recipe: Recipe, layers: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What modelopt says of each layer; readers take a fused layer's from its members."""
    fp4 = {"quant_algo": _algo(recipe), "group_size": FORMATS["nvfp4"].block}
    return {name: dict(fp4) if form == "nvfp4" else {"quant_algo": form.upper()} for name, form in layers.items()}


def _modelopt_mixed(recipe: Recipe, exclude: Sequence[str], layers: Mapping[str, str]) -> dict[str, Any]:
    """One group for each format, and the format of each layer, as modelopt 0.47 converts its own file."""
    groups: dict[str, Any] = {}
    for number, form in enumerate(dict.fromkeys(layers.values())):
        numbers: dict[str, Any] = {"dynamic": False, "num_bits": 8 if form == "fp8" else 4, "type": "float"}
        if form != "fp8":
            numbers["group_size"] = FORMATS["nvfp4"].block
        group: dict[str, Any] = {"weights": numbers}
        if form == "fp8" or recipe.activations == "calibrated":
            group["input_activations"] = dict(numbers)
        group["targets"] = sorted(name for name, own in layers.items() if own == form)
        groups[f"group_{number}"] = group
    plain = _modelopt_block(recipe, exclude)
    return plain | {
        "config_groups": groups,
        "quant_algo": MIXED_ALGO,
        "quantized_layers": _quantized_layers(recipe, layers),
    }


def _quark_block(recipe: Recipe, exclude: Sequence[str]) -> dict[str, Any]:
    inputs = {**_quark_tensor(recipe), "is_dynamic": True} if recipe.activations == "dynamic" else None
    return {
        "quant_method": "quark",
        "version": QUARK_VERSION,
        "quant_mode": "eager_mode",
        "global_quant_config": {
            "input_tensors": inputs,
            "output_tensors": None,
            "weight": {**_quark_tensor(recipe), "is_dynamic": False},
            "bias": None,
            "target_device": None,
        },
        "exclude": list(exclude),
        "algo_config": None,
        "softmax_quant_spec": None,
        "layer_type_quant_config": {},  # vLLM and SGLang fail on null
        "layer_quant_config": {},
        "kv_cache_quant_config": {},
        "kv_cache_post_rope": False,
        "export": {
            "kv_cache_group": [],  # vLLM fails without
            "min_kv_scale": 0.0,
            "pack_method": "reorder",
            "weight_format": "real_quantized",
            "weight_merge_groups": None,
        },
    }


def _quark_tensor(recipe: Recipe) -> Mapping[str, Any]:
    return {
        "dtype": "fp4",
        "qscheme": "per_group",
        "ch_axis": -1,
        "group_size": FORMATS["mxfp4"].block,
        "symmetric": None,
        "round_method": "half_even",
        "scale_type": "float",
        "scale_format": "e8m0",
        "scale_calculation_mode": recipe.mode,
        "mx_element_dtype": None,
        "observer_cls": "PerBlockMXObserver",
        "is_scale_quant": False,
    }


def _compressed_block(recipe: Recipe, exclude: Sequence[str]) -> dict[str, Any]:
    """The library's presets NVFP4, NVFP4A16, MXFP4 and MXFP4A16; `dynamic: local` is a stored global scale."""
    two_level = recipe.format == "nvfp4"
    form = f"{recipe.format}-pack-quantized"
    weights = {
        "num_bits": 4,
        "type": "float",
        "symmetric": True,
        "group_size": FORMATS[recipe.format].block,
        "strategy": "tensor_group" if two_level else "group",
        "dynamic": False,
        "scale_dtype": "torch.float8_e4m3fn" if two_level else "torch.uint8",
    }
    inputs: dict[str, Any] | None = None
    if recipe.activations != "none":
        inputs = {**weights, **(_LOCAL if two_level else _DYNAMIC)}
    if recipe.mode == "mse":
        weights["observer"] = "mse"  # llm-compressor's word; without one its block maxima are meant
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return _compressed(form, {"group_0": {**group, "format": form}}, exclude)


def _compressed(form: str, groups: Mapping[str, Any], exclude: Sequence[str]) -> dict[str, Any]:
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": dict(groups),
        "ignore": list(exclude),
        "kv_cache_scheme": None,
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "sparsity_config": {},
        "transform_config": {},
        "version": COMPRESSED_VERSION,
    }


def _compressed_mixed(recipe: Recipe, exclude: Sequence[str], layers: Mapping[str, str]) -> dict[str, Any]:
    """A group for each format, the FP8 one the library's preset FP8_DYNAMIC; modules by name, not by class.

    Where there are several groups TensorRT-LLM refuses class names, and a name must be reached by one group only.
    """
    own = _compressed_block(recipe, exclude)["config_groups"]["group_0"]
    eight = {"num_bits": 8, "type": "float", "symmetric": True, "group_size": None}
    beside = {
        "weights": {**eight, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight, "strategy": "token", "dynamic": True},
        "output_activations": None,
        "format": "float-quantized",
    }
    groups = {}
    for number, form in enumerate((recipe.format, "fp8")):
        inside = sorted(name for name, other in layers.items() if other == form)
        outside = sorted(name for name, other in layers.items() if other != form)
        targets = dict.fromkeys(_named(outside, inside, literal=False))
        groups[f"group_{number}"] = {**(own if form != "fp8" else beside), "targets": sorted(targets, key=_natural)}
    return _compressed(MIXED_FORM, groups, exclude)


_LOCAL: Mapping[str, Any] = {"dynamic": "local", "observer": "static_minmax"}
_DYNAMIC: Mapping[str, Any] = {"dynamic": True}
_BLOCKS: Mapping[str, Callable[[Recipe, Sequence[str]], dict[str, Any]]] = {
    "modelopt": _modelopt_block,
    "quark": _quark_block,
    "compressed-tensors": _compressed_block,
}
_MIXED: Mapping[str, Callable[[Recipe, Sequence[str], Mapping[str, str]], dict[str, Any]]] = {
    "modelopt": _modelopt_mixed,
    "compressed-tensors": _compressed_mixed,
}
