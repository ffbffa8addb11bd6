"""Samples out of a data set of the Hub, as a file that calibration reads.

The rows are drawn from a stream, so that nothing is downloaded whole: shards and a window of `BUFFER` rows are mixed by
the seed, and the first ones are taken. What was drawn is kept as JSON lines; its digest goes into the statistics.
Refused: no library `datasets`, a row without text.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from publisher import jsonio
from publisher.errors import EngineError, HubError, PublisherError

SCHEME = "hf://datasets/"
BUFFER = 10_000
COLUMNS = ("messages", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Which rows: `name` as the library takes it (`org/name` or a folder), its subset, split and column."""

    name: str
    revision: str | None = None
    subset: str | None = None
    split: str = "train"
    column: str | None = None

    @property
    def label(self) -> str:
        """What the metadata call it."""
        revision = f"@{self.revision}" if self.revision else ""
        return "/".join(filter(None, [f"{self.name}{revision}", self.subset, self.split]))


def parse(spec: str, *, subset: str | None, split: str, column: str | None) -> DataSet:
    """`hf://datasets/org/name[@revision]` as a data set."""
    name, _, revision = spec.removeprefix(SCHEME).partition("@")
    return DataSet(name=name, revision=revision or None, subset=subset, split=split, column=column)


def write_samples(wanted: DataSet, samples: int, seed: int, path: Path) -> int:
    """Draw rows and write them as JSON lines with `text` or `messages`; returns how many there were.

    Raises:
        EngineError: the library is not installed.
        HubError: the data set cannot be read.
        PublisherError: a row holds no text, or there is no row.
    """
    try:
        library = importlib.import_module("datasets")
    except ImportError:
        raise EngineError(
            "A data set by name needs the library datasets, which is not installed here.",
            hint="Install it with `pip install 'fp4-publisher[calibrate]'`, or give a text or JSONL file.",
        ) from None
    try:
        stream = library.load_dataset(
            wanted.name, wanted.subset, split=wanted.split, revision=wanted.revision, streaming=True
        )
        rows = list(stream.shuffle(seed=seed, buffer_size=BUFFER).take(samples))
    except Exception as error:  # the library's own errors, the Hub client's, the network's, the parsers'
        said = " ".join(str(error).split())[:300]
        raise HubError(
            f"The data set {wanted.label} cannot be read: {type(error).__name__}: {said}",
            hint="Check its name, --subset and --split, and the login, or give a text or JSONL file.",
        ) from error
    lines = [json.dumps(_sample(row, wanted), ensure_ascii=False) for row in rows]
    if not lines:
        raise PublisherError(f"The data set {wanted.label} has no rows.", hint="Name another --split.")
    jsonio.write_atomic(path, "\n".join(lines) + "\n")
    return len(lines)


def _sample(row: Mapping[str, Any], wanted: DataSet) -> dict[str, Any]:
    columns = (wanted.column,) if wanted.column else COLUMNS
    value = next((row[column] for column in columns if row.get(column)), None)
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, list) and all(isinstance(turn, Mapping) for turn in value):
        return {"messages": value}
    raise PublisherError(
        f"A row of {wanted.label} has no text in {' or '.join(columns)}; its columns are {', '.join(row)[:300]}.",
        hint="Name the column with --column.",
    )
