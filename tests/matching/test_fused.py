"""Fused layers: the names of their members, and lists that name only some."""

from __future__ import annotations

import pytest

from publisher.matching import PartlyFused
from publisher.matching.fused import all_or_none, shards

FUSED = {"gate_up_proj": ["gate_proj", "up_proj"]}


def test_members_stand_where_the_fused_name_stood() -> None:
    assert shards("a.mlp.gate_up_proj", FUSED) == ["a.mlp.gate_proj", "a.mlp.up_proj"]
    assert shards("a.mlp.down_proj", FUSED) is None


def test_all_none_or_a_refusal() -> None:
    names = ["a.gate_proj", "a.up_proj"]
    assert all_or_none("a.gate_up_proj", names, lambda _: True)
    assert not all_or_none("a.gate_up_proj", names, lambda _: False)
    with pytest.raises(PartlyFused, match=r"names gate_proj of a\.gate_up_proj but not all 2"):
        all_or_none("a.gate_up_proj", names, "a.gate_proj".__eq__)
