"""A proposal names every change before a byte is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import CheckpointError, PublisherError
from publisher.repair import REPAIRS, propose
from tests.builders.edits import body, file, later
from tests.rules.cases import GOOD


def test_only_what_was_asked_for(tmp_path: Path) -> None:
    source, result = GOOD["llama-nvfp4"]()
    body(lambda b: b.update(kv_cache_quant_algo="FP8"))(result)
    file("LICENSE", b"x")(result)
    origin, checkpoint = open_checkpoint(source.write(tmp_path / "s")), open_checkpoint(result.write(tmp_path / "r"))
    assert propose(checkpoint, source=origin).touched == ("LICENSE", "hf_quant_config.json")
    assert propose(checkpoint, source=origin, only=["side-files"]).touched == ("LICENSE",)
    assert propose(checkpoint).touched == ("hf_quant_config.json",)
    with pytest.raises(PublisherError, match="no repair 'weights'") as caught:
        propose(checkpoint, only=["weights"])
    assert all(name in caught.value.hint for name in REPAIRS)


def test_a_config_that_cannot_be_read_needs_the_source(tmp_path: Path) -> None:
    source, result = GOOD["llama-nvfp4"]()
    later(lambda folder: (folder / "config.json").write_text("{"))(result)
    checkpoint = open_checkpoint(result.write(tmp_path / "r"))
    with pytest.raises(CheckpointError) as caught:
        propose(checkpoint)
    assert "--source" in caught.value.hint
    proposal = propose(checkpoint, source=open_checkpoint(source.write(tmp_path / "s")))
    assert "config.json" in proposal.documents


def test_the_digest_tells_repairs_apart(tmp_path: Path) -> None:
    source, result = GOOD["llama-nvfp4"]()
    body(lambda b: b.update(kv_cache_quant_algo="FP8"))(result)
    file("LICENSE", b"x")(result)
    origin, checkpoint = open_checkpoint(source.write(tmp_path / "s")), open_checkpoint(result.write(tmp_path / "r"))
    assert propose(checkpoint, source=origin).digest() == propose(checkpoint, source=origin).digest()
    assert propose(checkpoint, source=origin).digest() != propose(checkpoint).digest()
