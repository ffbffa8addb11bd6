"""The stages in order: plan, quantize, validate, evaluate, card, manifest, push.

Each stage is a function of what the stages before it left in the run directory, and leaves one file there. A stage is
skipped when the digest of its inputs equals the stamp of the last run, so a run that was killed goes on where it
stopped and a finished one does nothing but prove itself again. Nothing is published that the rules refuse.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from publisher import __version__, jsonio, licence, rules
from publisher import manifest as manifests
from publisher.card import context, person, render, upstream
from publisher.checkpoint import source as sources
from publisher.checkpoint.files import Files, LocalFiles
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.custody import Custody
from publisher.engines import ENGINES
from publisher.engines.base import write_job
from publisher.engines.run import run_job
from publisher.errors import CheckpointError, FindingsError, HubError, InterruptedRun, PublisherError
from publisher.evals import hub as scores
from publisher.findings import Report
from publisher.hub import folder, huggingface
from publisher.hub.intention import intend
from publisher.hub.push import PushRecord, push
from publisher.hub.target import Publication, Target
from publisher.journal import Event, Journal, RunDirectory
from publisher.plan import preflight
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan, Recipe, TargetSpec
from publisher.plan.recipe import recipe_to_yaml
from publisher.reports.files import render as render_report
from publisher.reports.overview import look
from publisher.reports.validation import Validation
from publisher.subjects import Evidence

STAGES = ("plan", "quantize", "validate", "evaluate", "card", "manifest", "push")
RUNS = Path(".publisher/runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to do: a recipe to run, or a checkpoint made elsewhere to publish.

    Args:
        recipe: what to quantize and how; None for a checkpoint made elsewhere.
        checkpoint: the folder of a checkpoint made elsewhere; None with a recipe.
        source: the source of a checkpoint made elsewhere, a folder or `hf://org/name[@revision]`.
        card: card.toml of a checkpoint made elsewhere.
        target: repository, gate and visibility; None when nothing is published.
        to: `hf`, or `folder:DIR`.
        waivers: rule code to the reason it is waived for.
        device: auto, cpu or cuda:N.
        level: headers, scales or full.
    """

    recipe: Recipe | None = None
    checkpoint: Path | None = None
    source: str = ""
    card: Path | None = None
    target: TargetSpec | None = None
    to: str = "hf"
    waivers: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    level: str = "full"

    @property
    def source_spec(self) -> str:
        """The source as the user wrote it."""
        return self.recipe.source if self.recipe else self.source

    @property
    def card_path(self) -> Path | None:
        """The person's part of the card."""
        return self.recipe.card if self.recipe else self.card


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An order with its source pinned and, for a recipe, its plan made."""

    order: Order
    source: sources.Source
    original: Checkpoint
    plan: Plan | None

    @property
    def default_directory(self) -> Path:
        """`.publisher/runs/<recipe name>-<plan digest>`."""
        if self.plan is not None:
            return RUNS / f"{self.plan.recipe.name}-{self.plan.digest[:12]}"
        place = self.order.checkpoint or Path()
        return RUNS / f"{place.name}-{jsonio.digest([str(place.absolute()), self.source.label])[:12]}"


def prepare(order: Order, *, journal: Journal | None = None) -> Prepared:
    """Pin the source, read its headers, make the plan; nothing is downloaded, nothing written.

    Raises:
        PublisherError: no such source, no access, no checkpoint.
    """
    tell = journal or Journal(None)
    tell.emit("plan", "start", message=f"reading the headers of {order.source_spec}")
    source = sources.resolve(order.source_spec, tell=lambda message: tell.emit("plan", "warning", message=message))
    original = open_checkpoint(source.files, progress=_Progress(tell, "plan", "shards"))
    plan = make_plan(order.recipe, original, commit=source.commit) if order.recipe else None
    return Prepared(order=order, source=source, original=original, plan=plan)


def require_plan(plan: Plan) -> None:
    """Refuse a plan that cannot work.

    Raises:
        PublisherError: naming every problem.
    """
    if plan.problems:
        raise PublisherError(
            "This plan cannot work: " + ". ".join(problem.rstrip(".") for problem in plan.problems) + ".",
            hint="Mend the recipe or the source.",
        )


def base_model(prepared: Prepared) -> upstream.Upstream:
    """What the source's own card and the person say about the base model.

    Raises:
        PublisherError: nobody says which Hub model the source is, or card.toml cannot be read.
    """
    said = person.read_person(prepared.order.card_path)
    return upstream.read_upstream(prepared.source, prepared.original, said)


def licence_advice(prepared: Prepared) -> tuple[licence.Licence, list[str]]:
    """The source's terms, and what they will ask of the publication that is ordered.

    Raises:
        CheckpointError: a file of terms cannot be read.
    """
    terms, target = licence.read(prepared.source.files), prepared.order.target
    opened = target is not None and target.gate == "off" and not target.private
    gated = prepared.source.gate in ("auto", "manual")
    return terms, list(licence.advice(terms, repo=target.repo if target else None, open_copy=gated and opened))


def require_words(prepared: Prepared) -> None:
    """Refuse, before any work, what the card will need and only a person can say; nothing is needed without a target.

    Raises:
        PublisherError: as `base_model`.
    """
    if prepared.order.target is not None:
        base_model(prepared)


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

    # --- stages ------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Write down what will happen; refuse what cannot work, the card's missing words included."""
        plan = self.prepared.plan
        self._require_apart()
        for sentence in licence_advice(self.prepared)[1]:  # what cannot be copied is known before the work
            self.journal.emit("plan", "warning", message=sentence)
        require_words(self.prepared)
        if plan is None:
            return
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
        stamp = self._made_from()
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
        checkpoint = open_checkpoint(self.directory.checkpoint)
        report = self._rules(
            checkpoint,
            ignore=("LC",),
            level=self.prepared.order.level,
            left_out="judged last, on the card and the licence",
            card=False,  # what lies there is of an earlier run
        )
        self._write_report(self.directory.report, report)
        self._write_page(checkpoint, report)
        self.journal.emit("validate", "done", message=_outcome(report))
        self._require(report, self.directory.report)
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
        stamp = jsonio.digest([job, self._made_from()])
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
        self.journal.emit("card", "done", message=str(checkpoint / "README.md"))

    def manifest(self) -> None:
        """List every file with its digest, then run the publication rules on what will be published."""
        checkpoint = self.directory.checkpoint
        (checkpoint / manifests.NAME).unlink(missing_ok=True)
        jsonio.sweep(checkpoint)
        later = ["README.md", *scores.written(checkpoint), *licence.published_paths(self.prepared.source.files)]
        self.custody.require_nothing_added(later)
        self.journal.emit("manifest", "start", message="taking the digest of every file")
        progress = _Progress(self.journal, "manifest", "bytes")

        built = manifests.build(checkpoint, self._provenance(), known=self.custody.known_digests(), progress=progress)
        self.custody.require_same(built)
        self.custody.remember(built)
        self._write(checkpoint / manifests.NAME, built.encoded().decode())
        finished = open_checkpoint(checkpoint)
        report = self._rules(finished, select=("LC",), level="headers", left_out="ran before the card was written")
        self._write_report(self.directory.publication, report)
        self.journal.emit(
            "manifest",
            "done",
            message=f"root digest {built.root_digest[:16]}…; {_outcome(report, left_out=False)} on card and licence",
        )
        self._require(report, self.directory.publication)

    def push(self) -> PushRecord:
        """Publish, and prove what arrived."""
        target, publication = self.target(), self.publication()

        def emit(kind: str, payload: Mapping[str, Any]) -> None:
            message = payload.get("message") or payload.get("step", "")
            self.journal.emit("push", kind, **{**payload, "message": message})

        record = push(target, publication, emit=emit)
        self._write(self.directory.push, jsonio.dump_json(record.to_json()))
        self.journal.emit("push", "done", message=f"verified: {record.url}", record=record.to_json())
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

            self._folder = sources.fetch(source, progress=_Progress(self.journal, "quantize", "bytes"))
        return self._folder

    def target(self) -> Target:
        """Where to publish.

        Raises:
            PublisherError: no repository is named, or the target is none we know.
        """
        order = self.prepared.order
        if order.target is None:
            raise PublisherError(
                "No repository to publish to is named.", hint="Give --repo org/name, or `target: {repo: org/name}`."
            )
        if order.to == "hf":
            return huggingface.HuggingFaceTarget(order.target.repo)
        kind, _, path = order.to.partition(":")
        if kind == "folder" and path:
            return folder.FolderTarget(Path(path), order.target.repo)
        raise PublisherError(f"{order.to!r} is no target.", hint="Write --to hf or --to folder:DIR.")

    def publication(self) -> Publication:
        """The finished checkpoint with the settings it shall end with."""
        target = self.prepared.order.target or TargetSpec(repo="")
        return Publication(
            folder=self.directory.checkpoint,
            manifest=manifests.read(self.directory.checkpoint / manifests.NAME),
            gate=target.gate,  # type: ignore[arg-type]  # the schema and the option allow nothing else
            private=target.private,
        )

    def card_context(self) -> context.CardContext:
        """Everything the card prints, computed from files."""
        order = self.prepared.order
        return context.card_context(
            checkpoint=open_checkpoint(self.directory.checkpoint),
            original=self.prepared.original,
            source=self.prepared.source,
            plan=self.prepared.plan,
            report=_document(self.directory.report),
            quantize=_document(self.directory.quantize),
            evaluation=_document(self.directory.evaluation),
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

    def _rules(
        self,
        checkpoint: Checkpoint,
        *,
        select: tuple[str, ...] = (),
        ignore: tuple[str, ...] = (),
        level: str,
        left_out: str,
        card: bool | None = None,
    ) -> Report:
        order = self.prepared.order
        evidence = Evidence(
            checkpoint=checkpoint,
            source=self.prepared.original,
            base_model=base_model(self.prepared).repo.text if order.target else self.prepared.source.repo,
            gate=order.target.gate if order.target else None,
            card=card,
            repo=order.target.repo if order.target else None,
            source_gate="off" if order.target and order.target.private else self.prepared.source.gate,
        )
        progress = _Progress(self.journal, "validate", "bytes")
        return rules.run(
            evidence,
            level=level,
            select=select,
            ignore=ignore,
            waivers=order.waivers,
            progress=progress,
            left_out=left_out,
        )

    def _require(self, report: Report, path: Path) -> None:
        if not report.publishable:
            codes = ", ".join(sorted({finding.code for finding in report.errors}))
            first = report.errors[0]
            raise FindingsError(
                f"The checkpoint is not publishable: {len(report.errors)} errors ({codes}); the first: {first.message}",
                hint=f"See {path}; waive one with --ignore CODE=reason only when you know why.",
            )

    def _run_engine(self, plan: Plan) -> None:
        engine = ENGINES[plan.recipe.engine]
        preflight.refuse(preflight.preflight(plan, self.directory.path))
        self.journal.emit("quantize", "start", message=f"engine {plan.recipe.engine}")
        write_job(
            engine,
            self.directory.job,
            plan=plan,
            source_dir=self.folder.absolute(),
            output=self.directory.checkpoint.absolute(),
            staging=self.directory.staging.absolute(),
            device=self.prepared.order.device,
        )
        run_job(engine.command(self.directory.job), self.journal, stage="quantize")
        self.journal.emit("quantize", "done", message=str(self.directory.checkpoint))

    def _adopt(self) -> None:
        """Take over a checkpoint that was made elsewhere: hard links for shards, copies for the rest."""
        place = self.prepared.order.checkpoint
        if place is None:
            raise PublisherError("Neither a recipe nor a checkpoint is given.", hint="See `publisher push --help`.")
        files, staging = LocalFiles(place), self.directory.staging
        shutil.rmtree(staging, ignore_errors=True)
        for name in files.sizes:
            if name in ("README.md", manifests.NAME):
                continue
            goal = staging / name
            goal.parent.mkdir(parents=True, exist_ok=True)
            _link(place / name, goal)
        staging.rename(self.directory.checkpoint)
        self.journal.emit("quantize", "done", message=f"took over {place}")

    def _made_from(self) -> str:
        """Digest of what the checkpoint is made from: the plan and the source's files."""
        source = self.prepared.source
        plan = self.prepared.plan.digest if self.prepared.plan else None
        place = self.prepared.order.checkpoint
        made = None if place is None else _fingerprint(LocalFiles(place))
        origin = source.commit or _fingerprint(source.files)
        recipe = self.prepared.order.recipe
        measured = [_digest_of(recipe.statistics)] if recipe and recipe.statistics else []
        return jsonio.digest([plan, origin, made, *measured])

    def _provenance(self) -> manifests.Provenance:
        made = (_document(self.directory.quantize) or {}).get("versions") or {}
        versions = {name: version for name, version in made.items() if name != "publisher"}
        recipe, source = self.prepared.order.recipe, self.prepared.source
        report = jsonio.digest(jsonio.load_json(self.directory.report))
        return manifests.Provenance(
            source_repo=source.repo,
            source_commit=source.commit,
            recipe=recipe.name if recipe else None,
            recipe_digest=recipe.digest if recipe else None,
            engine=recipe.engine if recipe else None,
            engine_version=made.get(recipe.engine, made.get("publisher")) if recipe else None,
            versions={"fp4-publisher": __version__, **versions},
            report_digest=report,
            waivers=dict(self.prepared.order.waivers),
            gate=self.prepared.order.target.gate if self.prepared.order.target else None,
        )

    def _take_custody(self) -> None:
        """Record what the engine made; digests it took while writing are not taken again."""
        shards = (_document(self.directory.quantize) or {}).get("shards")
        rows = shards.items() if isinstance(shards, dict) else ()
        known = {name: row["sha256"] for name, row in rows if isinstance(row, dict) and "sha256" in row}
        self.custody.take(known, _Progress(self.journal, "quantize", "bytes"))

    def _require_apart(self) -> None:
        """Refuse a run inside what it reads: its own files would be published with the rest."""
        inside = [self.prepared.source.folder, self.prepared.order.checkpoint]
        outputs = {"run directory": self.directory.path}
        if self.prepared.order.target is not None and self.prepared.order.to.startswith("folder:"):
            outputs["target"] = Path(self.prepared.order.to.removeprefix("folder:"))
        for name, path in outputs.items():
            for read in filter(None, inside):
                place, outer = path.resolve(), read.resolve()
                hidden = place.is_relative_to(outer) and any(p.startswith(".") for p in place.relative_to(outer).parts)
                if place.is_relative_to(outer) and not hidden:
                    raise PublisherError(
                        f"The {name} {path} lies in {read}, whose files are published.",
                        hint=f"Name a {name} outside it.",
                    )

    def _write_report(self, path: Path, report: Report) -> None:
        """Keep the report of an earlier run that found the same: the manifest names its digest."""
        new, old = report.to_json(), _document(path)
        if old is None or _timeless(old) != _timeless(new):
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


class _Progress:
    """Tells the journal how far a stage is: what, of how much, how fast, how long still; twice a second at most."""

    def __init__(self, journal: Journal, stage: str, unit: str) -> None:
        self.journal, self.stage, self.unit = journal, stage, unit
        self.started = self.told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.told < 0.5:
            return
        self.told = now
        rate = done / max(now - self.started, 1e-9)
        left = (total - done) / rate if rate else None
        self.journal.emit(self.stage, "progress", done=done, total=total, unit=self.unit, rate=rate, eta=left)


def run(
    prepared: Prepared, directory: RunDirectory, listener: Callable[[Event], None] | None = None, *, until: str = "push"
) -> Run:
    """Run the stages up to and including `until`, skipping what is finished.

    Args:
        prepared: what to do.
        directory: where to work.
        listener: called with every event.
        until: the last stage.

    Raises:
        FindingsError: the rules refuse the checkpoint.
        InterruptedRun: stopped on request; running again goes on.
        PublisherError: any other stage failed; what is finished is kept.
    """
    directory.lock()
    state: dict[str, Any] = {"status": "running", "pid": os.getpid(), "started": time.time(), "command": sys.argv[1:]}
    journal = Journal(directory.events, listener)
    _save(directory, state)
    work = Run(prepared=prepared, directory=directory, journal=journal)
    stages: dict[str, Callable[[], Any]] = {
        "plan": work.plan,
        "quantize": work.quantize,
        "validate": work.validate,
        "evaluate": work.evaluate,
        "card": work.card,
        "manifest": work.manifest,
        "push": work.push,
    }
    stage = "plan"
    try:
        for stage in STAGES[: STAGES.index(until) + 1]:
            stages[stage]()
            if stage == "plan" and until == "push":
                work.require_access()
    except (KeyboardInterrupt, InterruptedRun):
        journal.emit(stage, "cancelled", message="stopped; run the same command again to go on")
        _save(directory, state, status="interrupted", exit_code=6, message=f"stopped during {stage}")
        raise InterruptedRun(f"Stopped during {stage}.", hint="Run the same command again to go on.") from None
    except PublisherError as error:
        if journal.last_error != error.message:  # a program has told its own already
            journal.emit(stage, "error", message=error.message, hint=error.hint)
        status = "findings" if isinstance(error, FindingsError) else "failed"
        _save(directory, state, status=status, exit_code=error.exit_code, message=error.message, hint=error.hint)
        raise
    except BaseException as error:
        journal.emit(stage, "error", message=f"{type(error).__name__}: {error}")
        _save(directory, state, status="failed", exit_code=2, message=f"{type(error).__name__}: {error}")
        raise
    else:
        _save(directory, state, status="done", exit_code=0, message=f"finished {until}")
    finally:
        directory.unlock()
    return work


def dry_run(work: Run) -> dict[str, Any]:
    """What a push would send and set, without changing anything."""
    return intend(work.target(), work.publication()).to_json()


def record(directory: RunDirectory) -> dict[str, Any]:
    """The record of a finished push, as it lies in the run directory."""
    return _document(directory.push) or {}


def target_at(place: str) -> Target:
    """The target `hf://org/name` or `folder:ROOT/org/name` names.

    Raises:
        PublisherError: neither of the two.
    """
    if place.startswith(sources.SCHEME):
        return huggingface.HuggingFaceTarget(sources.parse_spec(place)[0])
    path = Path(place.removeprefix("folder:"))
    if not place.startswith("folder:") or len(path.parts) < 2:
        raise PublisherError(f"{place!r} is no published place.", hint="Write hf://org/name or folder:ROOT/org/name.")
    return folder.FolderTarget(path.parent.parent, f"{path.parent.name}/{path.name}")


def files_at(place: str) -> Files:
    """What is published at a place of `target_at`, as files that can be opened.

    Raises:
        AccessError: the Hub refuses.
        HubError: the Hub cannot be reached.
        CheckpointError: there is nothing.
    """
    if place.startswith(sources.SCHEME):
        return sources.resolve(sources.SCHEME + sources.parse_spec(place)[0]).files
    return LocalFiles(Path(place.removeprefix("folder:")) / "tree")


def with_target(order: Order, *, repo: str | None, gate: str | None, private: bool) -> Order:
    """The order with what the command line says about the target."""
    target = order.target
    if repo:
        target = replace(target, repo=repo) if target else TargetSpec(repo=repo)
    if target is not None:
        target = replace(target, gate=gate or target.gate, private=private or target.private)
    return replace(order, target=target)


def _save(directory: RunDirectory, state: dict[str, Any], **changes: Any) -> None:
    state.update(changes)
    if state["status"] != "running":
        state["ended"] = time.time()
    jsonio.write_atomic(directory.state, jsonio.dump_json(state))


def _outcome(report: Report, *, left_out: bool = True) -> str:
    told = f"{len(report.rules_run)} rules run, {len(report.errors)} errors, {len(report.warnings)} warnings"
    return f"{told}, {len(report.not_run)} not run" if left_out else told


def _document(path: Path) -> dict[str, Any] | None:
    """A file of the run directory; one that was damaged counts as none, and is made again."""
    try:
        value = jsonio.load_json(path)
    except jsonio.DocumentError:
        return None
    return value if isinstance(value, dict) else None


def _timeless(report: Mapping[str, Any]) -> Any:
    summary = report.get("summary")
    return {**report, "summary": {**summary, "seconds": 0} if isinstance(summary, Mapping) else None}


def _digest_of(path: Path) -> str | None:
    """Digest of a small file's content; None where it cannot be read, which preflight names."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _fingerprint(files: Any) -> str:
    """Digest of names, sizes and times of change: enough to see that a folder is another one than before."""
    rows = []
    for name, size in files.sizes.items():
        path = files.local(name)
        rows.append([name, size, path.stat().st_mtime_ns if path else 0])
    return jsonio.digest(rows)


def _link(origin: Path, goal: Path) -> None:
    """A hard link for a shard, a copy for anything small."""
    if origin.suffix != ".safetensors":
        shutil.copyfile(origin.resolve(), goal)
        return
    try:
        os.link(origin.resolve(), goal)
    except OSError:
        raise CheckpointError(
            f"{origin} cannot be linked into {goal.parent}.",
            hint="Give --run-dir a folder on the same file system as the checkpoint.",
        ) from None
