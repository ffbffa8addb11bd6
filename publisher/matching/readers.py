"""Which engine reads the exclude list of which layout, and under which names it builds a model's modules.

An engine that does not load a layout's format reads nothing, and neither does one whose names for a model are not in
its table: a wrapped model (`language_model.…`) is renamed by each engine in its own way, and guessing would accuse good
checkpoints. Tables: `data/engines/*.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from publisher import jsonio
from publisher.matching.atom import Atom
from publisher.matching.fused import FusedMap, Matcher
from publisher.matching.sglang import SglangCompressed, SglangModelopt, SglangQuark
from publisher.matching.tensorrt import TensorrtNew
from publisher.matching.vllm import INNER, VllmExactOrRegex, VllmModelopt

LAYOUTS = ("modelopt", "quark", "compressed-tensors")
READERS = ("vllm", "sglang", "tensorrt-llm", "atom")
LINEAR = frozenset({"attention", "mlp", "shared_expert", "expert"})
_WRAPPED = (INNER, "model.language_model.")

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One engine's reading of one list for one model.

    Args:
        engine: its key, such as `vllm`.
        label: its name, such as `vLLM`.
        fused: its fused layers, last name part to members.
        matcher: whether it leaves a module unquantized, by the engine's own name.
        roles: roles of the modules it asks the list about; it builds all others unquantized anyway.
        renames: checkpoint prefix to the engine's own.
    """

    engine: str
    label: str
    fused: FusedMap
    matcher: Matcher
    roles: frozenset[str]
    renames: tuple[tuple[str, str], ...]

    def internal(self, name: str) -> str:
        """The engine's own name of a module of the checkpoint."""
        return renamed(f"{name}.", self.renames)[:-1]


def renamed(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """A name after each replacement of a prefix, in order, as the engines' `WeightsMapper` does it."""
    for old, new in pairs:
        if name.startswith(old):
            name = new + name[len(old) :]
    return name


def reader(
    engine: str, layout: str, form: str | None, entries: Sequence[str], model_type: str, names: Collection[str]
) -> Reader | None:
    """An engine's reading of a list; None where it does not load the format or its names for the model are not known.

    Args:
        engine: one of `READERS`.
        layout: modelopt, quark or compressed-tensors.
        form: nvfp4 or mxfp4.
        entries: the exclude list.
        model_type: `model_type` of config.json.
        names: the checkpoint's module names.

    Raises:
        PatternError: an entry cannot be evaluated safely.
    """
    facts = jsonio.data(f"engines/{engine}.json")
    if form not in facts["loads"].get(layout, ()):
        return None
    row = _row(facts, layout, model_type, names)
    if row is None:
        return None
    roles = LINEAR | set(facts.get("asks", {}).get(layout, ()))
    if model_type in facts.get("asks_for_routers", ()):
        roles |= {"router"}
    return Reader(
        engine=engine,
        label=facts["engine"],
        fused=facts["fused"],
        matcher=_MATCHERS[layout, engine](entries, facts, row[1]),
        roles=frozenset(roles - set(facts.get("not_read", {}).get(layout, ()))),
        renames=row[0],
    )


def _row(
    facts: Mapping[str, Any], layout: str, model_type: str, names: Collection[str]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] | None:
    """How an engine renames a model's modules, and the list's entries; None where that is not known."""
    for row in facts["names"]:
        known = model_type in row["model_types"] and layout in row.get("layouts", LAYOUTS)
        if known and any(name.startswith(row.get("begins", "")) for name in names):
            return _pairs(row["modules"]), _pairs(row["entries"])
    plain = any(name.startswith("model.layers.") for name in names)
    return ((), ()) if plain and not any(name.startswith(_WRAPPED) for name in names) else None


def _pairs(rows: Iterable[Sequence[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((old, new) for old, new in rows)


# --- an engine's matcher over the entries it sees -------------------------------------------------------------------


def _vllm_modelopt(entries: Sequence[str], facts: Mapping[str, Any], pairs: Pairs) -> Matcher:
    always = facts["always_unquantized"]["modelopt"]
    if not pairs:
        return VllmModelopt(entries, facts["fused"], always=always)
    split = VllmModelopt(entries, facts["fused"], mapped=True).entries
    return VllmModelopt([renamed(entry, pairs) for entry in split], facts["fused"], always=always)


def _sglang_modelopt(entries: Sequence[str], facts: Mapping[str, Any], pairs: Pairs) -> Matcher:
    mapped = [renamed(entry, pairs) for entry in entries]
    both = dict.fromkeys([*mapped, *(entry.removeprefix(INNER) for entry in mapped)] if pairs else mapped)
    return SglangModelopt(both, facts["fused"], tails=facts["last_part_only"])


def _exact(moe_children: bool) -> Callable[[Sequence[str], Mapping[str, Any], Pairs], Matcher]:
    def make(entries: Sequence[str], facts: Mapping[str, Any], pairs: Pairs) -> Matcher:
        mapped = [renamed(entry, pairs) for entry in entries]
        return VllmExactOrRegex(mapped, facts["fused"], moe_children=moe_children)

    return make


def _sglang_compressed(entries: Sequence[str], facts: Mapping[str, Any], _: Pairs) -> Matcher:
    return SglangCompressed(entries, facts["fused"])  # its mapper leaves this list as it is


def _sglang_quark(entries: Sequence[str], facts: Mapping[str, Any], pairs: Pairs) -> Matcher:
    return SglangQuark([renamed(entry, pairs) for entry in entries], facts["fused"])


def _tensorrt(entries: Sequence[str], facts: Mapping[str, Any], _: Pairs) -> Matcher:
    return TensorrtNew(entries, facts["fused"])


def _atom(entries: Sequence[str], facts: Mapping[str, Any], pairs: Pairs) -> Matcher:
    return Atom(entries, facts["fused"], replaced=dict(pairs), children=True)


_MATCHERS: Mapping[tuple[str, str], Callable[[Sequence[str], Mapping[str, Any], Pairs], Matcher]] = {
    ("modelopt", "vllm"): _vllm_modelopt,
    ("modelopt", "sglang"): _sglang_modelopt,
    ("modelopt", "tensorrt-llm"): _tensorrt,
    ("quark", "vllm"): _exact(True),
    ("quark", "sglang"): _sglang_quark,
    ("quark", "atom"): _atom,
    ("compressed-tensors", "vllm"): _exact(False),
    ("compressed-tensors", "sglang"): _sglang_compressed,
    ("compressed-tensors", "tensorrt-llm"): _tensorrt,
}
