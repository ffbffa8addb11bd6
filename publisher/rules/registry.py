"""Which rules there are, and which of them somebody means."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from publisher.errors import PublisherError
from publisher.rules.declared import REGISTRY, Rule


@functools.cache
def load_rules() -> Mapping[str, Rule]:
    """Every rule by code, in order; the one place where the pipeline meets the rules.

    A wheel carries them as `publisher.validators`. A checkout has them in `validators/` beside this package; they are
    loaded from there under the same name, so that an unrelated `validators` package can never be taken for them.

    Raises:
        PublisherError: there are no rules beside this installation.
    """
    name = "publisher.validators"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        _adopt(name, Path(__file__).resolve().parents[2] / "validators")
    package = importlib.import_module(name)
    for family in package.FAMILIES:
        importlib.import_module(f"{name}.{family}")
    return dict(sorted(REGISTRY.items()))


def _adopt(name: str, folder: Path) -> None:
    """Make a checkout's `validators/` importable as a part of this package."""
    start = folder / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, start, submodule_search_locations=[str(folder)])
    if spec is None or spec.loader is None or not start.is_file():
        raise PublisherError(f"There are no rules in {folder}.", hint="Install the package again.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def chosen(select: Collection[str] = (), ignore: Collection[str] = ()) -> set[str]:
    """Codes of the rules that `select` (all when empty) names and `ignore` does not; codes, prefixes or slugs.

    Raises:
        PublisherError: a word names no rule.
    """
    picked = _named(select) if select else set(load_rules())
    return picked - _named(ignore)


def _named(words: Collection[str]) -> set[str]:
    found: set[str] = set()
    for word in words:
        codes = {c for c, r in load_rules().items() if c.startswith(word.upper()) or r.slug == word} if word else set()
        if not codes:
            raise PublisherError(
                f"No rule is called {word[:60]!r}.",
                hint="`publisher rules` lists them; a family is named by its letters, such as SV.",
            )
        found |= codes
    return found


def checked_waivers(waivers: Mapping[str, str]) -> dict[str, str]:
    """Waivers by code, each with a reason that can be published.

    Raises:
        PublisherError: no such rule, or no reason.
    """
    found: dict[str, str] = {}
    for word, reason in waivers.items():
        codes = [c for c, r in load_rules().items() if word.upper() == c or word == r.slug]
        if not codes:
            raise PublisherError(
                f"A waiver names {word[:60]!r}, which is no rule's code.", hint="`publisher rules` lists the codes."
            )
        if not reason.strip():
            raise PublisherError(
                f"The waiver of {codes[0]} has no reason.", hint=f"Write {codes[0]}=why; the reason is published."
            )
        found[codes[0]] = reason.strip()
    return found
