"""The card as a set of claims, compared once with the files for every rule that asks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from publisher import claims
from publisher.checkpoint.open import Checkpoint
from publisher.subjects.evidence import Evidence, Meter
from publisher.subjects.publication import read_card
from publisher.subjects.serving import MAX_CARD, Serving


@dataclass(frozen=True)
class Claimed:
    """A checkpoint and what its card claims of it; without a readable card nothing is claimed."""

    checkpoint: Checkpoint
    card: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    base_model: str | None = None

    @functools.cached_property
    def doubts(self) -> tuple[claims.Doubt, ...]:
        """Every claim that does not hold."""
        served = Serving(self.checkpoint, self.card[:MAX_CARD]).commands
        return claims.lint(
            self.card,
            self.checkpoint,
            metadata=self.metadata,
            base_model=self.base_model,
            served=[(command.engine, command.text, command.line) for command in served],
        )

    def about(self, topic: str) -> Iterator[claims.Doubt]:
        """The claims of one topic that do not hold."""
        return (doubt for doubt in self.doubts if doubt.topic == topic)


def read_claimed(evidence: Evidence, meter: Meter) -> Claimed:
    """The subject of one card."""
    card = read_card(evidence.checkpoint.files, meter)
    return Claimed(
        checkpoint=evidence.checkpoint,
        card=card.text or "",
        metadata=card.metadata,
        base_model=evidence.base_model,
    )
