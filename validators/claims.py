"""LC: what the card says, against the files and against itself. One implementation: `publisher.claims`."""

from __future__ import annotations

from collections.abc import Iterator

from publisher.claims.finding import COMMAND, HARDWARE, NUMBER, PARTIES, PROTOCOL, STATEMENT
from publisher.findings import ERROR, WARNING, Found
from publisher.rules import Scope, rule
from publisher.subjects import CARD, Claimed

TEXT = Scope("card with a text", lambda claimed: bool(claimed.card.strip()))


def _found(claimed: Claimed, topic: str) -> Iterator[Found]:
    for doubt in claimed.about(topic):
        place = (doubt.line,) if doubt.line else None
        yield Found(doubt.message, file=CARD, index=place, severity=doubt.severity)


@rule("LC04", "wrong-number", severity=ERROR, scope=TEXT)
def wrong_number(claimed: Claimed) -> Iterator[Found]:
    """A number of the card is not the files', or does not follow from the card's own tables.

    Why: readers plan memory, GPUs and downloads by these numbers, and compare models by the differences.
    Fix: render the card from the files, or correct the number; a rounded figure is wrong only outside its rounding.
    Seen: a published Kimi K2 MXFP4 card whose z-score does not follow from the errors beside it.
    """
    yield from _found(claimed, NUMBER)


@rule("LC05", "contradicting-statement", severity=ERROR, scope=TEXT)
def contradicting_statement(claimed: Claimed) -> Iterator[Found]:
    """A statement of the card is contradicted by the shards, the configuration, or another statement of the card.

    Why: who reads that routers are quantized, or that the cache is not, chooses an engine and flags that fail.
    Fix: correct the card, or the checkpoint where the card says what was meant.
    Seen: published cards that call routers FP4, which every engine builds unquantized; that warn of a changed default
        which their own configuration already has.
    """
    yield from _found(claimed, STATEMENT)


@rule("LC10", "unattributed", severity=WARNING, scope=TEXT)
def unattributed(claimed: Claimed) -> Iterator[Found]:
    """The card's text does not name the base model, or does not say that its publisher is somebody else.

    Why: a quantized copy under a vendor's name is taken for the vendor's own.
    Fix: say in a sentence what it was made from, by whom, and that they are not affiliated.
    Seen: vllm-project/vllm issue 22906 (a copy that looked like a vendor's release).
    """
    yield from _found(claimed, PARTIES)


@rule("LC11", "unrepeatable-scores", severity=WARNING, scope=TEXT)
def unrepeatable_scores(claimed: Claimed) -> Iterator[Found]:
    """A table of scores comes without shots, errors or samples, harness, or the engine that served it.

    Why: nobody can repeat such a score, and a difference smaller than its error means nothing.
    Fix: write the protocol beside the table.
    Seen: tables of differences without a standard error on quantized models of the Hub.
    """
    yield from _found(claimed, PROTOCOL)


@rule("LC12", "wrong-serving-flag", severity=WARNING, scope=TEXT)
def wrong_serving_flag(claimed: Claimed) -> Iterator[Found]:
    """A flag of the card's command contradicts quant_method (an error), auto_map or the context length.

    Why: engines refuse another method than the declared one, and ask for trust exactly where there is code to run.
    Fix: leave --quantization out; write --trust-remote-code where config.json has an auto_map.
    Seen: vLLM `config/model.py`, the check of the quantization method against the checkpoint's.
    """
    yield from _found(claimed, COMMAND)


@rule("LC13", "wrong-hardware-statement", severity=WARNING, scope=TEXT)
def wrong_hardware_statement(claimed: Claimed) -> Iterator[Found]:
    """The card says that GPUs cannot run the checkpoint which engines serve, or run natively what they emulate.

    Why: readers buy and rent by it; NVFP4 loads weight-only on GPUs before Blackwell.
    Fix: say where FP4 arithmetic runs, and where the weights load without it.
    Seen: vLLM `quantization/modelopt.py` (minimum capability 75) beside a card that says Hopper will not work.
    """
    yield from _found(claimed, HARDWARE)
