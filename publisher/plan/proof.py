"""Proof that an exclude list says what the plan says, read the way its producer and the serving engines read it.

Engines do not see the checkpoint's modules: q, k and v are one fused layer, all experts of a layer are one module. A
list is proven over those. Where members of one such layer have different decisions there is nothing to prove; the plan
names that as a problem of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from publisher import jsonio
from publisher.checkpoint.modules import class_of
from publisher.matching import (
    DIALECTS,
    Atom,
    Matcher,
    PartlyFused,
    PatternError,
    SglangCompressed,
    SglangModelopt,
    SglangQuark,
    TensorrtNew,
    VllmExactOrRegex,
    VllmModelopt,
)

_EXPERT = re.compile(r"^(.*\bexperts)\.(?:\d+\.[\w.-]+|gate_up_proj|down_proj)$")
INNER = "language_model."


def moe_module(name: str) -> str | None:
    """The MoE module an expert's projection becomes part of: `….mlp.experts`; None for anything else."""
    match = _EXPERT.match(name)
    return match.group(1) if match else None


def engine_modules(kept: Mapping[str, bool], fused: Mapping[str, Sequence[str]]) -> dict[str, bool | None]:
    """The modules an engine builds: name to whether it is kept, None where its members disagree.

    Args:
        kept: checkpoint module to whether it is kept.
        fused: the engine's fused layers, last name part to members.
    """
    owner = {member: layer for layer, members in fused.items() for member in members}
    built: dict[str, bool | None] = {}
    for name, keep in kept.items():
        parent, dot, last = name.rpartition(".")
        module = moe_module(name)
        if module is None and last in owner and all(f"{parent}{dot}{m}" in kept for m in fused[owner[last]]):
            module = f"{parent}{dot}{owner[last]}"
        module = module or name
        built[module] = keep if built.setdefault(module, keep) == keep else None
    return built


def disagreements(layout: str, entries: Sequence[str], quantized: Iterable[str], kept: Iterable[str]) -> list[str]:
    """What a reader of the list would understand otherwise than the plan, one sentence for each reader.

    Args:
        layout: modelopt, quark or compressed-tensors.
        entries: the exclude list.
        quantized: modules the plan quantizes.
        kept: modules the plan keeps.
    """
    plan = {**dict.fromkeys(quantized, False), **dict.fromkeys(kept, True)}
    try:
        return [*_producer(layout, entries, plan), *_engines(layout, entries, plan)]
    except PatternError as error:
        return [f"the exclude list cannot be read back: {error.message}"]


def _producer(layout: str, entries: Sequence[str], plan: Mapping[str, bool]) -> Iterator[str]:
    excluded = DIALECTS[layout](entries, plan)
    wrong = {name: keep for name, keep in plan.items() if (name in excluded) != keep}
    if wrong:
        yield _sentence(f"{layout}'s own reading", wrong)


def _engines(layout: str, entries: Sequence[str], plan: Mapping[str, bool]) -> Iterator[str]:
    for engine, matcher, inner in _readers(layout, entries):
        facts = jsonio.data(f"engines/{engine}.json")
        wrong: dict[str, bool] = {}
        for name, keep in engine_modules(plan, facts["fused"]).items():
            candidates = {name, name.removeprefix(INNER)} if inner else {name}
            if keep is not None and any(_excluded(matcher, candidate) is not keep for candidate in candidates):
                wrong[name] = keep
        if wrong:
            yield _sentence(facts["engine"], wrong)


def _excluded(matcher: Matcher, name: str) -> bool | None:
    try:
        return matcher(name)
    except PartlyFused:
        return None


def _readers(layout: str, entries: Sequence[str]) -> Iterator[tuple[str, Matcher, bool]]:
    """Engine, its matcher, and whether it also builds the language model without its prefix."""
    for engine in jsonio.data(f"dialects/{layout}.json")["readers"]:
        for matcher, inner in _MATCHERS[layout, engine](entries, jsonio.data(f"engines/{engine}.json")):
            yield engine, matcher, inner


def _vllm_modelopt(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    for mapped in (False, True):
        always = facts["always_unquantized"]["modelopt"]
        yield VllmModelopt(entries, facts["fused"], always=always, mapped=mapped), False


def _sglang_modelopt(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    both = dict.fromkeys([*entries, *(entry.removeprefix(INNER) for entry in entries)])
    yield SglangModelopt(both, facts["fused"], tails=facts["last_part_only"]), True


def _quark(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield VllmExactOrRegex(entries, facts["fused"], moe_children=True), False


def _sglang_quark(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield SglangQuark(entries, facts["fused"]), False


def _tensorrt(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield TensorrtNew(entries, facts["fused"]), False


def _exact(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield VllmExactOrRegex(entries, facts["fused"], moe_children=False), False


def _sglang_compressed(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield SglangCompressed(entries, facts["fused"]), True


def _atom(entries: Sequence[str], facts: Mapping[str, Any]) -> Iterator[tuple[Matcher, bool]]:
    yield Atom(entries, facts["fused"], children=True), False


_MATCHERS = {
    ("modelopt", "vllm"): _vllm_modelopt,
    ("modelopt", "sglang"): _sglang_modelopt,
    ("modelopt", "tensorrt-llm"): _tensorrt,
    ("quark", "vllm"): _quark,
    ("quark", "sglang"): _sglang_quark,
    ("quark", "atom"): _atom,
    ("compressed-tensors", "vllm"): _exact,
    ("compressed-tensors", "sglang"): _sglang_compressed,
    ("compressed-tensors", "tensorrt-llm"): _tensorrt,
}


def _sentence(reader: str, wrong: Mapping[str, bool]) -> str:
    name, keep = next(iter(wrong.items()))
    understood = "quantized, but the plan keeps it" if keep else "unquantized, but the plan quantizes it"
    return (
        f"{reader} would read {len(wrong)} modules otherwise than the plan: {class_of(name)} ({name}) as {understood}; "
        "choose patterns that keep or quantize whole layers"
    )
