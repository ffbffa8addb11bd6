"""The text a model is calibrated on: which lines of a file are drawn, and what each says.

A `.jsonl` file holds objects with `text` (a string) or `messages` (a chat, put through the tokenizer's own template);
any other file holds one sample a line. Blank lines do not count. The same file, seed and number give the same samples.
Refused: a file without samples, a line that is no such object, a line longer than `MAX_LINE`.
"""

from __future__ import annotations

import array
import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import PublisherError

MAX_LINE = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """One text, or one chat of `role`/`content` messages; exactly one of them is set."""

    line: int
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What was drawn from a file: its samples in drawn order, its digest, and how many it held."""

    samples: tuple[Sample, ...]
    available: int
    sha256: str


def draw(path: Path, samples: int, seed: int) -> Draw:
    """Draw samples from a file without repeating any; all of them, in a drawn order, where it holds no more.

    Args:
        path: the text or JSONL file.
        samples: how many are wanted.
        seed: decides which, and their order.

    Raises:
        PublisherError: the file cannot be read, holds no sample, or a drawn line makes no sense.
    """
    try:
        with path.open("rb") as file:
            starts, numbers, digest = _scan(file, path)
            if not starts:
                raise PublisherError(f"{path} holds no text to calibrate on.", hint="Give a file with one text a line.")
            picked = random.Random(seed).sample(range(len(starts)), min(samples, len(starts)))
            drawn = tuple(_sample(_line(file, starts[i]), path, numbers[i]) for i in picked)
    except OSError as error:
        raise PublisherError(
            f"{path} cannot be read: {error.strerror or error}.", hint="Check calibration.data in the recipe."
        ) from None
    return Draw(samples=drawn, available=len(starts), sha256=digest)


def _scan(file: Any, path: Path) -> tuple[array.array[int], array.array[int], str]:
    starts, numbers, digest = array.array("q"), array.array("q"), hashlib.sha256()
    position, number = 0, 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise PublisherError(
                f"{path}, line {number:,}, is longer than {MAX_LINE:,} bytes.", hint="Put one text on a line."
            )
        digest.update(line)
        if line.strip():
            starts.append(position)
            numbers.append(number)
        position += len(line)
    return starts, numbers, digest.hexdigest()


def _line(file: Any, start: int) -> bytes:
    file.seek(start)
    line: bytes = file.readline(MAX_LINE)
    return line


def _sample(line: bytes, path: Path, number: int) -> Sample:
    where = f"{path}, line {number:,}"
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        try:
            return Sample(number, text=line.decode("utf-8").rstrip("\r\n"))
        except UnicodeDecodeError:
            raise PublisherError(f"{where}, is not UTF-8.", hint="Save the file as UTF-8 text.") from None
    value = jsonio.loads_json(line, where)
    if isinstance(value, Mapping):
        if isinstance(value.get("text"), str) and value["text"].strip():
            return Sample(number, text=value["text"])
        messages = value.get("messages")
        if isinstance(messages, list) and messages and all(map(_is_message, messages)):
            return Sample(number, messages=tuple(messages))
    raise PublisherError(
        f"{where}, has neither a `text` nor a list of `messages`.", hint='Write lines like {"text": "..."}.'
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def token_ids(drawn: Draw, tokenizer: Any, length: int, *, chat: bool = False) -> Iterator[list[int]]:
    """Token numbers of each sample, at most `length` of them; samples without any are passed over.

    Args:
        drawn: the samples.
        tokenizer: of transformers.
        length: tokens kept of a sample.
        chat: a plain text is what a user says, and goes through the chat template too.

    Raises:
        PublisherError: a chat without a chat template, or one the template refuses.
    """
    for sample in drawn.samples:
        text, messages = sample.text, sample.messages
        if chat and messages is None:
            messages = ({"role": "user", "content": text},)
        if messages is not None:
            try:
                text = tokenizer.apply_chat_template([dict(m) for m in messages], tokenize=False)
            except Exception as error:  # noqa: BLE001 - templates are programs; they raise what they like
                raise PublisherError(
                    f"The chat in line {sample.line:,} of the calibration data cannot be put into the chat template: "
                    f"{type(error).__name__}: {str(error)[:200]}",
                    hint="Give `text` instead of `messages`, or do without the chat template.",
                ) from None
        ids = tokenizer(text, truncation=True, max_length=length, add_special_tokens=messages is None)
        if ids["input_ids"]:
            yield list(ids["input_ids"])
