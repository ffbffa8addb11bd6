"""A long exclude list is told by its patterns and folded; a short one is printed as it is."""

from __future__ import annotations

import json
from pathlib import Path

from publisher.card.coverage import MAX_ENTRIES, exclude_list
from publisher.checkpoint.open import open_checkpoint


def listed(folder: Path, entries: list[str], dialect: str = "modelopt") -> Path:
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["ignore" if dialect == "modelopt" else "exclude"] = entries
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_short_list_is_printed_as_written(nvfp4: Path) -> None:
    found = exclude_list(open_checkpoint(nvfp4))
    assert found is not None
    assert found.patterns is None
    assert found.entries == ("lm_head", "model.layers.0.self_attn*", "model.layers.1.self_attn*")
    assert found.matched == "9 of the checkpoint's 16 modules that have a weight matrix"


def test_a_long_list_is_told_by_its_patterns(nvfp4: Path) -> None:
    names = [f"model.layers.{n}.self_attn.{p}_proj" for n in range(8) for p in "qk"]
    found = exclude_list(open_checkpoint(listed(nvfp4, [*names, "lm_head", "*vision*"])))
    assert found is not None
    assert found.patterns is not None
    rows = {row[0].text: (row[1].text, row[2].text) for row in found.patterns.rows}
    assert rows == {
        "model.layers.N.self_attn.q_proj": ("8", "2 of 8"),  # the model has two layers
        "model.layers.N.self_attn.k_proj": ("8", "2 of 8"),
        "lm_head": ("1", "1 of 1"),
        "*vision*": ("1", "a pattern"),
    }
    assert found.matched.startswith("5 of the checkpoint's 16")


def test_a_list_of_thousands_stays_small(nvfp4: Path) -> None:
    entries = [f"model.layers.{n}.mlp.experts.{e}.up_proj" for n in range(60) for e in range(384)]
    found = exclude_list(open_checkpoint(listed(nvfp4, entries)))
    assert found is not None
    assert (found.total, len(found.entries), found.more) == (23_040, MAX_ENTRIES, 23_040 - MAX_ENTRIES)
    assert found.patterns is not None
    assert len(found.patterns.rows) == 1


def test_a_list_nobody_can_evaluate_is_printed_without_counts(mxfp4: Path) -> None:
    found = exclude_list(open_checkpoint(listed(mxfp4, ["re:(a+)+$", "lm_head"], "quark")))
    assert found is not None
    assert found.matched == ""
    assert found.entries == ("re:(a+)+$", "lm_head")


def test_no_list_is_none(nvfp4: Path, source: Path) -> None:
    assert exclude_list(open_checkpoint(listed(nvfp4, []))) is None
    assert exclude_list(open_checkpoint(source)) is None
