"""The job file as this program needs it: read once, every problem named at once, paths made real.

Refused: a document docs/job-file.md does not describe, a job for another engine, and what this engine cannot do
(calibrated activations without statistics, calibrated KV scales, a mode or a layout of another format, a module in two
fused groups).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.formats import LAYOUTS, Layout
from publisher.formats.fp8 import BESIDE

ENGINE = "native"
# format: layout: modes
ABILITIES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "nvfp4": {"modelopt": ("max", "mse", "four-over-six"), "compressed-tensors": ("max", "mse")},
    "mxfp4": {"quark": ("even", "floor", "ceil"), "compressed-tensors": ("even", "floor", "ceil", "ceil6")},
}
ACTIVATIONS = {"nvfp4": ("none", "calibrated"), "mxfp4": ("dynamic", "none")}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSparsity:
    """What to prune before quantizing.

    Args:
        pattern: paired-4:8.
        choose: magnitude or hessian.
        modules: exactly those to prune, all of them to be quantized.
        statement: what config.json says of it.
    """

    pattern: str
    choose: str
    modules: frozenset[str]
    statement: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to quantize, from where to where; the keys of docs/job-file.md that this engine uses."""

    source: Path
    output: Path
    staging: Path
    format: str
    layout: str
    mode: str
    quantize: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]
    quantization_config: Mapping[str, Any]
    hf_quant_config: Mapping[str, Any] | None
    statistics: Path | None
    shard_size: int
    device: str
    plan_digest: str
    workers: int | None = None
    not_finite: Mapping[str, int] = field(default_factory=dict)
    activations: str = "none"
    sparsity: JobSparsity | None = None
    fp8: tuple[str, ...] = ()

    @property
    def stored(self) -> Layout:
        """How this layout stores this format."""
        return LAYOUTS[self.layout, self.format]

    @property
    def producer(self) -> str:
        """Whose arithmetic it is written in, a key of the formats' `POLICIES`."""
        return "compressed-tensors" if self.layout == "compressed-tensors" else "native"


def read_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        PublisherError: naming every problem.
    """
    raw = jsonio.load_json(path)
    jsonio.require(raw, "job", str(path), hint="Let `publisher quantize` write the job file.")
    problems = list(_problems(raw))
    if problems:
        raise PublisherError(
            f"{path}: " + "; ".join(problems) + ".", hint="Change the recipe, or choose the engine modelopt."
        )
    return Job(
        source=Path(raw["source"]),
        output=Path(raw["output"]),
        staging=Path(raw["staging"]),
        format=raw["format"],
        layout=raw["layout"],
        mode=raw["mode"],
        quantize=tuple(raw["quantize"]),
        groups={name: tuple(members) for name, members in raw["groups"].items()},
        quantization_config=raw["quantization_config"],
        hf_quant_config=raw.get("hf_quant_config"),
        statistics=Path(raw["statistics"]) if raw.get("statistics") else None,
        shard_size=raw["shard_size"],
        device=raw["device"],
        workers=raw.get("workers"),
        not_finite=raw.get("not_finite") or {},
        plan_digest=raw["plan_digest"],
        activations=raw["activations"],
        sparsity=_sparsity(raw.get("sparsity")),
        fp8=tuple(raw.get("fp8", ())),
    )


def _sparsity(raw: Mapping[str, Any] | None) -> JobSparsity | None:
    return None if raw is None else JobSparsity(**{**raw, "modules": frozenset(raw["modules"])})


def _problems(raw: Mapping[str, Any]) -> Iterator[str]:
    if raw["engine"] != ENGINE:
        yield f"the job is for the engine {raw['engine']!r}, this is {ENGINE!r}"
    form = raw["format"]
    layouts, activations = ABILITIES[form], ACTIVATIONS[form]
    modes = layouts.get(raw["layout"], next(iter(layouts.values())))
    for key, able in (("layout", tuple(layouts)), ("mode", modes), ("activations", activations)):
        if raw[key] not in able:
            yield f"{key} {raw[key]!r} with {raw['format']} is not what this engine does ({', '.join(able)})"
    pruning = raw.get("sparsity") or {"choose": "", "modules": ()}
    needed = raw["activations"] == "calibrated" or pruning["choose"] == "hessian"
    if needed is not bool(raw.get("statistics")):
        yield "calibrated activations or pruning by hessian and statistics go together, one is given without the other"
    stray = set(pruning["modules"]) - set(raw["quantize"])
    if stray:
        yield f"{len(stray):,} modules are to be pruned and not quantized, first {min(stray)}"
    if raw["kv_cache"] == "fp8":
        yield "kv_cache 'fp8' needs calibration, which this engine does not do (fp8-cast or none)"
    yield from _fp8_problems(raw)
    yield from _group_problems(raw["groups"], frozenset((*raw["quantize"], *raw.get("fp8", ()))))


def _fp8_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    beside = raw.get("fp8", ())
    twice = set(beside) & set(raw["quantize"])
    if twice:
        yield f"{len(twice):,} modules are to be quantized to {raw['format']} and to fp8, first {min(twice)}"
    how = BESIDE.get(raw["layout"])
    if beside and how is None:
        yield f"fp8 beside {raw['format']} in {raw['layout']} layout is not what this engine does"
    elif beside and how is not None and how.inputs and raw["activations"] != "calibrated":
        yield f"fp8 in {raw['layout']} layout needs calibrated activations: its input scales are stored"


def _group_problems(groups: Mapping[str, list[str]], quantize: frozenset[str]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for group, members in groups.items():
        for member in members:
            if member not in quantize:
                yield f"group {group} names {member}, which is not to be quantized"
            if member in seen:
                yield f"{member} is in the groups {seen[member]} and {group}"
            seen[member] = group
