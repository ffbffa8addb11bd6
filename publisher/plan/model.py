"""The recipe and the plan as frozen values; reading and making them is the work of the modules beside this one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from publisher import jsonio

QUANTIZE, KEEP = "quantize", "keep"


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Text an engine calibrates activations on.

    Args:
        data: a text file (one sample a line) or a JSONL file with a `text` field.
        samples: how many to use.
        sequence_length: tokens a sample is cut to.
        seed: order in which samples are drawn.
    """

    data: Path
    samples: int = 512
    sequence_length: int = 512
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSpec:
    """The repository to publish: `gate` is auto, manual or off."""

    repo: str
    gate: str = "manual"
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Text for the weight-only perplexity the card prints, and a prompt to continue greedily."""

    data: Path
    windows: int = 16
    length: int = 512
    prompt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """Which weights are pruned before they are quantized, and how.

    Args:
        pattern: paired-4:8, the only one.
        modules: globs over the quantized modules.
        choose: by magnitude, or by hessian (magnitude weighted by the inputs' mean squares).
    """

    pattern: str
    modules: tuple[str, ...] = ("*",)
    choose: str = "magnitude"


@dataclass(frozen=True, slots=True, kw_only=True)
class Also:
    """Modules that get another format than the recipe's own: `fp8`, the only one; globs as in `quantize`."""

    format: str
    quantize: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What a person asked for; every path is absolute, every default filled in.

    Args:
        name: names the run.
        source: an absolute folder or `hf://org/name[@revision]`.
        format: nvfp4 or mxfp4.
        layout: modelopt, quark or compressed-tensors.
        engine: native or modelopt.
        mode: max, mse or four-over-six (nvfp4); even, floor or ceil (mxfp4).
        activations: calibrated, dynamic or none.
        kv_cache: fp8, fp8-cast or none.
        quantize: globs over the source's module names.
        keep: globs that win over `quantize`.
        also: other formats for some modules; their globs win over `quantize`.
        sparsity: what is pruned; None for nothing.
        statistics: what activations were measured to be, for the engine native.
        shard_size: largest size of an output shard in bytes.
    """

    name: str
    source: str
    format: str
    layout: str
    engine: str
    mode: str
    activations: str
    kv_cache: str = "none"
    quantize: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    also: tuple[Also, ...] = ()
    sparsity: Sparsity | None = None
    calibration: Calibration | None = None
    statistics: Path | None = None
    evaluation: Evaluation | None = None
    target: TargetSpec | None = None
    card: Path | None = None
    shard_size: int = 5_000_000_000

    def to_json(self) -> dict[str, Any]:
        """The recipe as canonical JSON; paths become strings, what is None is left out."""

        def clean(value: Any) -> Any:
            if isinstance(value, Mapping):
                return {key: clean(item) for key, item in value.items() if item is not None}
            if isinstance(value, tuple):
                return [clean(item) for item in value]
            return str(value) if isinstance(value, Path) else value

        result: dict[str, Any] = clean(asdict(self))
        if not self.also:
            del result["also"]
        return result

    @property
    def digest(self) -> str:
        """sha256 of the recipe's canonical JSON."""
        return jsonio.digest(self.to_json())


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one module.

    Args:
        module: its name in the source.
        action: quantize or keep.
        pattern: the glob that decided, None when none matched.
        reason: why, in words, where no pattern decided.
        group: name of the fused layer whose members share a global scale, None when alone.
        format: what it is quantized to where that is not the recipe's own format.
    """

    module: str
    action: str
    pattern: str | None = None
    reason: str = ""
    group: str | None = None
    format: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassSummary:
    """Modules that differ only in layer and expert number and share one decision.

    Args:
        pattern: the class, such as `model.layers.*.mlp.up_proj`.
        role: the modules' role.
        action: quantize or keep.
        decided_by: the glob or the reason.
        modules: how many.
        shape: (out, in) of their weights, None when they differ.
        bytes_before: stored in the source.
        bytes_after: stored in the result.
    """

    pattern: str
    role: str
    action: str
    decided_by: str
    modules: int
    shape: tuple[int, ...] | None
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will happen.

    Args:
        recipe: what was asked.
        source_label: the source folder or `hf://org/name@commit`.
        source_commit: commit sha of a Hub source, None for a folder.
        decisions: one per module that has a weight matrix, in name order.
        classes: the same, summarised.
        exclude: the exclude list the result will carry, in the layout's own dialect.
        quantization_config: the block for config.json.
        hf_quant_config: the content of hf_quant_config.json (modelopt layout), else None.
        bytes_before: tensor bytes of the source.
        bytes_after: tensor bytes of the result.
        shards: expected number of output shards.
        disk_needed: free bytes the run directory must have.
        memory_needed: peak bytes of memory the engine is expected to use.
        problems: what cannot work, each a sentence; a plan with problems is not started.
        warnings: what a person should know first.
    """

    recipe: Recipe
    source_label: str
    source_commit: str | None
    decisions: tuple[Decision, ...]
    classes: tuple[ClassSummary, ...]
    exclude: tuple[str, ...]
    quantization_config: Mapping[str, Any]
    hf_quant_config: Mapping[str, Any] | None
    bytes_before: int
    bytes_after: int
    shards: int
    disk_needed: int
    memory_needed: int
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())

    @property
    def quantized(self) -> tuple[Decision, ...]:
        """The modules that will be quantized."""
        return tuple(decision for decision in self.decisions if decision.action == QUANTIZE)

    @property
    def mixed(self) -> bool:
        """Whether modules get more than one format."""
        return any(decision.format is not None for decision in self.decisions)

    @property
    def kept(self) -> tuple[Decision, ...]:
        """The modules that will be kept as they are."""
        return tuple(decision for decision in self.decisions if decision.action == KEEP)

    def to_json(self) -> dict[str, Any]:
        """The plan as canonical JSON; decisions are listed with their group and what decided."""
        result = asdict(self)
        result["recipe"] = self.recipe.to_json()
        result["schema"] = 1
        return result

    @property
    def digest(self) -> str:
        """sha256 of what decides the quantized bytes: target, card and evaluation are left out."""
        body = self.to_json()
        body["recipe"] = {k: v for k, v in body["recipe"].items() if k not in ("target", "card", "evaluation", "name")}
        return jsonio.digest({key: body[key] for key in sorted(body) if key not in ("warnings", "problems")})
