"""A comparison as one JSON document: unrounded figures, so that nothing has to be read off a table."""

from __future__ import annotations

from typing import Any

from publisher.evals import protocol
from publisher.evals.comparison import Comparison, Delta, Estimate, Line
from publisher.evals.results import Run


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Everything a comparison holds; percentages as numbers of 0 to 100, confidence and recovery as parts of one."""
    return {
        "result": comparison.result,
        "baselines": list(comparison.baselines),
        "scores": [_line(comparison, line) for line in comparison.lines],
        "average": _line(comparison, comparison.average) if comparison.average else None,
        "notes": list(comparison.notes),
        "runs": [_run(run) for run in comparison.runs],
    }


def _line(comparison: Comparison, line: Line) -> dict[str, Any]:
    return {
        "task": line.key.task if line.key else None,
        "metric": line.key.metric if line.key else None,
        "filter": line.key.filter if line.key else None,
        "unit": "percent" if line.percent else None,
        "higher_is_better": line.higher_is_better,
        "partial": line.partial,
        "averaged": line.of if line.key is None else None,
        "result": _estimate(line.result),
        "baselines": [
            {"label": label, **_estimate(estimate), "delta": _delta(delta)}
            for label, estimate, delta in zip(comparison.baselines, line.baselines, line.deltas, strict=True)
            if estimate is not None
        ],
    }


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "value": estimate.value,
        "stderr": estimate.stderr,
        "deviation": estimate.deviation,
        "runs": estimate.runs,
    }


def _delta(delta: Delta | None) -> dict[str, Any] | None:
    if delta is None:
        return None
    return {
        "value": delta.value,
        "stderr": delta.error.value if delta.error else None,
        "method": delta.error.method if delta.error else None,
        "degrees_of_freedom": delta.error.freedom if delta.error else None,
        "z": delta.z,
        "confidence": delta.confidence,
        "margin95": delta.margin,
        "recovery": delta.recovery,
    }


def _run(run: Run) -> dict[str, Any]:
    return {"file": run.path.name, "model": run.model, "harness": run.harness, "seeds": dict(protocol.seeds(run))}
