"""CF: what config.json says of pruned weights under `sparsity`, and whether there are such weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from publisher.findings import ERROR, WARNING, Found
from publisher.rules import ENGINES, Scope, rule
from publisher.subjects import SPARSE_SUFFIX, Headers, pruned_in, stated_pruning

CONFIG = "config.json"
STORAGE = ("dense", "sparse")
STATED = Scope("statement on pruning", lambda headers: stated_pruning(headers.checkpoint) is not None)


@rule("CF42", "sparse-storage", severity=ERROR, refuses=ENGINES, scope=STATED)
def sparse_storage(headers: Headers) -> Iterator[Found]:
    """Pruned weights are stored sparsely: kept pairs and where they were.

    Why: the form is that of CUTLASS's sparse FP4 kernels, and no serving engine reads it from a file today.
    Fix: serve and publish what `publisher convert --to dense` makes of it; the weights are the same.
    Seen: ISTA-DASLab/Kimi-K2.5-P48-NVFP4-W4A4-Preview leaves sparse storage to the future.
    """
    checkpoint = headers.checkpoint
    sparse = sum(SPARSE_SUFFIX in module.tensors for module in checkpoint.modules.values())
    stated = stated_pruning(checkpoint)
    if sparse and stated is not None and stated.storage == "sparse":
        message = f"Weights stored sparsely, which no engine reads: {sparse:,}; convert the checkpoint to dense."
        yield Found(message, file=CONFIG)


@rule("CF43", "idle-sparsity", severity=WARNING, scope=STATED)
def idle_sparsity(headers: Headers) -> Iterator[Found]:
    """config.json says that weights are pruned, and no packed weight is meant by it, or nothing that can be checked.

    Why: nothing holds the weights against such a statement, so a reader who counts on the zeros is misled.
    Fix: name the pruned modules by globs over their names and the pattern as `paired-4:8`, or leave the key out.
    Seen: none of the engines reads the key; only the card and these rules do.
    """
    checkpoint, stated = headers.checkpoint, stated_pruning(headers.checkpoint)
    if stated is None:
        return
    raw = checkpoint.config["sparsity"]
    named = isinstance(raw, dict) and "modules" in raw
    sparse = any(SPARSE_SUFFIX in module.tensors for module in checkpoint.modules.values())
    if not stated.paired:
        yield Found(f"{CONFIG}: the sparsity pattern {_short(stated.pattern)} is none that is checked.", file=CONFIG)
    elif stated.storage not in (None, *STORAGE) or (stated.storage == "sparse") is not sparse:
        message = f"{CONFIG}: the sparsity storage {_short(stated.storage)} is not that of the tensors."
        yield Found(message, file=CONFIG)
    elif named and stated.globs is None:
        yield Found(f"{CONFIG}: sparsity.modules are no globs: {_short(raw['modules'])}.", file=CONFIG)
    elif not sparse and not pruned_in(checkpoint):
        message = f"{CONFIG}: sparsity names no packed weight; correct its modules or leave the key out."
        yield Found(message, file=CONFIG)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
