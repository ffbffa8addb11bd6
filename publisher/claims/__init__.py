"""Claims of a model card, any card, compared with the files beside it and with one another.

`lint` takes a card apart (`document`), asks the checkpoint for facts (`facts`) and lets each part judge what it knows:
numbers, formats, modules, origin, evaluation, quoted configuration, commands, GPUs. What is not understood is not
judged; a figure is wrong only outside the interval its rounding allows. Nothing here writes, and a hostile card costs
bounded time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from publisher.checkpoint.open import Checkpoint
from publisher.claims import chips, commands, excerpts, formats, modules, numbers, origin, overclaims, protocol, scores
from publisher.claims.document import read_document
from publisher.claims.facts import Facts
from publisher.claims.finding import Doubt

MAX_DOUBTS = 200


def lint(
    card: str,
    checkpoint: Checkpoint,
    *,
    metadata: Mapping[str, Any] | None = None,
    base_model: str | None = None,
    served: Sequence[tuple[str, str, int]] = (),
) -> tuple[Doubt, ...]:
    """Everything that a card claims and that does not hold, in the order of its lines.

    Args:
        card: the whole README.md.
        checkpoint: the files it speaks of, opened.
        metadata: the card's front matter.
        base_model: the source's Hub name, where it is known.
        served: engine, text and line of each serving command of the card.
    """
    document, facts = read_document(card), Facts(checkpoint, metadata or {}, base_model)

    def every() -> Iterator[Doubt]:
        yield from numbers.judge(document, facts)
        yield from formats.judge(document, facts)
        yield from modules.judge(document, facts)
        yield from origin.judge(document, facts)
        yield from scores.judge(document)
        yield from overclaims.judge(document)
        yield from excerpts.judge(document, facts)
        yield from commands.judge(served, facts)
        yield from chips.judge(document, facts)
        yield from origin.missing(document, facts)
        yield from protocol.missing(document)

    found = dict.fromkeys(every())
    return tuple(sorted(found, key=lambda one: one.line))[:MAX_DOUBTS]


__all__ = ["MAX_DOUBTS", "Doubt", "lint"]
