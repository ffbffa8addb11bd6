"""How to make a checkpoint again and how to cite it: commands, the recipe without this machine's paths, BibTeX.

Our own BibTeX entry is made from the repository's name, its publisher and the year of the release the person named;
where one of them is unknown there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.card.person import part
from publisher.card.upstream import Upstream
from publisher.plan.model import Plan, TargetSpec

RECIPE = "recipe.yaml"
_UNSAFE = re.compile(r"[{}\\%#&~^_$]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduce:
    """How to make it again: commands, and the recipe without this machine's paths."""

    commands: tuple[str, ...]
    recipe: str | None


def reproduce(plan: Plan | None, upstream: Upstream, repo: str | None, target: TargetSpec | None = None) -> Reproduce:
    """The commands that make, publish and check it.

    Args:
        plan: None for a checkpoint made elsewhere.
        upstream: the source.
        repo: what it is published as.
        target: the settings it is published with, which options may have set otherwise than the recipe.
    """
    verify = (f"publisher verify hf://{repo}",) if repo else ()
    if plan is None:
        made = f"publisher push --checkpoint ./checkpoint --source hf://{upstream.repo.text}"
        return Reproduce(commands=(made + (f" --repo {repo}" if repo else ""), *verify), recipe=None)
    return Reproduce(commands=(f"publisher push {RECIPE}", *verify), recipe=_recipe(plan, upstream, target))


def citation(upstream: Upstream, person: Mapping[str, Any], repo: str | None) -> tuple[str, ...]:
    """Upstream's entry, then the person's own or one made of what is known."""
    return tuple(_entries(upstream, person, repo))


def _entries(upstream: Upstream, person: Mapping[str, Any], repo: str | None) -> Iterator[str]:
    if upstream.bibtex:
        yield upstream.bibtex
    own = part(person, "citation").get("bibtex")
    name, released = part(person, "publisher").get("name"), person.get("released")
    if own:
        yield str(own)
    elif repo and isinstance(name, str) and isinstance(released, str):
        key = re.sub(r"[^a-z0-9]+", "_", repo.lower()).strip("_")
        title, author = (_UNSAFE.sub(r"\\\g<0>", text) for text in (repo.rpartition("/")[2], name))
        yield (
            f"@misc{{{key},\n  title = {{{title}}},\n  author = {{{author}}},\n  year = {{{released[:4]}}},\n"
            f"  howpublished = {{\\url{{https://huggingface.co/{repo}}}}}\n}}"
        )


def _recipe(plan: Plan, upstream: Upstream, target: TargetSpec | None) -> str:
    """The recipe as it was run, without the person's words, which nobody else has; paths lose their folders."""
    body = {key: value for key, value in plan.recipe.to_json().items() if key != "card"}
    if target is not None and "target" in body:
        body["target"] = {"repo": target.repo, "gate": target.gate, "private": target.private}
    body["source"] = f"hf://{upstream.repo.text}@{upstream.commit}" if upstream.commit else "./source"
    for key in ("calibration", "evaluation"):
        if isinstance(body.get(key), dict) and "data" in body[key]:
            body[key] = {**body[key], "data": "./" + str(body[key]["data"]).rpartition("/")[2]}
    if "statistics" in body:
        body["statistics"] = "./" + str(body["statistics"]).rpartition("/")[2]
    remark = "# The source was a local folder: put it, and the files named here, beside this recipe.\n"
    return ("" if upstream.commit else remark) + jsonio.dump_yaml(body)
