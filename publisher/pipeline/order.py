"""What to do, and what is known of it before anything is done: the source pinned, its headers read, the plan made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from publisher import jsonio, licence
from publisher.card import person, upstream
from publisher.checkpoint import source as sources
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.errors import PublisherError
from publisher.hub.target import Manner
from publisher.journal import Journal
from publisher.pipeline.progress import Told
from publisher.plan.decide import make_plan
from publisher.plan.model import Plan, Recipe, TargetSpec

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
        device: auto, cpu, cuda:N or all.
        workers: processes that quantize; None lets the engine choose.
        on_nan: refuse or keep weights that hold NaN or infinities.
        level: headers, scales or full.
        manner: tag, branch and pull request of the push.
    """

    recipe: Recipe | None = None
    checkpoint: Path | None = None
    source: str = ""
    card: Path | None = None
    target: TargetSpec | None = None
    to: str = "hf"
    waivers: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    workers: int | None = None
    on_nan: str = "refuse"
    level: str = "full"
    manner: Manner = field(default_factory=Manner)

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
    original = open_checkpoint(source.files, progress=Told(tell, "plan", "shards"))
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


def with_target(order: Order, *, repo: str | None, gate: str | None, private: bool) -> Order:
    """The order with what the command line says about the target."""
    target = order.target
    if repo:
        target = replace(target, repo=repo) if target else TargetSpec(repo=repo)
    if target is not None:
        target = replace(target, gate=gate or target.gate, private=private or target.private)
    return replace(order, target=target)
