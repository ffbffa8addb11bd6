"""What a reader needs beside an evaluation table to repeat it, and which of it the card does not say.

Asked for are shots, an error or the number of samples, harness, engine with its version, and, where two models are
compared, that both were measured alike. Only a table of scores of tasks asks; perplexities and speeds do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from publisher.claims.document import Document
from publisher.claims.finding import PROTOCOL, Doubt
from publisher.claims.scores import Table, tables
from publisher.findings import WARNING

_TASK = re.compile(
    r"\b(?:GSM8K|MMLU|ARC|HellaSwag|TruthfulQA|Winogrande|GPQA|AIME|MATH|HumanEval|MBPP|IFEval|BBH"
    r"|LiveCodeBench|SWE-?bench)\b",
    re.I,
)
# What is asked for, and the words that say it.
_ASKED = (
    ("the number of shots", re.compile(r"\b\d{1,2}[- ]shot|\bzero-shot|\bfew-shot|\bnum_fewshot|\bshots?\b", re.I)),
    (
        "a standard error or the number of samples",
        re.compile(
            r"\u00b1|\+/-|\bstd\.? ?err|\bstandard error|\bn\s?=\s?\d|\b\d[\d,]* (?:samples|questions|problems)\b", re.I
        ),
    ),
    (
        "the harness and its version",
        re.compile(
            r"\blm[-_ ]?eval\w*|\bevaluation[- ]harness|\bharness\b|\blighteval|\bevalscope|\bNeMo[- ]Skills"
            r"|\bsimple-evals",
            re.I,
        ),
    ),
    (
        "the engine that served it",
        re.compile(r"\bvLLM\b|\bSGLang\b|\bTensorRT-LLM\b|\bATOM\b|\btransformers\b|\bserved (?:by|with|via)\b", re.I),
    ),
)


def missing(document: Document) -> Iterator[Doubt]:
    """What the card leaves out of how its scores were measured."""
    found = [table for table in tables(document) if _of_tasks(table)]
    if not found:
        return
    told = "\n".join(_words(document, found))
    lacking = [name for name, pattern in _ASKED if not pattern.search(told)]
    if lacking:
        line = found[0].grid.line
        message = f"The scores from line {line} on come without {', '.join(lacking)}; say how they were measured."
        yield Doubt(topic=PROTOCOL, line=line, message=message, severity=WARNING)


def _of_tasks(table: Table) -> bool:
    grid = table.grid
    return any(_TASK.search(cell) for row in (grid.head, *grid.rows) for cell in row[:2]) or bool(
        _TASK.search(grid.heading)
    )


def _words(document: Document, found: Sequence[Table]) -> Iterator[str]:
    """All that may say it: the tables, every sentence, the commands."""
    for table in found:
        yield from (" | ".join(row) for row in (table.grid.head, *table.grid.rows))
    yield from (sentence.whole for sentence in document.sentences)
    yield from (block.text for block in document.blocks)
