"""What a person fills in, as a recipe and as a command line; nothing here runs or reads anything.

The recipe is checked by the same code that reads recipe files, so the page has no opinion of its own about what goes
together. Paths are taken from the folder the page was started in and written absolute, so that the recipe can lie
anywhere; on a Space, where paths are another machine's, they are written as typed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from publisher.errors import PublisherError
from publisher.plan.model import Recipe
from publisher.plan.recipe import recipe_from_mapping, recipe_to_yaml
from publisher.ui.place import require_hub

QUANTIZE = "*.mlp.*_proj"
SAMPLES = 128
FOLDER, HUB = "folder", "hf"
CARD = "card.toml"
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of the first page, as they were typed.

    Args:
        source: a folder, or `hf://org/name[@revision]`.
        base_model: the Hub model a folder holds, `org/name`; empty where the card.toml or the folder says it.
        number_format: nvfp4 or mxfp4.
        engine: native or modelopt.
        quantize: globs, one a line.
        keep: globs, one a line; may be empty.
        calibration: a text or JSONL file; empty for weight-only.
        samples: how many texts of it.
        evaluation: a text file for the perplexity in the card; may be empty.
        card: card.toml; may be empty.
        repo: `org/name`.
        gate: manual, auto or off.
        private: whether the repository stays private.
        to: `folder` or `hf`.
        folder: where the folder target lies.
    """

    source: str
    base_model: str = ""
    number_format: str = "nvfp4"
    engine: str = "native"
    quantize: str = QUANTIZE
    keep: str = ""
    calibration: str = ""
    samples: float = SAMPLES
    evaluation: str = ""
    card: str = ""
    repo: str = ""
    gate: str = "manual"
    private: bool = False
    to: str = FOLDER
    folder: str = "published"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Form:
        """The form out of a page's fields; one that was never touched, or emptied, has its default."""
        return cls(**{"source": "", **{name: value for name, value in values.items() if value is not None}})

    @property
    def target(self) -> str:
        """The value of `--to`."""
        return HUB if self.to == HUB else f"folder:{Path(self.folder.strip()).expanduser()}"


def globs(text: str) -> list[str]:
    """Patterns out of a text field: separated by lines, commas or spaces, each once."""
    return list(dict.fromkeys(part for part in re.split(r"[\s,]+", text) if part))


def run_name(form: Form) -> str:
    """The recipe's name: the repository's, else the source's with the format."""
    base = form.repo.strip().rpartition("/")[2]
    if not base:
        base = f"{re.split(r'[/@]', form.source.strip().rstrip('/'))[-1]}-{form.number_format}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip("-._")[:96].lower() or "model"


def mapping(form: Form) -> dict[str, Any]:
    """The form as the document a recipe file would hold; defaults are left to the recipe."""
    document: dict[str, Any] = {
        "name": run_name(form),
        "source": form.source.strip(),
        "format": form.number_format,
        "engine": form.engine,
        "quantize": globs(form.quantize),
        "keep": globs(form.keep),
    }
    calibrated = form.engine == "modelopt" and form.calibration.strip()
    if calibrated:
        document["calibration"] = {"data": form.calibration.strip(), "samples": int(form.samples)}
    elif form.engine == "modelopt" and form.number_format == "nvfp4":
        document["activations"] = "none"
    if form.evaluation.strip():
        document["evaluation"] = {"data": form.evaluation.strip()}
    if form.repo.strip():
        document["target"] = {"repo": form.repo.strip(), "gate": form.gate, "private": form.private}
    if form.card.strip() or form.base_model.strip():
        document["card"] = form.card.strip() or CARD
    return document


def card_text(form: Form) -> str:
    """The card.toml that goes beside the recipe to name the model a folder holds; empty where none is needed.

    Raises:
        PublisherError: the name is none.
    """
    model = form.base_model.strip()
    if not model:
        return ""
    if not REPO.fullmatch(model):
        raise PublisherError(f"{model[:100]!r} is no Hub model.", hint="Write org/name, without hf://.")
    if form.card.strip():
        raise PublisherError(
            "The form names a card.toml and the model of the Hub that goes into one.",
            hint=f'Write base_model = "{model}" into your card.toml and empty the other field.',
        )
    return f'base_model = "{model}"\n'


def recipe(form: Form, base: Path, *, space: bool = False) -> Recipe:
    """The recipe a form stands for.

    Args:
        form: what was typed.
        base: the folder relative paths start from.
        space: whether a stranger typed it.

    Raises:
        PublisherError: naming everything that is missing or does not go together.
    """
    missing = [what for what, text in (("a source", form.source), ("a repository name", form.repo)) if not text.strip()]
    if form.to == FOLDER and not form.folder.strip() and not space:
        missing.append("a folder to publish to")
    if missing:
        raise PublisherError(
            f"The form lacks {' and '.join(missing)}.", hint="Fill it in; a repository is written org/name."
        )
    if space:
        require_hub(form.source.strip(), "Source")
    return recipe_from_mapping(mapping(form), base, "The form")


def recipe_text(form: Form, made: Recipe, *, space: bool = False) -> str:
    """The recipe file that will be written or, on a Space, that the visitor takes to a node."""
    if form.base_model.strip():
        made = replace(made, card=Path(CARD))  # beside the recipe, wherever that will lie
    if not space:
        return recipe_to_yaml(made)
    typed = replace(
        made,
        calibration=made.calibration and replace(made.calibration, data=Path(form.calibration.strip())),
        evaluation=made.evaluation and replace(made.evaluation, data=Path(form.evaluation.strip())),
        card=made.card and Path(form.card.strip() or CARD),
    )
    return recipe_to_yaml(typed)


def push_arguments(target: str, recipe_file: str) -> list[str]:
    """Verb and options that do everything the form asks for."""
    return ["push", recipe_file, "--to", target]


def shell(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["publisher", *arguments])
