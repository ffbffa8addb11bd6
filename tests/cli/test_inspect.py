"""`publisher inspect`: tables of what the builders wrote, by headers alone."""

from __future__ import annotations

import math

from tests.builders.tiny import Tensor, kimi, llama, nvfp4
from tests.cli.conftest import Workspace
from tests.hub.loopback import LoopbackHub


def test_tables_say_what_is_stored(workspace: Workspace) -> None:
    nvfp4(kimi()).write(workspace.folder / "c")
    out = workspace.publisher("inspect", "c", fresh=True).out
    for words in (
        "F8_E4M3", "shared expert", "language_model.model.layers.*.mlp.experts.*.up_proj", "nvfp4 in modelopt",
        "KimiK25ForConditionalGeneration", "bits per parameter", "largest tensors", "--all",
    ):  # fmt: skip
        assert words in out, words
    assert "norm" in workspace.publisher("inspect", "c", "--all").out


def test_the_numbers_are_the_builders(workspace: Workspace) -> None:
    source = kimi()
    tiny = nvfp4(source)
    tiny.write(workspace.folder / "c")
    found = workspace.publisher("inspect", "c", "--format", "json").json
    assert found["parameters"] == sum(math.prod(tensor.shape) for tensor in source.tensors.values())
    assert found["bytes"] == sum(len(tensor.data) for tensor in tiny.tensors.values())
    assert found["tensors"] == len(tiny.tensors)
    assert {row["dtype"] for row in found["dtypes"]} == {tensor.dtype for tensor in tiny.tensors.values()}
    assert found["declarations"][0]["format"] == "nvfp4"
    assert {split["size"] for split in found["tensor_parallel"]} >= {1, 2}
    assert "LICENSE" in found["side_files"]


def test_a_repository_is_read_by_ranges(workspace: Workspace) -> None:
    folder = nvfp4(llama()).write(workspace.folder / "a")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with LoopbackHub() as hub:
        hub.seed_repo(f"{hub.user}/tiny-fp4", files)
        env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(workspace.folder / "home")}
        done = workspace.publisher("inspect", f"hf://{hub.user}/tiny-fp4", "--format", "json", **env)
        assert done.json["checkpoint"].startswith(f"hf://{hub.user}/tiny-fp4@")
        local = workspace.publisher("inspect", "a", "--format", "json").json
        del local["checkpoint"], local["side_files"]  # the Hub adds a file of its own
        assert {key: done.json[key] for key in local} == local


def test_an_unquantized_or_damaged_checkpoint_is_told_as_it_is(workspace: Workspace) -> None:
    assert "no quantization" in workspace.publisher("inspect", "source").out
    (workspace.source / "config.json").write_text("{")
    assert "unreadable" in workspace.publisher("inspect", "source").out
    for shard in workspace.source.glob("*.safetensors"):
        shard.write_bytes(b"")
    workspace.publisher("inspect", "source")
    assert "does not exist" in workspace.publisher("inspect", "nowhere", code=2).err


def test_names_of_a_stranger_are_shown_not_obeyed(workspace: Workspace) -> None:
    tiny = llama()
    tiny.rename("lm_head.weight", "lm_head\x1b[31m[red].weight")
    tiny.config["architectures"] = ["\x1b]0;x\x07"]
    tiny.write(workspace.folder / "b")
    out = workspace.publisher("inspect", "b").out
    assert "\x1b" not in out
    assert "[red]" in out


def test_a_made_up_checkpoint_still_fits_a_screen(workspace: Workspace) -> None:
    tiny = llama()
    for number in range(3000):
        name = f"odd{'x' * 2000 if number < 3 else ''}{number}y.layers.{'9' * 5000}.weight"
        tiny.tensors[name] = Tensor(f"D{number}" if number < 500 else "BF16", (1, 1), bytes(2))
    tiny.write(workspace.folder / "odd")
    done = workspace.publisher("inspect", "odd")
    assert len(done.out) < 100_000
    workspace.publisher("diff", "source", "odd", code=1)
    page = workspace.folder / "r.html"
    workspace.publisher("validate", "odd", "--select", "CN", "--report", str(page), code=None)
    assert page.stat().st_size < 1_000_000
