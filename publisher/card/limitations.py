"""What a reader must not expect: derived from the facts, so that a card cannot forget it; persons may add theirs."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.card.architecture import has_vision
from publisher.card.formats import stores_input_scales
from publisher.card.headers import CoverageRow, kv_scales, quantized_modules
from publisher.card.record import Perplexity
from publisher.card.serving import Command
from publisher.card.sparsity import pattern_of
from publisher.card.value import Value, count
from publisher.checkpoint.open import Checkpoint
from publisher.plan.model import Plan


def limitations(
    checkpoint: Checkpoint,
    plan: Plan | None,
    measured: Perplexity | None,
    commands: tuple[Command, ...],
    rows: tuple[CoverageRow, ...],
    *,
    scored: bool = False,
) -> tuple[Value, ...]:
    """One sentence each, the one that matters most to accuracy first; `scored` is whether benchmarks were run."""
    return (
        *_accuracy(checkpoint, measured, scored),
        *_activations(checkpoint, plan),
        *_cache(checkpoint),
        *_parts(checkpoint, rows),
        *_pruned(checkpoint, plan),
        *_engines(commands),
    )


def _accuracy(checkpoint: Checkpoint, measured: Perplexity | None, scored: bool) -> Iterator[Value]:
    if scored:
        told = "The benchmarks here say little about other tasks, languages and lengths; evaluate it on your own tasks."
        yield Value(told, "card.toml: evaluation")
    if measured is None and not scored:
        yield Value("Accuracy was not measured by this publication; evaluate it on your own tasks.", "evaluation.json")
    if measured is None:
        return
    text = "The perplexity here is weight-only, on one text: it says nothing about tasks, chat or long contexts"
    quant = checkpoint.quant
    if quant is not None and quant.activations in ("static", "dynamic"):
        text += ", and leaves out the error that quantized activations add when served"
    yield Value(text + ".", "evaluation.json")


def _activations(checkpoint: Checkpoint, plan: Plan | None) -> Iterator[Value]:
    quant = checkpoint.quant
    if quant is None or quant.activations != "static":
        return
    modules = quantized_modules(checkpoint)
    bare = len(modules) - stores_input_scales(modules)
    if bare:
        yield Value(
            f"{count(bare)} of {count(len(modules))} quantized modules store no input scale although the configuration "
            "declares static activations; vLLM reads uninitialised memory there.",
            "shard headers",
        )
    if plan is not None and (plan.recipe.calibration is not None or plan.recipe.statistics is not None):
        yield Value(
            "Activation scales were calibrated on one data set (see Recipe); inputs far from it, other languages for "
            "instance, may exceed the calibrated range.",
            "recipe.yaml: calibration" if plan.recipe.calibration is not None else "recipe.yaml: statistics",
        )


def _cache(checkpoint: Checkpoint) -> Iterator[Value]:
    quant = checkpoint.quant
    if quant is None or not (quant.kv_cache or "").startswith("fp8"):
        return
    if not kv_scales(checkpoint):
        yield Value(
            "The FP8 KV cache has no stored scales: engines use 1.0, which clips keys and values beyond ±448.",
            "shard headers",
        )


def _parts(checkpoint: Checkpoint, rows: tuple[CoverageRow, ...]) -> Iterator[Value]:
    roles = {row.role for row in rows if not row.quantized}
    if has_vision(checkpoint.config) or roles & {"vision", "projector"}:
        yield Value("Image input was not tested by this program.", "config.json: vision_config")
    if "mtp" in roles:
        yield Value(
            "The multi-token-prediction layers are stored unquantized; check that your engine builds them so.",
            "shard headers",
        )
    stray = sum(row.modules - (row.listed or 0) for row in rows if row.role not in ("embedding", "norm", "router")
                and not row.quantized and row.listed is not None)  # fmt: skip
    if stray:
        yield Value(
            f"{count(stray)} modules are stored unquantized without being named in the exclude list (see Coverage); "
            "an engine that builds them as quantized cannot load them.",
            "shard headers",
        )


def _pruned(checkpoint: Checkpoint, plan: Plan | None) -> Iterator[Value]:
    pattern = pattern_of(checkpoint, plan)
    if pattern is not None:
        yield Value(
            f"Weights were pruned ({pattern}) as well as quantized; engines compute with the zeros as with any other "
            "value, so pruning makes it neither smaller nor faster there.",
            "config.json: sparsity",
        )


def _engines(commands: tuple[Command, ...]) -> Iterator[Value]:
    untested = [command.engine for command in commands if command.verified is None]
    if not commands:
        yield Value("No serving engine is known to load this layout with these activations.", "engines/serving.json")
    elif untested:
        yield Value(f"Serving was not tested by the publisher with {_any_of(untested)}.", "card.toml: serving.verified")


def _any_of(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
