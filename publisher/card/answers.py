"""The questions people ask first below FP4 checkpoints, answered near the top: engine, cache, GPUs, accuracy.

(Discussions of nvidia/GLM-5.2-NVFP4 1 and 2, nvidia/DeepSeek-R1-NVFP4 8, 10 and 15 on the Hub.)
"""

from __future__ import annotations

from collections.abc import Iterator

from publisher.card import formats, record, serving
from publisher.card.benchmarks import Benchmarks
from publisher.card.value import Row, Value
from publisher.checkpoint.open import Checkpoint


def answers(
    checkpoint: Checkpoint,
    commands: tuple[serving.Command, ...],
    chips: str | None,
    measured: tuple[record.Perplexity | None, Benchmarks | None],
    checked: record.Validation | None,
) -> tuple[Row, ...]:
    """One row per question that can be answered.

    Args:
        checkpoint: the result.
        commands: of the engines that load it.
        chips: one sentence on GPUs, None where no table knows the format.
        measured: perplexity and benchmarks, each None where there is none.
        checked: the outcome of the rules.
    """
    return tuple(_rows(checkpoint, commands, chips, measured, checked))


def _rows(
    checkpoint: Checkpoint,
    commands: tuple[serving.Command, ...],
    chips: str | None,
    measured: tuple[record.Perplexity | None, Benchmarks | None],
    checked: record.Validation | None,
) -> Iterator[Row]:
    engines = "; ".join(
        f"{c.engine} {c.version} ({'verified: ' + c.verified if c.verified else 'untested by the publisher'})"
        for c in commands
    )
    yield Row("Which engine, which version?", Value(engines or "none known to load it", serving.TABLE))
    if checkpoint.quant is not None:
        yield Row("Is the KV cache quantized?", Value(formats.kv_text(checkpoint), checkpoint.quant.origin))
    if chips:
        yield Row("Which GPUs?", Value(chips, serving.HARDWARE))
    yield Row("How accurate is it?", _accuracy(measured, checked))
    scored = measured[1]
    if scored is not None or measured[0] is not None:
        how = "the protocol stands under the table of scores" if scored else "the digest of the text stands with them"
        yield Row(
            "Can the figures be repeated?", Value(f"Yes: {how}", record.EVALUATION if not scored else "card.toml")
        )


def _accuracy(measured: tuple[record.Perplexity | None, Benchmarks | None], checked: record.Validation | None) -> Value:
    perplexity, scored = measured
    told = [scored.summary.text] if scored is not None else []
    if perplexity is not None:
        told.append(f"weight-only perplexity {perplexity.result}, source {perplexity.source} ({perplexity.change})")
    accuracy = "; ".join(told) or "not evaluated"
    error = next((row.value.text for row in checked.rows if row.label == "Weight error"), None) if checked else None
    origin = scored.summary.origin if scored else record.EVALUATION
    return Value(f"{accuracy}; weight error {error}" if error else accuracy, origin)
