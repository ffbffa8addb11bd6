"""How a checkpoint is said to be served, and over how many GPUs it can be.

The card's commands are data from a stranger: only flags that engines know are read, from at most `MAX_CARD` bytes.
What a card says in prose is not judged here.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from publisher import jsonio
from publisher.checkpoint.open import Checkpoint
from publisher.checkpoint.parallel import Linear, Split, linears, splits_of
from publisher.errors import PublisherError
from publisher.subjects.evidence import CARD, Meter

MAX_CARD = 1 << 20
MEMORY = "hardware/memory.json"
_COMMANDS = (
    ("vllm", re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\b")),
    ("sglang", re.compile(r"\bsglang\.launch_server\b|\bsglang\s+serve\b")),
    ("tensorrt-llm", re.compile(r"\btrtllm-(?:serve|bench|llmapi-launch)\b")),
    ("atom", re.compile(r"\batom\.entrypoints\b")),
)
_TP = re.compile(r"(?<![\w-])(?:--tensor[-_]parallel[-_]size|--tp[-_]size|--tp|-tp)[ \t=]+(\d{1,4})\b")
_EP = re.compile(r"(?<![\w-])(?:--expert[-_]parallel[-_]size|--ep[-_]size|--ep)[ \t=]+(\d{1,4})\b")
_EP_ON = re.compile(r"(?<![\w-])--enable[-_]expert[-_]parallel\b")
_BACKEND = re.compile(r"(?<![\w-])--moe[-_]backend[ \t=]+([a-z_\-]{1,40})\b")
_PIN = re.compile(r"\b(vllm|sglang)(?:-openai)?(?:\[[\w,-]{1,40}\])?(?:[=~>]=|:v)(\d+(?:\.\d+){0,3})")
_REACH = 4000  # characters of one command


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One serving command of a card.

    Args:
        engine: vllm, sglang, tensorrt-llm or atom.
        tensor_parallel: the size it asks for, None when it says none.
        expert_parallel: the same for experts.
        backend: the kernels it asks for, None when it leaves them to the engine.
        text: its own lines, as written.
        line: where it begins in the card, counted from 1.
    """

    engine: str
    tensor_parallel: int | None = None
    expert_parallel: int | None = None
    backend: str | None = None
    text: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """GPUs that a card names: how many, which, and the memory of one in bytes."""

    count: int
    name: str
    memory: int


@dataclass(frozen=True)
class Serving:
    """The checkpoint, the commands its card shows, and the sizes it can be split to."""

    checkpoint: Checkpoint
    card: str = ""

    @functools.cached_property
    def commands(self) -> tuple[Command, ...]:
        """The card's serving commands, in order."""
        return tuple(_commands(self.card))

    @functools.cached_property
    def advertised(self) -> tuple[int, ...]:
        """Tensor-parallel sizes of those commands, ascending."""
        return tuple(sorted({c.tensor_parallel for c in self.commands if c.tensor_parallel}))

    @functools.cached_property
    def pins(self) -> tuple[tuple[str, str], ...]:
        """Engine versions the card installs: (engine, version)."""
        return tuple(dict.fromkeys((match.group(1), match.group(2)) for match in _PIN.finditer(self.card)))

    @functools.cached_property
    def nodes(self) -> tuple[Node, ...]:
        """Machines the card names, such as 8x B300."""
        return tuple(dict.fromkeys(_nodes(self.card)))

    @functools.cached_property
    def linears(self) -> tuple[Linear, ...]:
        """The classes of linear layers."""
        return linears(self.checkpoint)

    @functools.cached_property
    def forms(self) -> dict[str, str]:
        """The format of every class of quantized layers."""
        return {linear.kind: linear.form for linear in self.linears if linear.form}

    @functools.cached_property
    def splits(self) -> tuple[Split, ...]:
        """What stands against each size: the table's and the card's own."""
        known: Sequence[int] = jsonio.data("hardware/tiles.json")["sizes"]
        sizes = [node.count for node in self.nodes]
        return splits_of(self.checkpoint, self.linears, sorted({*known, *self.advertised, *sizes}))


def read_serving(checkpoint: Checkpoint, has_card: bool, meter: Meter) -> Serving:
    """The subject; a card that cannot be read shows no command."""
    size = checkpoint.files.sizes.get(CARD, 0) if has_card else 0
    if not size:
        return Serving(checkpoint)
    try:
        data = meter.read(checkpoint.files, CARD, 0, min(size, MAX_CARD))
    except PublisherError:
        return Serving(checkpoint)
    return Serving(checkpoint, data.decode("utf-8", "replace"))


def _commands(card: str) -> Iterator[Command]:
    starts = sorted((m.start(), engine) for engine, pattern in _COMMANDS for m in pattern.finditer(card))
    for (start, engine), (after, _) in zip(starts, [*starts[1:], (len(card), "")], strict=False):
        text = _one(card[start : min(after, start + _REACH)])
        size, experts = _number(_TP, text), _number(_EP, text)
        backend = _BACKEND.search(text)
        yield Command(
            engine=engine,
            tensor_parallel=size,
            expert_parallel=experts or (size if _EP_ON.search(text) else None),
            backend=backend.group(1) if backend else None,
            text=text,
            line=card.count("\n", 0, start) + 1,
        )


def _one(text: str) -> str:
    """A command's own lines: up to its code block's end, or the first line that is not continued."""
    lines = []
    for line in text.splitlines():
        if line.strip().startswith("```"):
            break
        lines.append(line)
        if not line.rstrip().endswith("\\"):
            break
    return "\n".join(lines)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return (int(match.group(1)) or None) if match else None


@functools.cache
def _gpus() -> tuple[re.Pattern[str], dict[str, int]]:
    rows = jsonio.data(MEMORY)["gpus"]
    names = sorted((row["name"] for row in rows), key=len, reverse=True)
    pattern = (
        r"\b(\d{1,3})\s?[x\u00d7]\s?(?:NVIDIA |AMD )?(?:Instinct |GeForce )?("
        + "|".join(map(re.escape, names))
        + r")\b"
    )
    return re.compile(pattern), {row["name"]: int(row["gigabytes"] * 10**9) for row in rows}


def _nodes(card: str) -> Iterator[Node]:
    pattern, memory = _gpus()
    for match in pattern.finditer(card):
        if int(match.group(1)):
            yield Node(count=int(match.group(1)), name=match.group(2), memory=memory[match.group(2)])
