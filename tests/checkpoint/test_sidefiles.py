"""What travels with the weights, compared byte for byte with the source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from publisher.checkpoint.sidefiles import restore
from publisher.errors import PublisherError

CONFIG = """{
  "z_first": 1e-05,
  "auto_map": {"AutoModel": "modeling_x.XModel"},
  "quantization_config": {"quant_method": "old"},
  "text_config": {"b": [1, {"quantization_config": {}, "k": null}], "quantization_config": {"old": 1}, "a": "ü"},
  "compression_config": {"old": 2},
  "last": 1234567890123456789
}"""
CARRIED = {
    "LICENSE": b"Apache\r\n\xff\x00",
    "NOTICE.txt": b"notice",
    "THIRD_PARTY/LICENSE-x": b"nested",
    "THIRD_PARTY/README.md": b"about them",
    "modeling_x.py": b"print(1)\n",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"\x0a\x0dsentencepiece",
    "chat_template.jinja": b"{{ messages }}",
    "generation_config.json": b'{"b": 1,   "a": 2}',
    "figures/plot.png": b"\x89PNG",
}
LEFT = {
    "model-00001-of-00001.safetensors": b"w",
    "model.safetensors.index.json": b"{}",
    "pytorch_model.bin": b"w",
    "pytorch_model.bin.index.json": b"{}",
    "consolidated.00.pth": b"w",
    "consolidated_params.json": b"w",
    "original/consolidated.safetensors": b"w",
    "model.gguf": b"GGUF",
    "tf_model.h5": b"w",
    "flax_model.msgpack": b"w",
    "onnx/model.onnx": b"w",
    "README.md": b"upstream card",
    "hf_quant_config.json": b'{"old": true}',
    ".gitattributes": b"* lfs",
    ".cache/huggingface/x.json": b"{}",
    ".git/HEAD": b"ref",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for name, content in {**CARRIED, **LEFT, "config.json": CONFIG.encode()}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


@pytest.fixture
def goal(tmp_path: Path) -> Path:
    folder = tmp_path / "goal"
    folder.mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_side_files_arrive_byte_for_byte_and_weights_do_not(source: Path, goal: Path) -> None:
    written = restore(source, goal, {"quant_method": "modelopt"}, {"producer": {}})
    assert names(goal) == {*CARRIED, "config.json", "hf_quant_config.json"}
    assert written == sorted(names(goal))
    assert {name: (goal / name).read_bytes() for name in CARRIED} == CARRIED
    assert json.loads((goal / "hf_quant_config.json").read_text()) == {"producer": {}}
    assert {(goal / name).stat().st_mode & 0o777 for name in written} == {0o644}


def test_config_keeps_every_key_and_its_order_and_has_one_block(source: Path, goal: Path) -> None:
    restore(source, goal, {"quant_method": "modelopt", "ignore": ["b", "a"]}, None)
    text = (goal / "config.json").read_text()
    config = json.loads(text)
    assert list(config) == ["z_first", "auto_map", "text_config", "last", "quantization_config"]
    assert config["quantization_config"] == {"quant_method": "modelopt", "ignore": ["b", "a"]}
    assert text.count("quantization_config") == 1
    assert "compression_config" not in text
    assert config["text_config"] == {"b": [1, {"k": None}], "a": "ü"}
    assert config["last"] == 1234567890123456789
    assert config["z_first"] == 1e-05


def test_what_an_engine_wrote_is_replaced(source: Path, goal: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json", "config.json", "hf_quant_config.json"):
        (goal / name).write_text('{"rewritten": true}')
    restore(source, goal, {}, None)
    assert (goal / "tokenizer.json").read_bytes() == CARRIED["tokenizer.json"]
    assert (goal / "generation_config.json").read_bytes() == CARRIED["generation_config.json"]
    assert not (goal / "hf_quant_config.json").exists()


def test_a_gguf_saved_as_tokenizer_model_stays_behind(source: Path, goal: Path) -> None:
    (source / "tokenizer.model").write_bytes(b"GGUF\x03\x00\x00\x00")
    restore(source, goal, {}, None)
    assert not (goal / "tokenizer.model").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_links_that_lead_out_are_refused(source: Path, goal: Path, tmp_path: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    if kind == "file":
        secret.write_text("password")
    else:
        secret.mkdir()
        (secret / "x").write_text("password")
    (source / "NOTICE-2").symlink_to(secret)
    with pytest.raises(PublisherError, match="NOTICE-2 is a link"):
        restore(source, goal, {}, None)
    assert names(goal) == set()


def test_links_of_the_hub_cache_are_followed(tmp_path: Path, goal: Path) -> None:
    snapshot, blobs = tmp_path / "models--o--n/snapshots/abc", tmp_path / "models--o--n/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name, content in (("config.json", b"{}"), ("LICENSE", b"text")):
        (blobs / name).write_bytes(content)
        (snapshot / name).symlink_to(Path("../../blobs") / name)
    restore(snapshot, goal, {}, None)
    assert (goal / "LICENSE").read_bytes() == b"text"
    assert not (goal / "LICENSE").is_symlink()


@pytest.mark.parametrize("content", [None, "[]", "{", '{"a": 1, "a": 2}'])
def test_a_config_that_is_none_is_refused(source: Path, goal: Path, content: str | None) -> None:
    (source / "config.json").unlink()
    if content is not None:
        (source / "config.json").write_text(content)
    with pytest.raises(PublisherError, match=r"config\.json"):
        restore(source, goal, {}, None)
