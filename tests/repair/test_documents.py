"""A broken document or side file is repaired so that no rule speaks of it, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.repair import into, propose
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.edits import (
    SECOND,
    Edit,
    body,
    config,
    each,
    file,
    index,
    later,
    quant,
    same_name,
    stray,
)
from tests.rules.cases import GOOD

BROKEN: list[tuple[str, str, Edit, str]] = [
    ("ghost", "llama-nvfp4", index(lambda i: i["weight_map"].update({"ghost.weight": SECOND})), "index"),
    ("unlisted", "llama-nvfp4", index(lambda i: i["weight_map"].pop("lm_head.weight")), "index"),
    ("file-sizes", "llama-mxfp4", index(lambda i: i["metadata"].update(total_size=1)), "index"),
    ("no-index", "llama-mxfp4", lambda tiny: setattr(tiny, "index", False), "index"),
    ("kv", "llama-nvfp4", body(lambda b: b.update(kv_cache_quant_algo="FP8")), "declaration"),
    ("no-file", "llama-nvfp4", lambda tiny: setattr(tiny, "hf_quant_config", None), "declaration"),
    ("only-file", "llama-nvfp4", lambda tiny: tiny.config.pop("quantization_config"), "declaration"),
    ("only-file-w4a16", "llama-w4a16", lambda tiny: tiny.config.pop("quantization_config"), "declaration"),
    (
        "nested",
        "kimi-nvfp4",
        lambda tiny: tiny.config["text_config"].update(quantization_config={"quant_method": "compressed-tensors"}),
        "declaration",
    ),
    (
        "beside-quark",
        "llama-mxfp4",
        lambda tiny: setattr(tiny, "hf_quant_config", {"quantization": {"quant_algo": "MXFP4"}}),
        "declaration",
    ),
    ("head-unlisted", "llama-mxfp4", quant(lambda q: q.update(exclude=[])), "ignore"),
    (
        "list-empty",
        "kimi-nvfp4",
        each(quant(lambda q: q.update(ignore=[])), body(lambda b: b.update(exclude_modules=[]))),
        "ignore",
    ),
    ("list-empty-ct", "kimi-ct-mxfp4", quant(lambda q: q.update(ignore=[])), "ignore"),
    ("rope", "llama-nvfp4", config(rope_theta=1e6), "config"),
    ("licence", "llama-nvfp4", file("LICENSE", b"other\n"), "side-files"),
    ("template", "kimi-mxfp4", file("chat_template.jinja", None), "side-files"),
]


@pytest.mark.parametrize(("name", "base", "edit", "repair"), BROKEN, ids=[row[0] for row in BROKEN])
def test_what_is_broken_is_repaired(name: str, base: str, edit: Edit, repair: str, tmp_path: Path) -> None:
    source, result = GOOD[base]()
    edit(result)
    origin = open_checkpoint(source.write(tmp_path / "source"))
    proposal = propose(open_checkpoint(result.write(tmp_path / "result")), source=origin)
    assert {change.repair for change in proposal.changes} == {repair}
    fixed = into(proposal, tmp_path / "fixed")
    report = run(Evidence(checkpoint=open_checkpoint(fixed), source=origin, base_model="tiny/tiny"), level="full")
    assert report.errors == (), "\n".join(f"{f.code} {f.message}" for f in report.findings)
    assert propose(open_checkpoint(fixed), source=origin).changes == ()
    for path in (tmp_path / "result").glob("*.safetensors"):
        assert (fixed / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("base", GOOD)
def test_a_good_checkpoint_needs_nothing(base: str, tmp_path: Path) -> None:
    source, result = GOOD[base]()
    origin = open_checkpoint(source.write(tmp_path / "source"))
    proposal = propose(open_checkpoint(result.write(tmp_path / "result")), source=origin, scales=True)
    assert (proposal.changes, proposal.refused) == ((), ())


def lost_shard(folder: Path) -> None:
    (folder / SECOND).unlink()


def cut_header(folder: Path) -> None:
    path = folder / SECOND
    path.write_bytes(path.read_bytes()[:64])


@pytest.mark.parametrize("change", [lost_shard, cut_header, same_name], ids=["lost", "cut", "twice"])
def test_an_index_never_hides_a_loss(change: Any, tmp_path: Path) -> None:
    """A new index over what is left would turn a missing shard into a checkpoint that looks complete."""
    _, result = GOOD["llama-nvfp4"]()
    later(change)(result)
    proposal = propose(open_checkpoint(result.write(tmp_path)))
    assert "index" in {entry.repair for entry in proposal.refused}
    assert proposal.documents == {}


def test_a_stray_shard_enters_the_index_only_if_it_is_sound(tmp_path: Path) -> None:
    _, result = GOOD["llama-nvfp4"]()
    later(stray)(result)
    proposal = propose(open_checkpoint(result.write(tmp_path)))
    listed = json.loads(proposal.documents.get("model.safetensors.index.json", b'{"weight_map": {}}'))["weight_map"]
    assert "old.safetensors" not in listed.values()


def test_an_entry_over_packed_layers_is_left_to_a_person(tmp_path: Path) -> None:
    _, result = GOOD["llama-nvfp4"]()
    both = each(quant(lambda q: q["ignore"].append("*.mlp.*")), body(lambda b: b["exclude_modules"].append("*.mlp.*")))
    both(result)
    proposal = propose(open_checkpoint(result.write(tmp_path)))
    assert [entry.repair for entry in proposal.refused] == ["ignore"]
    assert "6 packed layers" in proposal.refused[0].message


def test_an_exotic_declaration_is_refused(tmp_path: Path) -> None:
    _, result = GOOD["llama-nvfp4"]()
    result.config.pop("quantization_config")
    body(lambda b: b.update(quant_algo="NVFP4_AWQ"))(result)
    proposal = propose(open_checkpoint(result.write(tmp_path)))
    assert [entry.repair for entry in proposal.refused] == ["declaration"]
