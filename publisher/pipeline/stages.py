"""The stages, each a function of what the stages before it left in the run directory, where each leaves one file.

A stage is skipped when the digest of its inputs equals the stamp of the last run, so a run that was killed goes on
where it stopped and a finished one does nothing but prove itself again. Nothing is published that the rules refuse.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from publisher import jsonio, licence
from publisher import manifest as manifests
from publisher.card import context, images, person, render
from publisher.card.facts import facts
from publisher.checkpoint import source as sources
from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.open import DOCUMENTS, Checkpoint, open_checkpoint
from publisher.custody import Custody
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.engines.run import run_job
from publisher.errors import FindingsError, HubError, PublisherError
from publisher.evals import hub as scores
from publisher.findings import Report
from publisher.hub.push import push
from publisher.hub.record import PushRecord
from publisher.hub.target import Publication, Target
from publisher.journal import Journal, RunDirectory
from publisher.pipeline.adopt import adopt, require_apart
from publisher.pipeline.documents import document, fingerprint, outcome, timeless
from publisher.pipeline.finite import keep_what_is_not_finite
from publisher.pipeline.judgement import judge, require_publishable
from publisher.pipeline.order import Prepared, licence_advice, require_plan, require_words
from publisher.pipeline.origin import FACTS, made_from, provenance
from publisher.pipeline.places import ordered
from publisher.pipeline.progress import Told
from publisher.plan import preflight
from publisher.plan.model import Plan, TargetSpec
from publisher.plan.recipe import recipe_to_yaml
from publisher.reports.files import render as render_report
from publisher.reports.overview import look
from publisher.reports.validation import Validation

# A waiver of one of these, published with its reason, speaks for the push too.
TERMS = frozenset({"lc01", "changed-licence", "lc14", "differs-from-manifest"})


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of the stages in its directory.

    Args:
        prepared: what to do.
        directory: where; locked by the caller.
        journal: told of everything.
    """

    prepared: Prepared
    directory: RunDirectory
    journal: Journal
    _folder: Path | None = None
    _not_finite: dict[str, int] = field(default_factory=dict)
    _opened: tuple[str, Checkpoint] | None = None

    # --- stages ------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Write down what will happen; refuse what cannot work, the card's missing words included."""
        plan = self.prepared.plan
        require_apart(self.prepared, self.directory.path)
        for sentence in licence_advice(self.prepared)[1]:  # what cannot be copied is known before the work
            self.journal.emit("plan", "warning", message=sentence)
        require_words(self.prepared)
        if plan is None:
            return
        if self.prepared.order.on_nan == "keep":
            self.prepared, self._not_finite = keep_what_is_not_finite(
                self.prepared, plan, self.directory, self.folder, self.journal
            )
            plan = self.prepared.plan or plan
        self._write(self.directory.recipe, recipe_to_yaml(plan.recipe))
        self._write(self.directory.plan, jsonio.dump_json(plan.to_json()))
        for warning in plan.warnings:
            self.journal.emit("plan", "warning", message=warning)
        require_plan(plan)
        self.journal.emit(
            "plan", "done", message=f"{len(plan.quantized):,} modules to quantize, {len(plan.kept):,} to keep"
        )

    def quantize(self) -> None:
        """Make the checkpoint, or take over one that was made elsewhere."""
        stamp = made_from(self.prepared)
        if self.directory.stamp("quantize") == stamp and self.directory.checkpoint.is_dir():
            self.custody.require_unchanged()
            self.journal.emit("quantize", "skip", message="the checkpoint is finished")
            return
        if self.directory.stamp("quantize") is not None and self.directory.checkpoint.is_dir():
            shutil.rmtree(self.directory.checkpoint)  # made from another source or plan
        if self.prepared.plan is None:
            self._adopt()
        elif not self.directory.checkpoint.is_dir():
            self._run_engine(self.prepared.plan)
        self._take_custody()
        self.directory.set_stamp("quantize", stamp)

    def validate(self) -> Report:
        """Run the checkpoint rules; the card prints their outcome."""
        self.journal.emit("validate", "start", message="checking the checkpoint against the rules")
        checkpoint = self.finished()
        report = judge(
            self.prepared,
            self.journal,
            checkpoint,
            ignore=("LC",),
            level=self.prepared.order.level,
            left_out="judged last, on the card and the licence",
            card=False,  # what lies there is of an earlier run
        )
        self._write_report(self.directory.report, report)
        self._write_page(checkpoint, report)
        self.journal.emit("validate", "done", message=outcome(report))
        require_publishable(report, self.directory.report)
        return report

    def evaluate(self) -> None:
        """Measure the weight-only perplexity, where the recipe names a text."""
        recipe = self.prepared.order.recipe
        if recipe is None or recipe.evaluation is None:
            return
        wanted = recipe.evaluation
        job = {
            "source": str(self.folder),
            "checkpoint": str(self.directory.checkpoint.absolute()),
            "text": str(wanted.data),
            "windows": wanted.windows,
            "length": wanted.length,
            "prompt": wanted.prompt,
            "output": str(self.directory.evaluation.absolute()),
        }
        stamp = jsonio.digest([job, made_from(self.prepared)])
        if self.directory.stamp("evaluate") == stamp and self.directory.evaluation.exists():
            self.journal.emit("evaluate", "skip", message="the perplexity is measured")
            return
        path = self.directory.path / "evaluate.json"
        jsonio.write_atomic(path, jsonio.dump_json(job))
        run_job([sys.executable, "-m", "publisher.native.evaluate", str(path)], self.journal, stage="evaluate")
        self.directory.set_stamp("evaluate", stamp)

    def card(self) -> None:
        """Copy the licence byte for byte and render the card from what the files say."""
        checkpoint = self.directory.checkpoint
        self._copy_licence(checkpoint)
        found = self.card_context()
        self._write(checkpoint / "README.md", render.render(found))
        scores.write(checkpoint, found.benchmarks.files if found.benchmarks else {})
        images.write(checkpoint, found.pictures)
        self._write(self.directory.path / FACTS, jsonio.dump_json({"facts": facts(found)}))
        self.journal.emit("card", "done", message=str(checkpoint / "README.md"))

    def manifest(self) -> None:
        """List every file with its digest, then run the publication rules on what will be published."""
        checkpoint = self.directory.checkpoint
        (checkpoint / manifests.NAME).unlink(missing_ok=True)
        jsonio.sweep(checkpoint)
        later = ["README.md", *scores.written(checkpoint), *images.written(checkpoint)]
        later += licence.published_paths(self.prepared.source.files)
        self.custody.require_nothing_added(later)
        self.journal.emit("manifest", "start", message="taking the digest of every file")
        progress = Told(self.journal, "manifest", "bytes")

        built = manifests.build(
            checkpoint, provenance(self.prepared, self.directory), known=self.custody.known_digests(), progress=progress
        )
        self.custody.require_same(built)
        self.custody.remember(built)
        self._write(checkpoint / manifests.NAME, built.encoded().decode())
        finished = self.finished()
        report = judge(
            self.prepared,
            self.journal,
            finished,
            select=("LC", "SD05", "SD09"),  # the card and the scores may hold secrets too
            level="headers",
            left_out="ran before the card was written",
        )
        self._write_report(self.directory.publication, report)
        self.journal.emit(
            "manifest",
            "done",
            message=f"root digest {built.root_digest[:16]}…; {outcome(report, left_out=False)} on card and licence",
        )
        require_publishable(report, self.directory.publication)

    def push(self) -> PushRecord:
        """Publish, and prove what arrived."""
        target, publication = self.target(), self.publication()

        def emit(kind: str, payload: Mapping[str, Any]) -> None:
            message = payload.get("message") or payload.get("step", "")
            self.journal.emit("push", kind, **{**payload, "message": message})

        record = push(target, publication, emit=emit)
        self._write(self.directory.push, jsonio.dump_json(record.to_json()))
        told = f"verified: {record.url}" if record.released else f"verified, not merged: {record.pull_request}"
        self.journal.emit("push", "done", message=told, record=record.to_json())
        return record

    # --- what the stages share ---------------------------------------------------------------------------------

    def require_access(self) -> None:
        """Refuse, before any work, a login that may not publish; a Hub that cannot be asked now may answer later.

        Raises:
            AccessError: no token, or no permission.
        """
        try:
            self.target().require_access()
        except HubError as error:
            self.journal.emit("plan", "warning", message=f"not known whether this login may publish: {error.message}")

    @property
    def custody(self) -> Custody:
        """Watches over what the engine made."""
        return Custody(self.directory.checkpoint, self.directory.path)

    @property
    def folder(self) -> Path:
        """The source as a folder; downloaded when it is first needed."""
        if self._folder is None:
            source = self.prepared.source
            if source.folder is None:
                self.journal.emit("quantize", "log", message=f"downloading {source.label}")

            self._folder = sources.fetch(source, progress=Told(self.journal, "quantize", "bytes"))
        return self._folder

    def finished(self) -> Checkpoint:
        """The checkpoint with the files that lie beside it now; headers are read once, while nothing changes them.

        Raises:
            CheckpointError: it is damaged.
        """
        files = LocalFiles(self.directory.checkpoint)
        parsed = [name for name in files.sizes if name.endswith((".safetensors", *DOCUMENTS))]
        state = fingerprint(files, parsed)
        if self._opened is None or self._opened[0] != state:
            self._opened = (state, open_checkpoint(self.directory.checkpoint))
        return replace(self._opened[1], files=files)

    def target(self) -> Target:
        """Where to publish.

        Raises:
            PublisherError: no repository is named, or the target is none we know.
        """
        return ordered(self.prepared.order)

    def publication(self) -> Publication:
        """The finished checkpoint with the settings it shall end with."""
        target = self.prepared.order.target or TargetSpec(repo="")
        return Publication(
            folder=self.directory.checkpoint,
            manifest=manifests.read(self.directory.checkpoint / manifests.NAME),
            gate=target.gate,  # type: ignore[arg-type]  # the schema and the option allow nothing else
            private=target.private,
            checks=(self._not_refused, self._licence_kept),
            **asdict(self.prepared.order.manner),
        )

    def _not_refused(self) -> list[PublisherError]:
        """Reports that hold errors nobody waived; looked at again, for a push may come long after them."""
        reports = (self.directory.report, self.directory.publication)
        return [
            FindingsError(f"{path} is not publishable.", hint="Mend what it names, or waive it.")
            for path in reports
            if (document(path) or {}).get("publishable") is False
        ]

    def _licence_kept(self) -> list[PublisherError]:
        """Files of terms that are not byte for byte the source's, unless that was waived with a reason."""
        if not TERMS.isdisjoint(word.lower() for word in self.prepared.order.waivers):
            return []
        found = licence.compare(self.prepared.source.files, self.directory.checkpoint)
        wrong = [item for item in found if item.kind in ("changed", "missing")]
        return [PublisherError(f"{item} ({self.prepared.source.label}).", hint="Copy the source's.") for item in wrong]

    def card_context(self) -> context.CardContext:
        """Everything the card prints, computed from files."""
        order = self.prepared.order
        return context.card_context(
            checkpoint=self.finished(),
            original=self.prepared.original,
            source=self.prepared.source,
            plan=self.prepared.plan,
            report=document(self.directory.report),
            quantize=document(self.directory.quantize),
            evaluation=document(self.directory.evaluation),
            person=person.read_person(order.card_path),
            target=order.target,
        )

    def _copy_licence(self, checkpoint: Path) -> None:
        """Put the source's terms beside the weights; a checkpoint that came with other terms keeps them for LC01."""
        files = self.prepared.source.files
        changed = [difference for difference in licence.compare(files, checkpoint) if difference.kind == "changed"]
        if changed and self.prepared.plan is None:
            names = ", ".join(difference.path for difference in changed)
            self.journal.emit("card", "warning", message=f"{names} is not the upstream file")
            return
        found = licence.copy(files, checkpoint)
        self.journal.emit("card", "log", message=f"{len(found.files)} licence file(s) copied byte for byte")

    def _adopt(self) -> None:
        """Take over a checkpoint that was made elsewhere."""
        place = self.prepared.order.checkpoint
        if place is None:
            raise PublisherError("Neither a recipe nor a checkpoint is given.", hint="See `publisher push --help`.")
        adopt(place, self.directory.staging, self.directory.checkpoint)
        self.journal.emit("quantize", "done", message=f"took over {place}")

    def _run_engine(self, plan: Plan) -> None:
        engine = ENGINES[plan.recipe.engine]
        order = self.prepared.order
        lacks = preflight.preflight(plan, self.directory.path, device=order.device, workers=order.workers)
        preflight.refuse(lacks)
        self.journal.emit("quantize", "start", message=f"engine {plan.recipe.engine}")
        write_job(
            engine,
            self.directory.job,
            plan=plan,
            source_dir=self.folder.absolute(),
            output=self.directory.checkpoint.absolute(),
            staging=self.directory.staging.absolute(),
            device=order.device,
            workers=order.workers,
            not_finite=self._not_finite,
        )
        run_job(engine.command(self.directory.job), self.journal, stage="quantize")
        self.journal.emit("quantize", "done", message=str(self.directory.checkpoint))

    def _take_custody(self) -> None:
        """Record what the engine made; digests it took while writing are not taken again."""
        shards = (document(self.directory.quantize) or {}).get("shards")
        rows = shards.items() if isinstance(shards, dict) else ()
        known = {name: row["sha256"] for name, row in rows if isinstance(row, dict) and "sha256" in row}
        self.custody.take(known, Told(self.journal, "quantize", "bytes"))

    def _write_report(self, path: Path, report: Report) -> None:
        """Keep the report of an earlier run that found the same: the manifest names its digest."""
        new, old = report.to_json(), document(path)
        if old is None or timeless(old) != timeless(new):
            self._write(path, jsonio.dump_json(new))

    def _write_page(self, checkpoint: Checkpoint, report: Report) -> None:
        """The report as a page to look at, beside the one that programs read."""
        level, recipe = self.prepared.order.level, self.prepared.order.recipe
        overview = look(checkpoint, level=level)
        label = recipe.name if recipe else self.directory.checkpoint.name
        validation = Validation(report=report, label=label, overview=overview)
        self._write(self.directory.report.with_suffix(".html"), render_report("html", validation))

    def _write(self, path: Path, text: str) -> None:
        jsonio.write_atomic(path, text)
