"""`--on-nan keep`: the weights are read once before the plan is final, and what is not finite is kept.

What was found is remembered in the run directory, so that going on after a stop does not read everything again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.checkpoint.open import open_checkpoint
from publisher.journal import Journal, RunDirectory
from publisher.pipeline.documents import document, fingerprint
from publisher.pipeline.order import Prepared, require_plan
from publisher.pipeline.progress import Told
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan
from publisher.plan.notfinite import kept_whole, not_finite, without

NAME = "scan.json"


def keep_what_is_not_finite(
    prepared: Prepared, plan: Plan, directory: RunDirectory, folder: Path, journal: Journal
) -> tuple[Prepared, dict[str, int]]:
    """The order with its final plan, and which modules hold how many values that are not finite.

    Raises:
        PublisherError: the plan cannot work, before or after.
        CheckpointError: the source cannot be read.
    """
    require_plan(plan)
    found = _found(prepared, plan, directory, folder, journal)
    if not found:
        return prepared, {}
    kept = kept_whole(plan, found)
    final = make_plan(without(plan.recipe, kept), prepared.original, commit=plan.source_commit)
    first = next(iter(found))
    journal.emit(
        "plan",
        "warning",
        message=f"{len(found):,} weights hold NaN or infinite values ({first}: {found[first]:,}); they and what is "
        f"loaded with them, {len(kept):,} modules, are kept as the source has them",
        modules=list(found)[:100],
        kept=len(kept),
    )
    return replace(prepared, plan=final), found


def _found(prepared: Prepared, plan: Plan, directory: RunDirectory, folder: Path, journal: Journal) -> dict[str, int]:
    stamp = [plan.digest, prepared.source.commit or fingerprint(prepared.source.files)]
    before: dict[str, Any] = document(directory.path / NAME) or {}
    known = before.get("not_finite")
    if before.get("of") == stamp and isinstance(known, dict) and all(type(n) is int for n in known.values()):
        return known
    journal.emit("plan", "log", message="looking for weights that are not finite")
    found = not_finite(plan, open_checkpoint(folder), progress=Told(journal, "plan", "bytes"))
    jsonio.write_atomic(directory.path / NAME, jsonio.dump_json({"of": stamp, "not_finite": found}))
    return found
