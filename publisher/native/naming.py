"""Which tensors of a checkpoint became which parameter of the loaded model.

transformers renames on loading, gathers the matrices of experts in one tensor, and joins or splits others. The names
of a checkpoint are put through the loader's own conversions here, forwards, so that what is measured in memory can be
said under the checkpoint's names; no rule of ours guesses at them. An expert is known by the number in its tensor's
name. Where the checkpoint itself keeps experts in one tensor, or in MXFP4 blocks beside their scales, they get the
names they have when they are stored alone (`experts.3.up_proj`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from publisher import jsonio
from publisher.checkpoint.experts import BLOCKS, SCALES

_NUMBERED = re.compile(r"\.(\d{1,6})\.")
PLAIN_PARTS = ("gate_proj", "up_proj", "down_proj")


def origins(model: Any, names: Iterable[str]) -> dict[str, list[str]]:
    """Parameter name in memory to the checkpoint's tensors that it was made of.

    Args:
        model: a model of transformers, loaded from the checkpoint.
        names: the checkpoint's tensors.
    """
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is None:
        conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    present = model.state_dict()
    found: dict[str, list[str]] = {}
    for name in names:
        renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, present)
        if renamed not in present:
            renamed, pattern = rename_source_key(name, [], [], model.base_model_prefix, present)
        for parameter in _targets(renamed, pattern, converters):
            if parameter in present:
                found.setdefault(parameter, []).append(name)
    return found


def _targets(renamed: str, pattern: str | None, converters: Sequence[Any]) -> list[str]:
    """All parameters a tensor is split into; the loader's renaming names the first of them."""
    used = next((entry for entry in converters if pattern is not None and pattern in entry.source_patterns), None)
    targets = used.target_patterns if used is not None else []
    if len(targets) < 2 or targets[0] not in renamed:
        return [renamed]
    before, _, after = renamed.partition(targets[0])
    return [f"{before}{target}{after}" for target in targets]


def linear_modules(tensors: Iterable[str]) -> tuple[str, ...]:
    """The modules of the checkpoint's tensors that became one matrix."""
    return tuple(name.removesuffix(".weight") for name in tensors)


def expert_modules(attribute: str, experts: int, tensors: Iterable[str]) -> Mapping[int, tuple[str, ...]] | None:
    """The checkpoint's modules of every expert, by the expert's number.

    Args:
        attribute: the stack's name in memory, such as `gate_up_proj`.
        experts: how many it holds.
        tensors: the checkpoint's tensors it was made of.

    Returns:
        None where the names do not tell.
    """
    tensors = _stacks(tensors)
    if len(tensors) == 1 and _last(tensors[0]) == attribute:
        parent = tensors[0].removesuffix(".weight").rpartition(".")[0]
        parts = [part for part, known in _parts().items() if part in PLAIN_PARTS and known["tensor"] == attribute]
        return {
            number: tuple(f"{parent}.{number}.{part}" for part in parts or [attribute]) for number in range(experts)
        }
    found: dict[int, list[str]] = {}
    for name in tensors:
        numbers = _NUMBERED.findall(name)
        if not numbers:
            return None
        found.setdefault(int(numbers[-1]), []).append(name.removesuffix(".weight"))
    if found.keys() != set(range(experts)):
        return None
    return {number: tuple(sorted(found[number])) for number in range(experts)}


def _stacks(tensors: Iterable[str]) -> list[str]:
    """Blocks under the name of what they stand for; their scales have no name of their own."""
    names = list(tensors)
    blocks = {name.removesuffix(BLOCKS) for name in names if name.endswith(BLOCKS)}
    scales = {f"{name}{SCALES}" for name in blocks}
    return [name.removesuffix(BLOCKS) for name in names if name not in scales]


def _last(name: str) -> str:
    return name.removesuffix(".weight").rpartition(".")[2]


def _parts() -> Mapping[str, Mapping[str, Any]]:
    parts: Mapping[str, Mapping[str, Any]] = jsonio.data("architectures/experts.json")["parts"]
    return parts
