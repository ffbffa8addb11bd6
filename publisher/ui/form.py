"""What a person fills in, as a recipe and as a command line; nothing here runs or reads anything.

The recipe is checked by the same code that reads recipe files, so the page has no opinion of its own about what goes
together. What has no field is written as YAML; that text holds no path, because every key of a recipe that is one has
a field. Paths are taken from the folder the page was started in and written absolute, so that the recipe can lie
anywhere; on a Space, where paths are another machine's, they are written as typed and planned without.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError
from publisher.plan.model import Recipe
from publisher.plan.recipe import recipe_from_mapping, recipe_to_yaml
from publisher.ui.place import require_hub

QUANTIZE = "*.mlp.*_proj"
SAMPLES = 128
FOLDER, HUB = "folder", "hf"
CARD = "card.toml"
REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)
DEVICE = re.compile(r"auto|all|cpu|cuda(:[0-9]{1,3})?")
MAX_WORKERS = 64  # as the command line has it
MAX_MORE = 1 << 16  # characters; a recipe of thousands of globs is a file
MORE = "More of the recipe"
LABELS = {
    "name": "Name of the run",
    "source": "Source",
    "format": "Format",
    "engine": "Engine",
    "layout": "Layout",
    "mode": "Mode",
    "activations": "Activations",
    "kv_cache": "KV cache",
    "quantize": "Quantize",
    "keep": "Keep",
    "statistics": "Statistics",
    "calibration.data": "Calibration text",
    "calibration.samples": "Samples",
    "evaluation.data": "Evaluation text",
    "target.repo": "Repository",
    "target.gate": "Gate",
    "target.private": "Keep the repository private",
    "card": "card.toml",
    "shard_size": "Shard size",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """The fields of the first page, as they were typed.

    Args:
        source: a folder, or `hf://org/name[@revision]`.
        base_model: the Hub model a folder holds, `org/name`; empty where the card.toml or the folder says it.
        number_format: nvfp4 or mxfp4.
        engine: native or modelopt.
        layout: how tensors are named; empty for the format's own.
        mode: how block scales are chosen; empty for the format's own.
        quantize: globs, one a line.
        keep: globs, one a line; may be empty.
        activations: calibrated, dynamic or none; empty for what is given.
        kv_cache: fp8, fp8-cast or none.
        statistics: what `publisher calibrate` measured, for engine native; may be empty.
        calibration: a text or JSONL file, for engine modelopt; empty for weight-only.
        samples: how many texts of it.
        evaluation: a text file for the perplexity in the card; may be empty.
        card: card.toml; may be empty.
        name: of the run; empty for the repository's.
        device: auto, all, cpu, cuda or cuda:N.
        workers: processes of engine native; 0 lets it choose.
        shard_size: such as 5GB; empty for the default.
        more: other keys of a recipe, as YAML.
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
    layout: str = ""
    mode: str = ""
    quantize: str = QUANTIZE
    keep: str = ""
    activations: str = ""
    kv_cache: str = "none"
    statistics: str = ""
    calibration: str = ""
    samples: float = SAMPLES
    evaluation: str = ""
    card: str = ""
    name: str = ""
    device: str = "auto"
    workers: float = 0
    shard_size: str = ""
    more: str = ""
    repo: str = ""
    gate: str = "manual"
    private: bool = False
    to: str = FOLDER
    folder: str = "published"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Form:
        """The form out of a page's fields; one that was never touched, or emptied, has its default.

        Raises:
            PublisherError: a value is not of its field's kind; no browser sends such.
        """
        given = {"source": "", **{name: value for name, value in values.items() if value is not None}}
        for field in fields(cls):
            kind: Any = {"bool": bool, "float": (int, float)}.get(str(field.type), str)
            if not isinstance(given.get(field.name, field.default), kind):
                raise PublisherError(f"The field {field.name} holds no {field.type}.", hint="Fill it in again.")
        return cls(**given)


def globs(text: str) -> list[str]:
    """Patterns out of a text field: separated by lines, commas or spaces, each once."""
    return list(dict.fromkeys(part for part in re.split(r"[\s,]+", text) if part))


def run_name(form: Form) -> str:
    """The recipe's name: as typed, else the repository's, else the source's with the format."""
    if form.name.strip():
        return form.name.strip()
    base = form.repo.strip().rpartition("/")[2]
    if not base:
        base = f"{re.split(r'[/@]', form.source.strip().rstrip('/'))[-1]}-{form.number_format}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).strip("-._")[:96].lower() or "model"


# --- as a recipe ---------------------------------------------------------------------------------------------------


def mapping(form: Form) -> dict[str, Any]:
    """The form as the document a recipe file would hold; defaults are left to the recipe.

    Raises:
        PublisherError: the YAML of it cannot be read, or says what a field says.
    """
    document: dict[str, Any] = {
        "name": run_name(form),
        "source": form.source.strip(),
        "format": form.number_format,
        "engine": form.engine,
        "quantize": globs(form.quantize),
        "keep": globs(form.keep),
        **dict(_chosen(form)),
    }
    if form.repo.strip():
        document["target"] = {"repo": form.repo.strip(), "gate": form.gate, "private": form.private}
    if form.card.strip() or form.base_model.strip():
        document["card"] = form.card.strip() or CARD
    for key, value in more(form.more).items():
        section = document.get(key)
        document[key] = {**section, **value} if isinstance(section, dict) and isinstance(value, Mapping) else value
    return document


def _chosen(form: Form) -> Iterator[tuple[str, Any]]:
    """What was chosen, and the files the chosen engine reads."""
    native, calibration = form.engine == "native", form.calibration.strip()
    for key in ("layout", "mode", "activations", "kv_cache", "shard_size"):
        if said := str(getattr(form, key)).strip():
            yield key, said
    if native and form.statistics.strip():
        yield "statistics", form.statistics.strip()
    if not native and calibration:
        yield "calibration", {"data": calibration, "samples": whole(form.samples, "Samples")}
    elif not native and form.number_format == "nvfp4" and not form.activations:
        yield "activations", "none"
    if form.evaluation.strip():
        yield "evaluation", {"data": form.evaluation.strip()}


def more(text: str) -> dict[str, Any]:
    """The keys of a recipe that have no field, out of YAML; read as recipe files are.

    Raises:
        PublisherError: too long, not YAML, not `key: value`, or a key that has a field, by name.
    """
    if len(text) > MAX_MORE:
        raise PublisherError(
            f"{MORE}: {len(text):,} characters are more than the {MAX_MORE:,} this field takes.",
            hint="Write a recipe file and run `publisher plan` on it.",
        )
    try:
        value = jsonio.loads_yaml(text, MORE)
    except jsonio.DocumentError as error:
        raise PublisherError(error.message, hint="Correct that line.") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise PublisherError(
            f"{MORE} is a {type(value).__name__}, not keys of a recipe.", hint="Write `key: value` lines, or empty it."
        )
    document = {str(key): item for key, item in value.items()}
    if taken := list(_taken(document)):
        told = "; ".join(f"`{key}` has the field “{LABELS[key]}”" for key in taken)
        raise PublisherError(f"{MORE}: {told}.", hint="Say it there and take it out of the YAML.")
    return document


def _taken(document: Mapping[str, Any]) -> Iterator[str]:
    """Keys that have a field, also inside a section such as `calibration`; in a section of fields alone, any."""
    for known in LABELS:
        section, _, key = known.partition(".")
        held = document.get(section)
        if section in document and (not key or (key in held if isinstance(held, Mapping) else section == "target")):
            yield known


def whole(value: float, label: str) -> int:
    """A number field as an integer.

    Raises:
        PublisherError: it is none.
    """
    if not math.isfinite(value) or value != int(value):
        raise PublisherError(f"{label}: {value} is no whole number.", hint="Write a number such as 8.")
    return int(value)


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
    _readable(form)
    missing = [what for what, text in (("a source", form.source), ("a repository name", form.repo)) if not text.strip()]
    if form.to == FOLDER and not form.folder.strip() and not space:
        missing.append("a folder to publish to")
    if missing:
        raise PublisherError(
            f"The form lacks {' and '.join(missing)}.", hint="Fill it in; a repository is written org/name."
        )
    options(form)
    if space:
        require_hub(form.source.strip(), "Source")
    return recipe_from_mapping(mapping(form), base, "The form")


def _readable(form: Form) -> None:
    """Refuse halves of characters, which no file can hold; a browser sends none."""
    for field in fields(form):
        value = getattr(form, field.name)
        if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
            raise PublisherError(f"The field {field.name} holds half a character.", hint="Type it again.")


def recipe_text(form: Form, made: Recipe, *, space: bool = False) -> str:
    """The recipe file that will be written or, on a Space, that the visitor takes to a node."""
    if form.base_model.strip():
        made = replace(made, card=Path(CARD))  # beside the recipe, wherever that will lie
    if not space:
        return recipe_to_yaml(made)
    typed = replace(
        made,
        calibration=made.calibration and replace(made.calibration, data=Path(form.calibration.strip())),
        statistics=made.statistics and Path(form.statistics.strip()),
        evaluation=made.evaluation and replace(made.evaluation, data=Path(form.evaluation.strip())),
        card=made.card and Path(form.card.strip() or CARD),
    )
    return recipe_to_yaml(typed)


def planned_text(form: Form, made: Recipe, *, space: bool = False) -> str:
    """The recipe to plan: on a Space without a path that a visitor typed, for none of the Space's files is theirs.

    What the plan depends on is that a file is named, not which.
    """
    if not space:
        return recipe_text(form, made)
    absent = Path("a-file-of-the-node")
    pathless = replace(
        made,
        calibration=made.calibration and replace(made.calibration, data=absent),
        statistics=made.statistics and absent,
        evaluation=None,
        card=Path(CARD) if form.base_model.strip() else None,
    )
    return recipe_to_yaml(pathless)


# --- as a command --------------------------------------------------------------------------------------------------


def options(form: Form) -> list[str]:
    """How the work is shared out, where it is not left to the command.

    Raises:
        PublisherError: a device or a number of processes that is none.
    """
    device, workers = form.device.strip() or "auto", whole(form.workers, "Processes")
    if not DEVICE.fullmatch(device):
        raise PublisherError(f"Device: {device[:60]!r} is none.", hint="Write auto, all, cpu, cuda or cuda:1.")
    if not 0 <= workers <= MAX_WORKERS:
        raise PublisherError(
            f"Processes: {workers} is not between 1 and {MAX_WORKERS}.", hint="Leave it empty to let the engine choose."
        )
    chosen = ["--workers", str(workers)] if workers and form.engine == "native" else []
    return chosen if device == "auto" else [*chosen, "--device", device]


def push_arguments(form: Form, *, space: bool = False) -> list[str]:
    """What stands after `push RECIPE`: where to, and how. A Space writes no home of its own machine out."""
    folder = form.folder.strip() if space else os.path.expanduser(form.folder.strip())
    return ["--to", HUB if form.to == HUB else f"folder:{Path(folder)}", *options(form)]


def shell(arguments: Sequence[str]) -> str:
    """The command as a person would type it."""
    return shlex.join(["publisher", *arguments])
