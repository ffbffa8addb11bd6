"""The flags of a card's serving commands, against what the checkpoint declares.

Which commands there are is read by `subjects.serving`; here only what each says of quantization, custom code and
context length is compared. A command that leaves a flag out leaves the choice to the engine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from publisher.claims.facts import CONFIG, Facts
from publisher.claims.finding import COMMAND, Doubt, doubt
from publisher.findings import ERROR, WARNING

_QUANTIZATION = re.compile(r"(?<![\w-])(?:--quantization|-q)[ \t=]+([\w-]{1,40})")
_TRUST = re.compile(r"(?<![\w-])--trust[-_]remote[-_]code\b")
_LENGTH = re.compile(
    r"(?<![\w-])--(?:max[-_]model[-_]len|context[-_]length|max[-_]seq[-_]len)[ \t=]+(\d{1,9})(?![\d.]|\s?[kKmM]\b)"
)
# Names under which engines take each layout; `auto` and `None` leave it to the declaration.
METHODS = {
    "modelopt": ("modelopt", "modelopt_fp4", "modelopt_mixed", "modelopt_mxfp8", "nvfp4"),
    "quark": ("quark",),
    "compressed-tensors": ("compressed-tensors",),
}


def judge(commands: Sequence[tuple[str, str, int]], facts: Facts) -> Iterator[Doubt]:
    """Flags that contradict the declaration.

    Args:
        commands: engine, text and line of each serving command.
        facts: of the checkpoint.
    """
    for engine, text, line in commands:
        yield from _quantization(engine, text, line, facts)
        yield from _code(engine, text, line, facts)
        yield from _context(engine, text, line, facts)


def _quantization(engine: str, text: str, line: int, facts: Facts) -> Iterator[Doubt]:
    match, quant = _QUANTIZATION.search(text), facts.quant
    known = METHODS.get(quant.dialect) if quant is not None else None
    if match is None or known is None or quant is None or match.group(1).lower() in (*known, "auto", "none"):
        return
    fact = f"the checkpoint declares quant_method {quant.dialect} ({quant.origin}), and {engine} refuses another"
    yield doubt(COMMAND, line, match.group(0), fact, "Leave the flag out: the engine finds the method itself", ERROR)


def _code(engine: str, text: str, line: int, facts: Facts) -> Iterator[Doubt]:
    trusted = _TRUST.search(text)
    if trusted is not None and not facts.custom_code:
        fact = f"{CONFIG} has no auto_map, so there is no code of the repository to trust"
        yield doubt(COMMAND, line, trusted.group(0), fact, "Leave the flag out", WARNING)
    elif trusted is None and facts.custom_code and engine in ("vllm", "sglang"):
        first = text.strip().splitlines()[0] if text.strip() else engine
        fact = f"{CONFIG} has an auto_map, and an engine without this model's code of its own asks for that flag"
        yield doubt(COMMAND, line, first, fact, "Add --trust-remote-code", WARNING)


def _context(engine: str, text: str, line: int, facts: Facts) -> Iterator[Doubt]:
    match = _LENGTH.search(text)
    right = facts.number("max_position_embeddings")
    if match is not None and right is not None and int(match.group(1)) > right:
        fact = f"{CONFIG} has max_position_embeddings = {right:,}, beyond which {engine} refuses or computes nonsense"
        yield doubt(COMMAND, line, match.group(0), fact, "Name a length the model has", WARNING)
