"""The counts cards give: each pattern reads what it is meant to read, and what counts nothing is not read."""

from __future__ import annotations

import pytest

from publisher.claims.counts import COUNTS


def read(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for counted in COUNTS:
        for match in counted.pattern.finditer(text):
            number = match.group("n") or match.groupdict().get("m") or "0"
            found.setdefault(counted.noun, int(number.replace(",", "")))
    return found


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("61 layers (1 dense MLP + 60 MoE)", {"hidden layers": 61, "dense layers": 1, "layers of experts": 60}),
        ("384 routed + 1 shared expert, top-8", {"routed experts": 384, "shared experts": 1, "experts per token": 8}),
        ("MLA attention, 64 heads, 8 KV heads", {"attention heads": 64, "key-value heads": 8}),
        ("same 384+1 MoE topology", {"routed experts": 384}),
        ("Quantized modules: 69,120", {"quantized modules": 69120}),
        ("30 kept layers of 32 in all experts", {}),
        ("Quantized modules: 59.2% of all", {}),
        ("60 layers × 384 experts × 3 projections", {"routed experts": 384}),
        ("8 experts per token", {}),
    ],
)
def test_counts_are_read(text: str, counts: dict[str, int]) -> None:
    assert read(text) == counts
