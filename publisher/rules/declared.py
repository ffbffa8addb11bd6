"""How a rule is declared: a function whose docstring holds why, the fix and the precedent, and its facts beside it."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from publisher.findings import Found, Severity
from publisher.subjects import KINDS

ENGINES = ("vllm", "sglang", "tensorrt-llm", "atom", "transformers")


@dataclass(frozen=True, slots=True)
class Scope:
    """What a rule is about, where that is less than every subject of its kind.

    Args:
        noun: completes "nothing to judge: there is no …".
        holds: whether a subject is meant.
    """

    noun: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule and its facts.

    Args:
        code: family and number, never used again for another rule.
        slug: the defect's name.
        severity: unless a finding says otherwise.
        engines: serving engines that break, unless a finding says otherwise.
        refuses: those of them that refuse to load; the others load it and compute something wrong.
        evidence: type of the subjects it looks at.
        scope: which of them.
        summary: the defect in one sentence.
        why: what goes wrong with it.
        fix: the next step.
        seen: a public precedent, empty when there is none.
        check: the function.
    """

    code: str
    slug: str
    severity: Severity
    engines: tuple[str, ...]
    refuses: tuple[str, ...]
    evidence: type
    scope: Scope | None
    summary: str
    why: str
    fix: str
    seen: str
    check: Callable[[Any], Iterable[Found]]

    @property
    def cost(self) -> str:
        """What the rule reads: headers, scales, the source or the card."""
        return KINDS[self.evidence].cost


REGISTRY: dict[str, Rule] = {}


_Check = TypeVar("_Check", bound=Callable[[Any], Iterable[Found]])


def rule(
    code: str,
    slug: str,
    *,
    severity: Severity,
    engines: tuple[str, ...] = (),
    refuses: tuple[str, ...] = (),
    scope: Scope | None = None,
) -> Callable[[_Check], _Check]:
    """Register a function as a rule; an engine that refuses a defect breaks on it, and need not be named twice.

    Raises:
        TypeError: its code is taken, its docstring lacks a part, its first parameter is no evidence, or an engine is
            unknown.
    """

    def register(check: _Check) -> _Check:
        first = next(iter(inspect.signature(check).parameters))
        evidence = typing.get_type_hints(check).get(first)
        if evidence is None or evidence not in KINDS:
            raise TypeError(f"{code}: the first parameter must be evidence, not {evidence}")
        if not {*engines, *refuses} <= set(ENGINES):
            raise TypeError(f"{code}: engines are {', '.join(ENGINES)}")
        known = REGISTRY.get(code)
        if known is not None and inspect.getsourcefile(known.check) != inspect.getsourcefile(check):
            raise TypeError(f"the code {code} is taken by {known.slug}")
        summary, parts = _parts(check.__doc__ or "", code)
        REGISTRY[code] = Rule(
            code=code,
            slug=slug,
            severity=severity,
            engines=tuple(engine for engine in ENGINES if engine in {*engines, *refuses}),
            refuses=refuses,
            evidence=evidence,
            scope=scope,
            summary=summary,
            why=parts["Why"],
            fix=parts["Fix"],
            seen=parts.get("Seen", ""),
            check=check,
        )
        return check

    return register


def _parts(text: str, code: str) -> tuple[str, dict[str, str]]:
    """Split a docstring into its summary and the paragraphs after Why:, Fix: and Seen:."""
    summary, _, rest = inspect.cleandoc(text).partition("\n\n")
    parts: dict[str, str] = {}
    name = ""
    for line in rest.splitlines():
        head, colon, tail = line.partition(": ")
        if colon and head in ("Why", "Fix", "Seen"):
            name, parts[head] = head, tail.strip()
        elif name:
            parts[name] = f"{parts[name]} {line.strip()}".strip()
    if not summary or not {"Why", "Fix"} <= parts.keys():
        raise TypeError(f"{code}: the docstring needs a summary, Why: and Fix:")
    return " ".join(summary.split()), {name: _sentence(part) for name, part in parts.items()}


def _sentence(text: str) -> str:
    """A capital at the start, unless the first word has a spelling of its own (vLLM, org/name)."""
    first = text.partition(" ")[0]
    return text[:1].upper() + text[1:] if first.isalpha() and first.islower() else text
