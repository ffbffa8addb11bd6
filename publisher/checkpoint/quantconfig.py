"""One `QuantConfig` out of every dialect that declares FP4: modelopt (both files), Quark, compressed-tensors,
AutoRound.

A declaration is read as far as it makes sense; what does not make sense is kept as a flaw, so that a rule can name it.
Keys as in vLLM `model_executor/layers/quantization/{modelopt,quark,compressed_tensors}` and the exporters' own code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher import jsonio

BLOCKS: Mapping[str, int] = {"nvfp4": 16, "mxfp4": 32}


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """What a mixed declaration says about one module or everything below it.

    Args:
        algo: `quant_algo` as spelled, None when it is no text.
        format: nvfp4, mxfp4, mxfp8, fp8, or None when the algorithm is unknown.
        activations: as in `QuantConfig`.
        group_size: as written, None when absent or no integer.
    """

    algo: str | None
    format: str | None
    activations: str | None
    group_size: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantConfig:
    """What one place of a checkpoint declares about its quantization.

    Args:
        origin: where it stands, such as `config.json: quantization_config`.
        dialect: modelopt, quark, compressed-tensors, auto-round, or the `quant_method` as it stands; an engine's own
            name for one of them (`modelopt_fp4`) counts as that one.
        format: nvfp4, mxfp4, mxfp8, fp8, int4, mixed, or None when nothing says.
        algo: `quant_algo` (modelopt) or `format` (compressed-tensors) as spelled.
        group_sizes: every spelling of the block length found, in order.
        activations: static (scales stored), dynamic (computed when serving), none (weight-only), None when unsaid.
        kv_cache: fp8, nvfp4, another spelling, or None.
        ignore: the exclude list as written; non-strings are left out and named in `flaws`.
        flaws: what could not be understood.
        raw: the declaration itself.
        layers: of a mixed declaration, what it says by module name.
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
    layers: Mapping[str, LayerConfig] = field(default_factory=dict)

    @property
    def body(self) -> Mapping[str, Any]:
        """The keys themselves: below `quantization` in modelopt's nested form, else the declaration."""
        return _mapping(self.raw.get("quantization")) or self.raw

    def layer(self, name: str) -> LayerConfig | None:
        """What a mixed declaration says about a module: its own entry, or that of the nearest module above it."""
        while name:
            found = self.layers.get(name)
            if found is not None:
                return found
            name = name.rpartition(".")[0]
        return None

    @property
    def group_size(self) -> int | None:
        """The first spelling of the block length, or the format's own."""
        return self.group_sizes[0] if self.group_sizes else BLOCKS.get(self.format or "")


def parse_declaration(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    """Read one `quantization_config` block or one `hf_quant_config.json`."""
    dialect = dialect_of(raw)
    reader = _READERS.get(dialect)
    return reader(raw, origin) if reader is not None else _other(raw, origin, dialect)


def dialect_of(raw: Mapping[str, Any]) -> str:
    """Whose keys a declaration is written in; `unknown` where nothing says."""
    method = raw.get("quant_method")
    if isinstance(raw.get("quantization"), Mapping) or _mapping(raw.get("producer")).get("name") == "modelopt":
        return "modelopt"
    if not isinstance(method, str):
        return "unknown"
    meant: str = _facts()["aliases"].get(method.lower(), {}).get("means", method)
    return meant


def _facts() -> Mapping[str, Any]:
    facts: Mapping[str, Any] = jsonio.data("dialects/declarations.json")
    return facts


def _modelopt(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    flaws: list[str] = []
    body = _mapping(raw.get("quantization")) or raw
    algo = body.get("quant_algo")
    groups = list(_config_groups(raw))
    kv = body.get("kv_cache_quant_algo") if "kv_cache_quant_algo" in body else body.get("kv_cache_scheme")
    known = _algorithm(algo)
    weight_only = groups and known.get("format") != "mixed" and all(not g.get("input_activations") for g in groups)
    return QuantConfig(
        origin=origin,
        dialect="modelopt",
        format=known.get("format"),
        algo=algo if isinstance(algo, str) else None,
        group_sizes=tuple(_sizes(body, groups)),
        activations="none" if weight_only else known.get("activations"),
        kv_cache=_kv(kv),
        ignore=_names(body, ("ignore", "exclude_modules", "modules_to_not_convert"), flaws),
        flaws=tuple(flaws),
        raw=raw,
        layers=_layers(body) if known.get("format") == "mixed" else {},
    )


def _algorithm(algo: Any) -> Mapping[str, str]:
    known: Mapping[str, str] = _facts()["modelopt"].get(algo.upper(), {}) if isinstance(algo, str) else {}
    return known


def _layers(body: Mapping[str, Any]) -> dict[str, LayerConfig]:
    found = {}
    for name, entry in _mapping(body.get("quantized_layers")).items():
        algo, size = _mapping(entry).get("quant_algo"), _mapping(entry).get("group_size")
        known = _algorithm(algo)
        found[name] = LayerConfig(
            algo if isinstance(algo, str) else None,
            known.get("format"),
            known.get("activations"),
            size if type(size) is int else None,
        )
    return found


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
        format=_facts()["compressed-tensors"].get(str(algo)),
        algo=algo if isinstance(algo, str) else None,
        group_sizes=tuple(_sizes({}, groups)),
        activations="none" if not any(inputs) else "dynamic" if dynamic else "static",
        kv_cache=_kv(raw.get("kv_cache_scheme")),
        ignore=_names(raw, ("ignore",), flaws),
        flaws=tuple(flaws),
        raw=raw,
    )


def _auto_round(raw: Mapping[str, Any], origin: str) -> QuantConfig:
    flaws: list[str] = []
    data, size, bits = raw.get("data_type"), raw.get("group_size"), raw.get("act_bits")
    return QuantConfig(
        origin=origin,
        dialect="auto-round",
        format=_facts()["auto-round"].get(str(data)),
        algo=data if isinstance(data, str) else None,
        group_sizes=(size,) if type(size) is int else (),
        activations="none" if type(bits) is int and bits >= 16 else "dynamic" if raw.get("act_dynamic") else None,
        kv_cache=None,
        ignore=_names(raw, ("ignore", "modules_to_not_convert"), flaws),
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


_READERS: Mapping[str, Callable[[Mapping[str, Any], str], QuantConfig]] = {
    "modelopt": _modelopt,
    "quark": _quark,
    "compressed-tensors": _compressed,
    "auto-round": _auto_round,
}


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
