"""Random edits of good checkpoints: with source and manifest at hand, every one that changes meaning is found."""

from __future__ import annotations

from pathlib import Path

from benchmarks.mutation import measure
from tests.builders.mutations import MUTATORS


def test_no_edit_survives_source_and_manifest(tmp_path: Path) -> None:
    table = measure(6, tmp_path, seed=3, regimes=("source and manifest",))["source and manifest"]
    assert [survivor for tally in table.values() for survivor in tally.survivors] == []
    assert all(table[kind].tried >= 12 for kind in MUTATORS)


def test_structure_needs_neither(tmp_path: Path) -> None:
    """What headers and the index alone give away; the rest is measured, not promised."""
    table = measure(6, tmp_path, seed=3, regimes=("alone",))["alone"]
    for kind, least in (("header byte", 1.0), ("index field", 1.0), ("shard", 1.0), ("header field", 0.85)):
        assert table[kind].rate >= least, table[kind].survivors
