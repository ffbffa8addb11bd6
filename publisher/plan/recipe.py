"""Read a recipe: YAML and its schema, defaults by format, and combinations that have no meaning refused with the fix.

Everything wrong with a recipe is said at once. Paths are taken relative to the recipe's own folder and become
absolute; whether they exist is a question for preflight, because a recipe may be planned on another machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.formats.fp8 import BESIDE
from publisher.matching import PatternError, check_pattern
from publisher.plan.model import Also, Calibration, Evaluation, Recipe, Sparsity, TargetSpec

MAX_RECIPE = 4 << 20
HUB_SOURCE = re.compile(r"hf://[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[A-Za-z0-9][\w./-]{0,199})?")
ENGINES = ("vllm", "sglang")
MODES = {"nvfp4": ("max", "mse", "four-over-six"), "mxfp4": ("even", "floor", "ceil")}
COMPRESSED_MODES = {"nvfp4": ("max", "mse"), "mxfp4": ("even", "floor", "ceil", "ceil6")}  # it says no MXFP4 scale mode
DEFAULT_LAYOUT = {"nvfp4": "modelopt", "mxfp4": "quark"}
_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file; relative paths in it are taken from its folder.

    Raises:
        DocumentError: missing, no YAML, or not a recipe; every problem is named.
    """
    value = jsonio.loads_yaml(jsonio.read_bytes(path, MAX_RECIPE), str(path))
    return recipe_from_mapping(value, Path(os.path.abspath(path)).parent, str(path))


def recipe_from_mapping(mapping: object, base: Path, where: str) -> Recipe:
    """Make a recipe of parsed YAML or a filled-in form.

    Args:
        mapping: the document.
        base: the folder relative paths start from.
        where: what to call the document in an error.

    Raises:
        DocumentError: naming every problem at once.
    """
    if not isinstance(mapping, Mapping):
        kind = "empty" if mapping is None else f"a {type(mapping).__name__}"
        raise jsonio.DocumentError(
            f"{where} is {kind}, not a recipe.", hint="A recipe is `key: value` lines; it needs name, source, format."
        )
    document = _unquoted(mapping)
    problems = jsonio.problems(document, "recipe")
    recipe = None
    if not problems:
        recipe = _build(document, Path(os.path.abspath(base)))
        problems = list(_objections(recipe, document))
    if problems or recipe is None:
        raise jsonio.DocumentError(f"{where}: " + "; ".join(problems) + ".", hint="Correct the recipe.")
    return recipe


def _unquoted(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """Undo what YAML 1.1 does to plain words: `off` and `none` written without quotes."""
    document = {str(key): value for key, value in mapping.items()}
    target = document.get("target")
    if isinstance(target, Mapping) and target.get("gate") is False:
        document["target"] = {**target, "gate": "off"}
    return document


def _build(document: Mapping[str, Any], base: Path) -> Recipe:
    number_format = document["format"]
    engine = document.get("engine", "native")
    weight_only = "calibrated" if engine == "modelopt" or "statistics" in document else "none"
    return Recipe(
        name=document["name"],
        source=_source(document["source"], base),
        format=number_format,
        layout=document.get("layout", DEFAULT_LAYOUT[number_format]),
        engine=engine,
        mode=document.get("mode", MODES[number_format][0]),
        activations=document.get("activations", "dynamic" if number_format == "mxfp4" else weight_only),
        kv_cache=document.get("kv_cache", "none"),
        quantize=tuple(document["quantize"]),
        keep=tuple(document.get("keep", ())),
        also=tuple(Also(format=one["format"], quantize=tuple(one["quantize"])) for one in document.get("also", ())),
        sparsity=_sparsity(document.get("sparsity")),
        calibration=_with_path(Calibration, document.get("calibration"), base),
        statistics=_path(document["statistics"], base) if "statistics" in document else None,
        evaluation=_with_path(Evaluation, document.get("evaluation"), base),
        target=TargetSpec(**document["target"]) if "target" in document else None,
        card=_path(document["card"], base) if "card" in document else None,
        shard_size=parse_size(document.get("shard_size", Recipe.__dataclass_fields__["shard_size"].default)),
    )


def _sparsity(section: str | Mapping[str, Any] | None) -> Sparsity | None:
    """The pattern alone, or with what it is for."""
    if section is None or isinstance(section, str):
        return None if section is None else Sparsity(pattern=section)
    modules = {"modules": tuple(section["modules"])} if "modules" in section else {}
    return Sparsity(**{**section, **modules})


def _with_path(kind: Any, section: Mapping[str, Any] | None, base: Path) -> Any:
    return None if section is None else kind(**{**section, "data": _path(section["data"], base)})


def _path(text: str, base: Path) -> Path:
    return Path(os.path.normpath(base / os.path.expanduser(text)))


def _source(text: str, base: Path) -> str:
    return text if "://" in text else str(_path(text, base))


def parse_size(value: int | str) -> int:
    """Bytes of a size such as 5000000, "500MB" or "4.5GiB"; the schema has seen to its form."""
    if isinstance(value, int):
        return value
    match = re.fullmatch(r"([0-9.]+) ?([kKMG]i?)?B?", value)
    number, unit = match.groups() if match else ("0", "")
    return int(float(number) * _UNITS[(unit or "").replace("K", "k")])


# --- combinations --------------------------------------------------------------------------------------------------


def _objections(recipe: Recipe, document: Mapping[str, Any]) -> Iterator[str]:
    yield from _place(recipe)
    yield from _layout(recipe)
    yield from _engine(recipe)
    yield from _activations(recipe)
    yield from _kv_cache(recipe)
    yield from _calibration(recipe)
    yield from _pruning(recipe)
    yield from _also(recipe)
    for key in ("quantize", "keep"):
        yield from _patterns(key, document.get(key, ()))
    if recipe.sparsity is not None:
        yield from _patterns("sparsity.modules", recipe.sparsity.modules)


def _place(recipe: Recipe) -> Iterator[str]:
    if "://" in recipe.source and not HUB_SOURCE.fullmatch(recipe.source):
        yield f"`source`: {recipe.source[:100]!r} is no source; write a folder or hf://org/name[@revision]"
    if recipe.shard_size < 1000:
        yield f"`shard_size`: {recipe.shard_size} bytes is less than the 1000 a shard must be allowed"


def _layout(recipe: Recipe) -> Iterator[str]:
    pair = (recipe.format, recipe.layout)
    modes = COMPRESSED_MODES if recipe.layout == "compressed-tensors" else MODES
    if not any(recipe.format in jsonio.data(f"engines/{name}.json")["loads"][recipe.layout] for name in ENGINES):
        yield f"`layout`: no serving engine loads {recipe.format} in {recipe.layout} layout; use quark"
    elif pair == ("nvfp4", "quark"):
        yield "`layout`: NVFP4 in quark layout is not available in this version; use modelopt"
    if recipe.mode not in (*MODES[recipe.format], *COMPRESSED_MODES[recipe.format]):
        yield f"`mode`: {recipe.mode} has no meaning for {recipe.format}; use {' or '.join(modes[recipe.format])}"
    elif recipe.mode not in modes[recipe.format]:
        other = "; compressed-tensors layout need not say it" if recipe.mode == "ceil6" else ""
        allowed = " or ".join(modes[recipe.format])
        yield f"`mode`: {recipe.layout} layout has no name for {recipe.mode}; use {allowed}{other}"


def _engine(recipe: Recipe) -> Iterator[str]:
    if recipe.engine in ("quark", "llm-compressor"):
        yield f"`engine`: {recipe.engine} is not available in this version; use native or modelopt"
    if recipe.engine == "modelopt" and recipe.mode in ("mse", "four-over-six"):
        yield f"`mode`: {recipe.mode} is computed by engine native in this version; use it, or max"
    if recipe.engine == "modelopt" and recipe.format == "mxfp4":
        yield "`engine`: what modelopt exports as MXFP4 no serving engine loads; use native"
    elif recipe.engine == "modelopt" and recipe.layout != "modelopt":
        yield f"`engine`: modelopt does not write {recipe.layout} layout; use native"


def _activations(recipe: Recipe) -> Iterator[str]:
    if recipe.format == "mxfp4" and recipe.activations == "calibrated":
        yield "`activations`: MXFP4 computes activation scales when serving; use dynamic, or none for weight-only"
    if recipe.format == "nvfp4" and recipe.activations == "dynamic":
        yield (
            "`activations`: NVFP4 needs stored activation scales, vLLM reads uninitialised memory without; use "
            "calibrated, with `statistics` (engine native) or engine modelopt, or none for weight-only (W4A16)"
        )
    if recipe.format == "nvfp4" and recipe.activations == "calibrated" and recipe.engine == "native":
        if recipe.statistics is None:
            yield (
                "`activations`: engine native needs `statistics`, a file of `publisher calibrate`; or use engine "
                "modelopt, or none for weight-only (W4A16)"
            )
    elif recipe.statistics is not None and not _by_hessian(recipe):
        yield "`statistics`: only engine native with nvfp4 and calibrated activations reads them; remove it"


def _by_hessian(recipe: Recipe) -> bool:
    return recipe.sparsity is not None and recipe.sparsity.choose == "hessian"


def _pruning(recipe: Recipe) -> Iterator[str]:
    if recipe.sparsity is not None and recipe.engine != "native":
        yield f"`sparsity`: engine {recipe.engine} does not prune; use native"
    if _by_hessian(recipe) and recipe.statistics is None:
        yield (
            "`sparsity.choose`: hessian needs `statistics`, a file of `publisher calibrate --second-moments`; or use "
            "magnitude"
        )


def _also(recipe: Recipe) -> Iterator[str]:
    """FP8 among FP4: who writes it, in which layout, and what its readers need."""
    if not recipe.also:
        return
    for number, one in enumerate(recipe.also):
        yield from _patterns(f"also.{number}.quantize", one.quantize)
    how = BESIDE.get(recipe.layout)
    if recipe.engine != "native":
        yield f"`also`: engine {recipe.engine} writes one format in this version; use native"
    elif how is None:
        yield f"`also`: {recipe.layout} layout holds one format in this version; use compressed-tensors"
    elif how.inputs and recipe.activations != "calibrated":
        yield (
            "`also`: engines read FP8 in modelopt layout with stored input scales; name `statistics`, a file of "
            "`publisher calibrate`, or use layout compressed-tensors, where they are computed when serving"
        )


def _kv_cache(recipe: Recipe) -> Iterator[str]:
    if recipe.kv_cache == "none":
        return
    if recipe.layout == "quark":
        yield f"`kv_cache`: {recipe.kv_cache} in quark layout is not available in this version; use none"
    elif recipe.layout == "compressed-tensors":
        yield (
            f"`kv_cache`: {recipe.kv_cache} in compressed-tensors layout means stored scales, which engine native "
            "cannot measure; use none"
        )
    elif recipe.kv_cache == "fp8" and recipe.engine == "native":
        yield "`kv_cache`: engine native cannot measure KV scales; use fp8-cast (scale 1) or none, or engine modelopt"


def _calibration(recipe: Recipe) -> Iterator[str]:
    if recipe.engine != "modelopt":
        if recipe.calibration is not None:
            yield f"`calibration`: engine {recipe.engine} does not calibrate; remove it or use engine modelopt"
        return
    reasons = [f"activations: {recipe.activations}"] if recipe.activations == "calibrated" else []
    reasons += ["kv_cache: fp8"] if recipe.kv_cache == "fp8" else []
    if reasons and recipe.calibration is None:
        yield f"`calibration`: {' and '.join(reasons)} needs `data`, a text or JSONL file; without one use none"


def _patterns(key: str, patterns: tuple[str, ...]) -> Iterator[str]:
    for index, pattern in enumerate(patterns):
        try:
            check_pattern(pattern)
        except PatternError as error:
            yield f"`{key}.{index}`: {error.message.rstrip('.')}"
            continue
        if pattern.startswith("re:"):
            yield f"`{key}.{index}`: {pattern[:80]!r} is a regex; recipes use globs such as *.mlp.*_proj"


# --- out -----------------------------------------------------------------------------------------------------------


def recipe_to_yaml(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; reading it gives an equal recipe, wherever it lies."""
    return jsonio.dump_yaml(recipe.to_json())
