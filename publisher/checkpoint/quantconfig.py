"""One `QuantConfig` out of every dialect that declares FP4: modelopt (both files), Quark, compressed-tensors.

A declaration is read as far as it makes sense; what does not make sense is kept as a flaw, so that a rule can name it.
Keys as in vLLM `model_executor/layers/quantization/{modelopt,quark,compressed_tensors}` and the exporters' own code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MODELOPT_FORMATS = {
    "NVFP4": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "NVFP4_SVD": "nvfp4",
    "W4A8_NVFP4_FP8": "nvfp4",
    "MXFP4": "mxfp4",
    "W4A8_MXFP4_FP8": "mxfp4",
    "MXFP8": "mxfp8",
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8",
    "MIXED_PRECISION": "mixed",
}
COMPRESSED_FORMATS = {
    "nvfp4-pack-quantized": "nvfp4",
    "mxfp4-pack-quantized": "mxfp4",
    "mxfp8-quantized": "mxfp8",
    "pack-quantized": "int4",
    "float-quantized": "fp8",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantConfig:
    """What one place of a checkpoint declares about its quantization.

    Args:
        origin: where it stands, such as `config.json: quantization_config`.
        dialect: modelopt, quark, compressed-tensors, or the `quant_method` as it stands.
        format: nvfp4, mxfp4, mxfp8, fp8, int4, mixed, or None when nothing says.
        algo: `quant_algo` (modelopt) or `format` (compressed-tensors) as spelled.
        group_sizes: every spelling of the block length found, in order.
        activations: static (scales stored), dynamic (computed when serving), none (weight-only), None when unsaid.
        kv_cache: fp8, nvfp4, another spelling, or None.
        ignore: the exclude list as written; non-strings are left out and named in `flaws`.
        flaws: what could not be understood.
        raw: the declaration itself.
    """

    origin: str
    dialect: str
    format: str | None
    algo: str | None
    group_sizes: tuple[int, ...]
    activations: str | None
    kv_cache: str | None
    ignore: tuple[str, ...]
    flaws: tuple[str, ...]
    raw: Mapping[str, Any]

    @property
    def group_size(self) -> int | None:
        """The first spelling of the block length, or the format's own."""
        return self.group_sizes[0] if self.group_sizes else {"nvfp4": 16, "mxfp4": 32}.get(self.format or "")


def parse_declaration(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    """Read one `quantization_config` block or one `hf_quant_config.json`."""
    method = raw.get("quant_method")
    producer = _mapping(raw.get("producer")).get("name")
    if isinstance(raw.get("quantization"), Mapping) or method == "modelopt" or producer == "modelopt":
        return _modelopt(raw, origin)
    if method == "quark":
        return _quark(raw, origin)
    if method == "compressed-tensors":
        return _compressed(raw, origin)
    return _other(raw, origin, str(method) if isinstance(method, str) else "unknown")


def _modelopt(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    flaws: list[str] = []
    body = _mapping(raw.get("quantization")) or raw
    algo = body.get("quant_algo")
    groups = list(_config_groups(raw))
    kv = body.get("kv_cache_quant_algo") if "kv_cache_quant_algo" in body else body.get("kv_cache_scheme")
    return QuantConfig(
        origin=origin,
        dialect="modelopt",
        format=MODELOPT_FORMATS.get(str(algo).upper()),
        algo=algo if isinstance(algo, str) else None,
        group_sizes=tuple(_sizes(body, groups)),
        activations=_modelopt_activations(str(algo), groups),
        kv_cache=_kv(kv),
        ignore=_names(body, ("ignore", "exclude_modules", "modules_to_not_convert"), flaws),
        flaws=tuple(flaws),
        raw=raw,
    )


def _modelopt_activations(algo: str, groups: list[Mapping[str, Any]]) -> str | None:
    if algo.upper().startswith("W4A16"):
        return "none"
    if groups and all(not group.get("input_activations") for group in groups):
        return "none"
    return "static" if algo.upper().startswith("NVFP4") else None


def _quark(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    flaws: list[str] = []
    config = _mapping(raw.get("global_quant_config"))
    weight, inputs = _first(config.get("weight")), _first(config.get("input_tensors"))
    scale = str(weight.get("scale_format") or "").lower()
    fp4 = str(weight.get("dtype") or "").lower().startswith("fp4")
    sizes = [spec.get("group_size") for spec in (weight, inputs) if spec]
    return QuantConfig(
        origin=origin,
        dialect="quark",
        format="mxfp4" if fp4 and scale == "e8m0" else "nvfp4" if fp4 else None,
        algo=str(weight["dtype"]) if "dtype" in weight else None,
        group_sizes=tuple(size for size in sizes if type(size) is int),
        activations="none" if not inputs else "dynamic" if inputs.get("is_dynamic") else "static",
        kv_cache="fp8" if raw.get("kv_cache_quant_config") else None,
        ignore=_names(raw, ("exclude",), flaws),
        flaws=tuple(flaws),
        raw=raw,
    )


def _compressed(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    flaws: list[str] = []
    groups = list(_config_groups(raw))
    algo = raw.get("format")
    inputs = [_mapping(group.get("input_activations")) for group in groups]
    dynamic = any(spec.get("dynamic") is True for spec in inputs)
    return QuantConfig(
        origin=origin,
        dialect="compressed-tensors",
        format=COMPRESSED_FORMATS.get(str(algo)),
        algo=algo if isinstance(algo, str) else None,
        group_sizes=tuple(_sizes({}, groups)),
        activations="none" if not any(inputs) else "dynamic" if dynamic else "static",
        kv_cache=_kv(raw.get("kv_cache_scheme")),
        ignore=_names(raw, ("ignore",), flaws),
        flaws=tuple(flaws),
        raw=raw,
    )


def _other(raw: Mapping[str, Any], origin: str, method: str) -> QuantConfig:
    flaws: list[str] = []
    size = raw.get("group_size")
    return QuantConfig(
        origin=origin,
        dialect=method,
        format={"mxfp4": "mxfp4", "fp8": "fp8", "gptq": "int4", "awq": "int4"}.get(method),
        algo=None,
        group_sizes=(size,) if type(size) is int else (),
        activations=None,
        kv_cache=None,
        ignore=_names(raw, ("ignore", "modules_to_not_convert", "exclude"), flaws),
        flaws=tuple(flaws),
        raw=raw,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first(spec: Any) -> Mapping[str, Any]:
    """A Quark tensor spec; two-level formats give a list of two, the block level first."""
    return _mapping(spec[0] if isinstance(spec, list) and spec else spec)


def _config_groups(raw: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for group in _mapping(raw.get("config_groups")).values():
        if isinstance(group, Mapping):
            yield group


def _sizes(body: Mapping[str, Any], groups: list[Mapping[str, Any]]) -> Iterator[int]:
    candidates = [body.get("group_size")]
    candidates += [
        _mapping(group.get(part)).get("group_size") for group in groups for part in ("weights", "input_activations")
    ]
    candidates += [_mapping(layer).get("group_size") for layer in _mapping(body.get("quantized_layers")).values()]
    yield from (size for size in candidates if type(size) is int)


def _kv(value: Any) -> str | None:
    if isinstance(value, Mapping):
        return "fp8" if value.get("num_bits") == 8 else f"{value.get('num_bits')}-bit"
    return value.lower() if isinstance(value, str) else None


def _names(body: Mapping[str, Any], keys: tuple[str, ...], flaws: list[str]) -> tuple[str, ...]:
    for key in keys:
        value = body.get(key)
        if value is None:
            continue
        if not isinstance(value, list):
            flaws.append(f"`{key}` is a {type(value).__name__}, not a list")
            return ()
        wrong = sum(not isinstance(item, str) or not item for item in value)
        if wrong:
            flaws.append(f"`{key}` holds {wrong} entries that are no non-empty strings")
        return tuple(item for item in value if isinstance(item, str) and item)
    return ()
