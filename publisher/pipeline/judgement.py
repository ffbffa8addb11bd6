"""The rules, run on what an order makes, and the refusal to publish what they refuse."""

from __future__ import annotations

from pathlib import Path

from publisher import rules
from publisher.checkpoint.open import Checkpoint
from publisher.errors import FindingsError
from publisher.findings import Report
from publisher.journal import Journal
from publisher.pipeline.order import Prepared, base_model
from publisher.pipeline.progress import Told
from publisher.subjects import Evidence


def judge(
    prepared: Prepared,
    journal: Journal,
    checkpoint: Checkpoint,
    *,
    select: tuple[str, ...] = (),
    ignore: tuple[str, ...] = (),
    level: str,
    left_out: str,
    card: bool | None = None,
) -> Report:
    """Run rules with all that an order knows as evidence.

    Args:
        prepared: what was ordered.
        journal: told how far it is.
        checkpoint: what is judged.
        select: codes to run; empty for all.
        ignore: codes to leave out.
        level: headers, scales or full.
        left_out: why, of the rules that are.
        card: whether the card is evidence; None where it is if it is there.
    """
    order = prepared.order
    evidence = Evidence(
        checkpoint=checkpoint,
        source=prepared.original,
        base_model=base_model(prepared).repo.text if order.target else prepared.source.repo,
        gate=order.target.gate if order.target else None,
        card=card,
        repo=order.target.repo if order.target else None,
        source_gate="off" if order.target and order.target.private else prepared.source.gate,
    )
    progress = Told(journal, "validate", "bytes")
    return rules.run(
        evidence,
        level=level,
        select=select,
        ignore=ignore,
        waivers=order.waivers,
        progress=progress,
        left_out=left_out,
    )


def require_publishable(report: Report, path: Path) -> None:
    """Refuse to go on with what the rules refuse.

    Raises:
        FindingsError: naming the first finding and where the others are.
    """
    if not report.publishable:
        codes = ", ".join(sorted({finding.code for finding in report.errors}))
        first = report.errors[0]
        raise FindingsError(
            f"The checkpoint is not publishable: {len(report.errors)} error(s) ({codes}); the first: {first.message}",
            hint=f"See {path}; waive one with --ignore CODE=reason only when you know why.",
        )
