"""The counts that cards give of a model, how they say them, and where the files tell the right number."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from publisher.claims.facts import CONFIG, HEADERS, Facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """A count that cards give.

    Args:
        noun: what is counted.
        pattern: how cards say it; the group `n` is the number.
        fact: the numbers that are right, empty where the files do not tell.
        where: the file that tells.
    """

    noun: str
    pattern: re.Pattern[str]
    fact: Callable[[Facts], tuple[int, ...]]
    where: str


def _keys(*names: str) -> Callable[[Facts], tuple[int, ...]]:
    def read(facts: Facts) -> tuple[int, ...]:
        found = facts.number(*names)
        return () if found is None else (found,)

    return read


def _layers(facts: Facts) -> tuple[int, ...]:
    count, more = facts.number("num_hidden_layers"), facts.number("num_nextn_predict_layers", "mtp_num_hidden_layers")
    return () if count is None else (count, count + (more or 0))


def _dense(facts: Facts) -> tuple[int, ...]:
    found = facts.config.get("first_k_dense_replace")
    return (found,) if type(found) is int and found >= 0 else ()


def _moe(facts: Facts) -> tuple[int, ...]:
    layers, dense = _layers(facts), _dense(facts)
    stored = facts.moe_layers
    return (*((layers[0] - dense[0],) if layers and dense else ()), *((stored,) if stored else ()))


def _plain(count: int | None) -> tuple[int, ...]:
    return () if count is None else (count,)


_N = r"(?P<n>\d{1,3}(?:,\d{3}){1,4}|\d{1,12})"
COUNTS = (
    Counted(
        noun="hidden layers",
        pattern=re.compile(rf"(?:^|[,(;|:]\s{{0,3}}){_N}\s(?:transformer |decoder |hidden )?layers\b"
            r"(?=\s{0,2}(?:[,);(]|$))"),
        fact=_layers,
        where=f"{CONFIG}: num_hidden_layers",
    ),
    Counted(
        noun="layers of experts",
        pattern=re.compile(rf"\b{_N}\sMoE(?: layers?\b|(?=\)))"),
        fact=_moe,
        where=f"{CONFIG} and {HEADERS}",
    ),
    Counted(
        noun="dense layers",
        pattern=re.compile(rf"\b{_N}\sdense (?:MLP |FFN )?(?:layers?\b|MLPs?\b|(?=\+))"),
        fact=_dense,
        where=f"{CONFIG}: first_k_dense_replace",
    ),
    Counted(
        noun="routed experts",
        pattern=re.compile(rf"\b(?<![-.]){_N}\s(?:\+\s1\s)?routed\b"),
        fact=lambda facts: _plain(facts.experts),
        where=CONFIG,
    ),
    Counted(
        noun="routed experts",
        pattern=re.compile(rf"(?:\b(?i:all)|\bMoE,|\bMoE with|[\u00d7*]|\u0e23\u2014)\s{_N}\sexperts\b"
            r"(?! per token| active)"),
        fact=lambda facts: _plain(facts.experts),
        where=CONFIG,
    ),
    Counted(
        noun="routed experts",
        pattern=re.compile(rf"\b{_N}\+\d{{1,2}}\s(?:MoE|experts)\b"),
        fact=lambda facts: _plain(facts.experts),
        where=CONFIG,
    ),
    Counted(
        noun="shared experts",
        pattern=re.compile(rf"\b(?<![-.+]){_N}\sshared(?: experts?)?\b(?! memory)"),
        fact=_keys("n_shared_experts", "num_shared_experts"),
        where=f"{CONFIG}: n_shared_experts",
    ),
    Counted(
        noun="experts per token",
        pattern=re.compile(rf"\b{_N}\s(?:active|activated)(?: experts)? per "
rf"token\b|\bexperts?\b[^.]{{0,40}}\btop-(?P<m>\d{{1,3}})\b"),
        fact=_keys("num_experts_per_tok", "moe_top_k", "experts_per_token"),
        where=f"{CONFIG}: num_experts_per_tok",
    ),
    Counted(
        noun="attention heads",
        pattern=re.compile(rf"(?:^|[,(;:]\s{{0,3}}){_N}\s(?:attention )?heads\b"),
        fact=_keys("num_attention_heads"),
        where=f"{CONFIG}: num_attention_heads",
    ),
    Counted(
        noun="key-value heads",
        pattern=re.compile(rf"\b{_N}\s(?:KV|key[- ]value) heads\b"),
        fact=_keys("num_key_value_heads"),
        where=f"{CONFIG}: num_key_value_heads",
    ),
    Counted(
        noun="tensors",
        pattern=re.compile(rf"\b{_N}\stensors\b(?=\s{{0,2}}(?:[,);.(]|$|in\b|across\b))"),
        fact=lambda facts: (len(facts.checkpoint.tensors),),
        where=HEADERS,
    ),
    Counted(
        noun="quantized modules",
        pattern=re.compile(
            rf"\b{_N}\s(?:quantized|(?:NV|MX)?FP4)\s(?:modules|linears|linear (?:layers|modules)|projections)\b"
            rf"|\bquantized (?:modules|linears|linear layers)\s{{0,2}}[:=]\s{{0,2}}(?P<m>\d[\d,]{{0,12}})(?![\d.]*%)",
            re.I,
        ),
        fact=lambda facts: (len(facts.quantized),),
        where=HEADERS,
    ),
    Counted(
        noun="calibrated cache scales",
        pattern=re.compile(rf"\b{_N}\scalibrated (?:KV |cache )?scales\b"),
        fact=lambda facts: (facts.cache_scales,),
        where=HEADERS,
    ),
)  # fmt: skip
