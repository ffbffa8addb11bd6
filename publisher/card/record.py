"""What the run's own records say: how the checkpoint was made, what the rules found, what was measured.

Every record may be missing (a checkpoint made elsewhere has none) and every key may be: what is not there is not
printed. Paths of the machine that made it are not printed either, only file names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from publisher import jsonio
from publisher.card.environment import RECORD, mapping, number
from publisher.card.value import Row, Value, count, size
from publisher.checkpoint.open import Checkpoint
from publisher.plan.model import Plan

REPORT, EVALUATION = "report.json", "evaluation.json"
ENGINES = {
    "native": "publisher, native engine",
    "modelopt": "NVIDIA Model Optimizer (nvidia-modelopt)",
    "quark": "AMD Quark (amd-quark)",
    "llm-compressor": "LLM Compressor (llmcompressor)",
}
_LIBRARY = {"native": "publisher"}  # whose version is the engine's, where it has another name
_NATIVE_NOTE = "loaders look for that name; the weights were written by the engine named above"


def method_rows(checkpoint: Checkpoint, plan: Plan | None, record: Mapping[str, Any]) -> tuple[Row, ...]:
    """Who quantized, and how."""
    return tuple(_method(checkpoint, plan, record))


def producer(checkpoint: Checkpoint) -> str | None:
    """The producer a configuration declares, with its version."""
    holders = [checkpoint.hf_quant_config or {}, *(declared.raw for declared in checkpoint.declarations)]
    for holder in holders:
        found = holder.get("producer")
        if isinstance(found, Mapping) and isinstance(found.get("name"), str) and found["name"]:
            version = found.get("version")
            return f"{found['name']} {version}" if isinstance(version, str) and version else found["name"]
        if isinstance(holder.get("version"), str) and holder["version"] and holder.get("quant_method") != "modelopt":
            return f"{holder.get('quant_method')} {holder['version']}"
    return None


def _method(checkpoint: Checkpoint, plan: Plan | None, record: Mapping[str, Any]) -> Iterator[Row]:
    engine = record.get("engine") or (plan.recipe.engine if plan else None)
    versions = mapping(record.get("versions"))
    declared = producer(checkpoint)
    if isinstance(engine, str) and engine:
        version = versions.get(_LIBRARY.get(engine, engine))
        named = ENGINES.get(engine, engine)
        text = f"{named} {version}" if isinstance(version, str) and version else named
        yield Row("Quantized by", Value(text, RECORD if record else "plan.json"))
        if engine == "native" and declared and "modelopt" in declared:
            yield Row("Declared producer", Value(f"{declared}; {_NATIVE_NOTE}", "hf_quant_config.json"))
    elif declared:
        yield Row("Declared producer", Value(declared, "hf_quant_config.json"))
    if plan is not None:
        recipe = plan.recipe
        told = jsonio.data("card/keys.json")["modes"].get(recipe.format, {}).get(recipe.mode)
        yield Row("Scales", Value(f"{recipe.mode}: {told}" if told else recipe.mode, "recipe.yaml: mode"))
        yield Row("Recipe digest", Value(f"sha256 {recipe.digest}", "recipe.yaml"))


# --- rules and weight error ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The outcome of the rules, ready to print.

    Args:
        ran: whether the rules looked at the files; otherwise only the engine's own measurement is known.
        rows: numbers.
        remarks: findings that did not block.
        not_run: what was left open.
        waivers: what was waived and why.
    """

    ran: bool
    rows: tuple[Row, ...]
    remarks: tuple[tuple[str, str], ...]
    not_run: tuple[tuple[str, str], ...]
    waivers: tuple[tuple[str, str], ...]


def validation(report: Mapping[str, Any] | None, record: Mapping[str, Any]) -> Validation | None:
    """What the rules and the engine's own measurement say; None where neither is there."""
    rows = [*_outcome(report), *_weight_error(record)] if report else list(_weight_error(record))
    if not rows:
        return None
    findings = [item for item in (report or {}).get("findings", ()) if isinstance(item, Mapping)]
    waivers = mapping(mapping((report or {}).get("summary")).get("waivers"))
    return Validation(
        ran=bool(report) and any(row.label == "Rules" for row in rows),
        rows=tuple(rows),
        remarks=tuple(_remarks(findings)),
        not_run=tuple(_not_run((report or {}).get("not_run", ()))),
        waivers=tuple((str(code), str(reason)) for code, reason in sorted(waivers.items())),
    )


def _not_run(entries: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Codes that share a reason, and the reason."""
    grouped: dict[str, list[str]] = {}
    for entry in entries:
        grouped.setdefault(str(entry.get("reason")), []).append(str(entry.get("code")))
    for reason, codes in grouped.items():
        yield ", ".join(codes), reason


def _outcome(report: Mapping[str, Any]) -> Iterator[Row]:
    summary, tool = mapping(report.get("summary")), mapping(report.get("tool"))
    findings = [item for item in report.get("findings", ()) if isinstance(item, Mapping)]
    failed = {str(f.get("code")) for f in findings if f.get("severity") == "error" and f.get("waived") is None}
    ran, open_ = summary.get("rules_run"), summary.get("rules_not_run")
    if type(ran) is not int:
        return
    text = f"{count(ran)} run, {count(len(failed))} failed"
    text += f", {count(open_)} not run" if type(open_) is int else ""
    yield Row("Rules", Value(text, REPORT))
    errors, warnings = summary.get("errors"), summary.get("warnings")
    waived = sum(finding.get("waived") is not None for finding in findings)
    if type(errors) is int and type(warnings) is int:
        text = f"errors: {count(errors)}, warnings: {count(warnings)}, waived: {count(waived)}"
        yield Row("Findings", Value(text, REPORT))
    read = summary.get("bytes_read")
    if type(read) is int and read > 0:
        yield Row("Bytes read", Value(size(read), REPORT))
    if isinstance(tool.get("name"), str) and isinstance(tool.get("version"), str):
        yield Row("Checked with", Value(f"{tool['name']} {tool['version']}", REPORT))


def _weight_error(record: Mapping[str, Any]) -> Iterator[Row]:
    """Relative RMSE of the dequantized weights, over all quantized modules and of the worst."""
    errors = mapping(record.get("weight_error"))
    overall = number(errors.get("overall"))
    modules = module_errors(record)
    if overall is not None:
        over = f", over {count(len(modules))} modules" if modules else ""
        text = f"{overall:.4f} relative RMSE against the source weights{over}"
        yield Row("Weight error", Value(text, f"{RECORD}: weight_error"))
    if modules:
        worst = max(sorted(modules), key=lambda name: modules[name])
        yield Row("Largest in one module", Value(f"{modules[worst]:.4f}, {worst}", f"{RECORD}: weight_error"))


def module_errors(record: Mapping[str, Any]) -> dict[str, float]:
    """Relative RMSE by module as the engine measured it while writing; empty where it did not."""
    errors = mapping(mapping(record.get("weight_error")).get("modules"))
    return {name: n for name, value in errors.items() if (n := number(value)) is not None}


def measured_errors(report: Mapping[str, Any] | None) -> dict[str, float]:
    """Relative RMSE by module as the rules measured it against the source, on samples of blocks."""
    measured = mapping((report or {}).get("measured"))
    found = {name: number(mapping(numbers).get("rel_rmse")) for name, numbers in measured.items()}
    return {name: value for name, value in found.items() if value is not None}


def _remarks(findings: list[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Per code that did not pass silently: the first message, and how many more there are."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for finding in findings:
        grouped.setdefault(f"{finding.get('code')} {finding.get('slug')}", []).append(finding)
    for code, members in grouped.items():
        more = f" (and {count(len(members) - 1)} more)" if len(members) > 1 else ""
        yield code, f"{members[0].get('severity')}: {members[0].get('message')}{more}"


# --- evaluation ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Perplexity:
    """Weight-only perplexity of source and result on the same windows of the same text."""

    source: Value
    result: Value
    change: Value
    rows: tuple[Row, ...]
    prompt: str | None
    continuation: str | None


def perplexity(evaluation: Mapping[str, Any] | None) -> Perplexity | None:
    """The measurement, None where there is none or one of the two numbers is missing."""
    if not evaluation:
        return None
    before, after = (_measured(evaluation, key) for key in ("source", "checkpoint"))
    if before is None or after is None or before <= 0:
        return None
    prompt, continuation = evaluation.get("prompt"), evaluation.get("continuation")
    both = isinstance(prompt, str) and isinstance(continuation, str) and bool(continuation.strip())
    return Perplexity(
        source=Value(f"{before:.3f}", f"{EVALUATION}: source"),
        result=Value(f"{after:.3f}", f"{EVALUATION}: checkpoint"),
        change=Value(f"{(after - before) / before:+.2%}", EVALUATION),
        rows=tuple(_protocol(evaluation)),
        prompt=prompt if both else None,
        continuation=continuation if both else None,
    )


def _measured(evaluation: Mapping[str, Any], key: str) -> float | None:
    value = evaluation.get(key)
    return number(value.get("perplexity") if isinstance(value, Mapping) else value)


def _protocol(evaluation: Mapping[str, Any]) -> Iterator[Row]:
    windows, length = evaluation.get("windows"), evaluation.get("length")
    if type(windows) is int and type(length) is int:
        yield Row("Windows", Value(f"{count(windows)} of {count(length)} tokens", EVALUATION))
    device, dtype = evaluation.get("device"), evaluation.get("dtype")
    if isinstance(device, str) and isinstance(dtype, str) and device and dtype:
        yield Row("Computed", Value(f"in {dtype} on {device}", EVALUATION))
    text = mapping(evaluation.get("text"))
    name, digest = text.get("name"), text.get("sha256")
    if isinstance(name, str) and name:
        yield Row("Text", Value(PurePath(name).name, f"{EVALUATION}: text"))
    if isinstance(digest, str) and digest:
        yield Row("Text digest", Value(f"sha256 {digest}", f"{EVALUATION}: text"))
