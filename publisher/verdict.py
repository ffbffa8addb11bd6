"""The verdict per engine: what each version makes of a checkpoint, and which findings or which fact say so.

`refuses` when a finding says that the engine stops at load, or a table that it does not read the layout, the format or
the algorithm; `loads wrong` when an error or a table says it computes something else; `unknown` when nobody read that
version for this layout, or when rules that decide were not run; `loads` otherwise. A waiver changes what is published
and nothing about the engine. Sizes and commands (TP) say how to serve, not whether; only TP10, a list read otherwise,
counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from publisher import jsonio
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.quantconfig import QuantConfig
from publisher.findings import ERROR, Finding, NotRun, Report, Verdict

SUPPORT, ALGORITHMS = "engines/support.json", "engines/algorithms.json"
LABELS = {"vllm": "vLLM", "sglang": "SGLang", "tensorrt-llm": "TensorRT-LLM", "atom": "ATOM"}
FEW = 3  # codes of rules that were not run that are named one by one
# Reasons for which a rule says nothing about the engine: it had nothing to look at, or looks beyond the checkpoint.
_SETTLED = ("nothing to judge", "needs the source", "needs the model card", "needs a ")
_FAILED = "The rule could not finish"


def verdicts(
    checkpoint: Checkpoint, report: Report, deciding: Mapping[str, Sequence[str]] | None = None
) -> tuple[Verdict, ...]:
    """What every known version of every engine makes of the checkpoint.

    Args:
        checkpoint: what was validated.
        report: the outcome of the rules.
        deciding: rules whose findings are errors, by code, with the engines they break.
    """
    return tuple(
        _verdict(row["engine"], row["version"], checkpoint, report, deciding or {})
        for row in jsonio.data(SUPPORT)["engines"]
    )


def lines(found: Iterable[Verdict]) -> list[str]:
    """The verdicts for people, one line a version."""
    return [
        f"{LABELS.get(verdict.engine, verdict.engine)} {verdict.version}: {verdict.verdict}{_said(verdict)}"
        for verdict in found
    ]


def _said(verdict: Verdict) -> str:
    parts = [part for part in (", ".join(verdict.because), verdict.reason) if part]
    return f" ({'; '.join(parts)})" if parts else ""


def _verdict(
    engine: str, version: str, checkpoint: Checkpoint, report: Report, deciding: Mapping[str, Sequence[str]]
) -> Verdict:
    fact, reason = _fact(engine, version, checkpoint)
    counted = [finding for finding in report.findings if _counts(finding)]
    refusing = _codes(finding for finding in counted if engine in finding.refuses)
    wrong = _codes(f for f in counted if engine in f.engines and f.severity is ERROR)
    if fact == "refuses" or refusing:
        return _made(engine, version, "refuses", refusing, reason if fact == "refuses" else "")
    if fact == "unknown":
        return _made(engine, version, "unknown", wrong, reason)
    if wrong or fact == "loads wrong":
        return _made(engine, version, "loads wrong", wrong, reason if fact == "loads wrong" else "")
    open_questions = [entry for entry in report.not_run if engine in deciding.get(entry.code, ()) and _open(entry)]
    if open_questions:
        return _made(engine, version, "unknown", (), _unread(open_questions))
    return _made(engine, version, "loads", (), reason)


def _made(engine: str, version: str, verdict: str, because: tuple[str, ...], reason: str = "") -> Verdict:
    return Verdict(engine=engine, version=version, verdict=verdict, because=because, reason=reason)


def _counts(finding: Finding) -> bool:
    about_serving = finding.code.startswith("TP") and finding.code != "TP10"
    return not about_serving and not finding.message.startswith(_FAILED)


def _codes(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(finding.code for finding in findings))


def _open(entry: NotRun) -> bool:
    return not entry.reason.startswith(_SETTLED) and not entry.code.startswith("TP")


def _unread(entries: Sequence[NotRun]) -> str:
    """The rules that were not run, with what they need."""
    reasons: dict[str, list[str]] = {}
    for entry in entries:
        reasons.setdefault(entry.reason, []).append(entry.code)
    return "not run: " + "; ".join(f"{_few(codes)}, {reason}" for reason, codes in reasons.items())


def _few(codes: Sequence[str]) -> str:
    more = len(codes) - FEW
    return ", ".join(codes[:FEW]) + (f" and {more} more" if more > 0 else "")


# --- facts ----------------------------------------------------------------------------------------------------------


def _fact(engine: str, version: str, checkpoint: Checkpoint) -> tuple[str, str]:
    """What the tables say before any rule has looked: loads, loads wrong, refuses or unknown, and why."""
    quant = checkpoint.quant
    if quant is None:
        return "unknown", "the checkpoint declares no quantization"
    for row in jsonio.data(SUPPORT)["models"].get(str(checkpoint.config.get("model_type")), ()):
        if _meant(row, engine, version, quant) and _has_experts(checkpoint, row.get("experts")):
            return row["verdict"], row.get("reason", "")
    if quant.dialect == "modelopt" and engine in jsonio.data(ALGORITHMS)["versions"]:
        return _algorithm(engine, version, quant)
    for row in jsonio.data(SUPPORT)["layouts"]:
        if _meant(row, engine, version, quant) and _has_experts(checkpoint, row.get("experts")):
            return row["verdict"], row.get("reason", "")
    said = " ".join(part for part in (quant.dialect[:40], quant.format) if part)
    return "unknown", f"nobody read how it loads {said}"


def _meant(row: Mapping[str, Any], engine: str, version: str, quant: QuantConfig) -> bool:
    return (
        row["engine"] == engine
        and row.get("version", version) == version
        and row.get("layout", quant.dialect) == quant.dialect
        and quant.format in row.get("formats", [quant.format])
        and quant.activations in row.get("activations", [quant.activations])
    )


def _has_experts(checkpoint: Checkpoint, asked: bool | str | None) -> bool:
    """Whether experts are stored one by one in FP4, or each with the tensor that is asked for; true if nothing is."""
    experts = (module for name, module in checkpoint.modules.items() if ".experts." in name)
    if isinstance(asked, str):
        return any(asked in module.tensors for module in experts)
    return not asked or any(module.quantized for module in experts)


def _algorithm(engine: str, version: str, quant: QuantConfig) -> tuple[str, str]:
    """Whether a version of an engine accepts modelopt's `quant_algo`."""
    data, algo = jsonio.data(ALGORITHMS), (quant.algo or "").upper()
    if engine in data["unread"].get(algo, ()) or (algo not in data["accepts"] and algo and "FP4" not in algo):
        return "unknown", f"nobody read how it loads {algo}"
    since = data["accepts"].get(algo, {}).get(engine)
    known = list(_since(data["versions"][engine], since))
    if version in known:
        return "loads", ""
    name = f"quant_algo {algo[:40]}" if algo else "a block without quant_algo"
    later = f"; from {since} on it does" if since else ""
    return "refuses", f"it does not accept {name}{later}"


def _since(versions: Sequence[str], first: str | None) -> Iterator[str]:
    yield from versions[versions.index(first) :] if first in versions else ()
