"""Layers the engines build as one: the names of their members, and a list that names only some of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from publisher.errors import PublisherError

FusedMap = Mapping[str, Sequence[str]]
Matcher = Callable[[str], bool]
EXPERTS = "experts"
PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


class PartlyFused(PublisherError):
    """A list names some members of a fused layer and not the others; the engine refuses to load it."""


def shards(prefix: str, fused: FusedMap) -> list[str] | None:
    """The names of a fused layer's members; the engines replace the last part wherever it occurs in the prefix."""
    last = prefix.rpartition(".")[2]
    return [prefix.replace(last, member) for member in fused[last]] if last in fused else None


def all_or_none(prefix: str, names: list[str], matches: Matcher) -> bool:
    """Whether all members match.

    Raises:
        PartlyFused: some do and some do not.
    """
    found = [matches(name) for name in names]
    if any(found) != all(found):
        named = [name.rpartition(".")[2] for name, hit in zip(names, found, strict=True) if hit]
        raise PartlyFused(
            f"The exclude list names {', '.join(named)} of {prefix} but not all {len(names)} of its members.",
            hint="Quantize all members of a fused layer or none.",
        )
    return found[0]
