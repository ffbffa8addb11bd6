"""Running rules over the evidence: each subject once, shown to every rule that asks for its kind."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from publisher import __version__
from publisher.errors import PublisherError
from publisher.findings import ERROR, INFO, WARNING, Finding, NotRun, Report
from publisher.rules.outcome import ENDS, Outcome, unfinished
from publisher.rules.registry import checked_waivers, chosen, load_rules
from publisher.subjects import (
    KINDS,
    LEVELS,
    BlockScales,
    Compared,
    Evidence,
    FusedGroup,
    Meter,
    Payload,
    Plain,
    Untouched,
    lacking,
    stream,
)
from publisher.verdict import verdicts

_ORDER = {ERROR: 0, WARNING: 1, INFO: 2}


def evidence_asked(evidence: Evidence, level: str, select: Collection[str] = ()) -> frozenset[type]:
    """The kinds of evidence that `run` with these arguments looks at."""
    asked = {load_rules()[code].evidence for code in chosen(select)}
    return frozenset(kind for kind in asked if lacking(kind, evidence, level) is None)


def run(
    evidence: Evidence,
    *,
    level: str = "scales",
    select: Collection[str] = (),
    ignore: Collection[str] = (),
    waivers: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    left_out: str = "left out by request",
) -> Report:
    """Run the rules over the evidence.

    Args:
        evidence: the checkpoint and what there is beside it.
        level: headers reads no tensor, scales reads the scales, full reads everything a rule asks for.
        select: codes, prefixes or slugs of the rules to run; all when empty.
        ignore: the same for rules to leave out.
        waivers: code to reason; a waived finding stays in the report and does not block.
        progress: called with (bytes done, bytes in all) while scales are read.
        left_out: the reason given for rules that `select` and `ignore` leave out.

    Raises:
        PublisherError: an unknown level, rule or waiver.
        AccessError: the Hub refuses what is to be read.
        HubError: the network fails; running again goes on.
    """
    if level not in LEVELS:
        raise PublisherError(f"There is no level {level[:40]!r}.", hint=f"Levels are {', '.join(LEVELS)}.")
    reasons, codes, began = checked_waivers(waivers or {}), chosen(select, ignore), time.monotonic()
    not_run: dict[str, str] = {code: left_out for code in load_rules() if code not in codes}
    outcomes: dict[type, list[Outcome]] = {}
    for code in sorted(codes):
        known = load_rules()[code]
        missing = lacking(known.evidence, evidence, level)
        if missing is not None:
            not_run[code] = missing
        else:
            outcomes.setdefault(known.evidence, []).append(Outcome(known))
    meter = Meter(progress=progress, bytes_read=_opened(evidence))
    counts = _look(evidence, outcomes, meter, level)
    report = _report(outcomes, not_run, reasons, counts, meter, time.monotonic() - began)
    return dataclasses.replace(report, engines=verdicts(evidence.checkpoint, report, _deciding()))


def _deciding() -> dict[str, tuple[str, ...]]:
    """Rules of the checkpoint itself whose findings are errors, with the engines they break."""
    return {
        code: known.engines
        for code, known in load_rules().items()
        if known.severity is ERROR and not KINDS[known.evidence].source and not KINDS[known.evidence].card
    }


def _look(evidence: Evidence, outcomes: Mapping[type, list[Outcome]], meter: Meter, level: str) -> Counter[str]:
    counts = Counter(shards=len(evidence.checkpoint.shards), tensors=len(evidence.checkpoint.tensors))
    counts["modules"] = len(evidence.checkpoint.modules)
    try:
        for subject in stream(evidence, outcomes, meter, level):
            if isinstance(subject, BlockScales | FusedGroup | Payload | Plain | Compared | Untouched):
                counts[KINDS[type(subject)].noun] += 1
            for outcome in outcomes[type(subject)]:
                outcome.look(subject)
    except ENDS:
        raise
    except PublisherError as error:
        for outcome in (o for kind in outcomes for o in outcomes[kind] if KINDS[kind].level != "headers"):
            outcome.failed = str(error)
    return counts


def _opened(evidence: Evidence) -> int:
    """Bytes that opening the checkpoint read: the headers and the JSON documents."""
    headers = sum(header.data_start for header in evidence.checkpoint.shards.values())
    sizes = evidence.checkpoint.files.sizes
    documents = ("config.json", "hf_quant_config.json", "model.safetensors.index.json")
    return headers + sum(sizes.get(name, 0) for name in documents)


def _report(
    outcomes: Mapping[type, list[Outcome]],
    not_run: dict[str, str],
    reasons: Mapping[str, str],
    counts: Counter[str],
    meter: Meter,
    seconds: float,
) -> Report:
    findings: list[Finding] = []
    ran: list[str] = []
    for outcome in (outcome for group in outcomes.values() for outcome in group):
        code, reason = outcome.rule.code, unfinished(outcome, meter)
        findings += (dataclasses.replace(f, waived=reasons.get(code)) for f in outcome.all())
        if reason is None:
            ran.append(code)
        else:
            not_run[code] = reason
    findings.sort(key=lambda finding: (_ORDER[finding.severity], finding.code))
    return Report(
        findings=tuple(findings),
        not_run=tuple(NotRun(code=code, reason=not_run[code]) for code in sorted(not_run)),
        rules_run=tuple(sorted(ran)),
        waivers=dict(reasons),
        bytes_read=meter.bytes_read,
        seconds=seconds,
        subjects=dict(counts),
        tool={"name": "fp4-publisher", "version": __version__},
        measured=meter.measured,
    )
