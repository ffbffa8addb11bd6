"""The form filled from a ready recipe: what `publisher recipes write` writes, by the same names.

Fields that a recipe has no word for (where it is published, with how many processes) stay as they were, and so does a
source that somebody typed; everything else becomes the recipe's, so that planning it is planning that recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from publisher import jsonio
from publisher.plan.library import ReadyRecipe, ready_recipe, ready_recipes
from publisher.ui import markup
from publisher.ui.form import LABELS, Form
from publisher.ui.markup import Html

SCRATCH = ""
FIELDS = {  # key of a recipe to field of the form, where they are not called the same
    "format": "number_format",
    "calibration.data": "calibration",
    "calibration.samples": "samples",
    "evaluation.data": "evaluation",
    "target.repo": "repo",
    "target.gate": "gate",
    "target.private": "private",
}
# What a person says of this publication and of this machine; a ready recipe has a word only for some of it.
OWN = ("base_model", "evaluation", "card", "device", "workers", "repo", "gate", "private", "to", "folder")


def choices() -> list[tuple[str, str]]:
    """What the form can start from: nothing, or a ready recipe."""
    return [("From scratch", SCRATCH), *((one.name, one.name) for one in _all())]


def fill(name: str, form: Form) -> Form:
    """The form with everything a ready recipe says in its fields.

    Args:
        name: which; empty for the form's own defaults.
        form: as it stands.

    Raises:
        PublisherError: there is no such recipe.
    """
    document = ready_recipe(name).document if name else {}
    published = {one.document["source"] for one in _all()}
    source = form.source if form.source.strip() not in {"", *published} else str(document.get("source", ""))
    kept = {field: getattr(form, field) for field in OWN}
    said, rest = _divided({key: value for key, value in document.items() if key != "source"})
    return replace(Form(**{**kept, "source": source}), **said, more=jsonio.dump_yaml(rest) if rest else "")


def _divided(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A recipe as fields of the form, and what has no field."""
    said: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in document.items():
        inside = {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {}
        held = inside or {key: value}
        said |= {FIELDS.get(name, name): _typed(one) for name, one in held.items() if name in LABELS}
        left = {name: one for name, one in held.items() if name not in LABELS}
        if left:
            rest[key] = {name.partition(".")[2]: one for name, one in left.items()} if inside else value
    return said, rest


def _typed(value: Any) -> Any:
    """A value as a person would type it: a list one a line."""
    return "\n".join(value) if isinstance(value, list) else value


def told(name: str) -> Html:
    """What a ready recipe follows, in a line, and in full what the card says, what is ours and what is not known."""
    if not name:
        return Html("")
    ready = ready_recipe(name)
    line = (
        f"As {ready.repository}: {ready.title}. {ready.modules:,} matrices, about {ready.gigabytes} GB. "
        f"Made from {ready.base_model}."
    )
    said = (markup.element("p", markup.text(one)) for one in _paragraphs(ready.text))
    return markup.element(
        "div",
        markup.element("p", markup.text(line)),
        markup.details(markup.text("What its card says, and what is ours"), *said),
        kind="page told",
    )


def _paragraphs(text: str) -> list[str]:
    """The comment of a recipe without its line breaks: indented lines belong together, a heading ends with a colon."""
    found: list[str] = []
    before = ""
    for line in (line[1:].removeprefix(" ") for line in text.split("\n") if line.startswith("#")):
        together = before and not before.endswith(":") and line.startswith(" ") >= before.startswith(" ")
        if line.strip() and together:
            found[-1] += f" {line.strip()}"
        elif line.strip():
            found.append(line.strip())
        before = line
    return found


def _all() -> tuple[ReadyRecipe, ...]:
    return tuple(ready_recipes().values())
