"""`publisher diff`: the exit code says whether anything differs, a screen says what."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.builders.tiny import llama, mixture, nvfp4
from tests.cli.conftest import Workspace
from tests.hub.loopback import LoopbackHub


def test_a_copy_is_the_same_and_an_edit_is_not(workspace: Workspace) -> None:
    nvfp4(llama()).write(workspace.folder / "a")
    shutil.copytree(workspace.folder / "a", workspace.folder / "b")
    done = workspace.publisher("diff", "a", "b", "--level", "full", fresh=True)
    assert "the same, as far as compared" in done.out
    tiny = nvfp4(llama())
    tiny.poke("model.layers.1.mlp.up_proj.weight_scale", 2, 0x7F)
    tiny.config["rope_theta"] = 1.0
    tiny.write(workspace.folder / "b")
    done = workspace.publisher("diff", "a", "b", "--level", "scales", code=1)
    assert "rope_theta" in done.out
    assert "model.layers.1.mlp.up_proj.weight_scale" in done.out
    assert "[0, 2]" in done.out
    assert "not compared: the bits of" in done.out
    document = workspace.publisher("diff", "a", "b", "--level", "scales", "--format", "json", code=1).json
    assert document["same"] is False
    assert document["values"][0]["first"]["first"] == [0, 2]
    assert workspace.publisher("diff", "a", "b", "--format", "quiet", code=1).out == ""


def test_a_quantized_checkpoint_beside_its_source_fits_a_screen(workspace: Workspace) -> None:
    mixture().write(workspace.folder / "bf16")
    nvfp4(mixture()).write(workspace.folder / "fp4")
    done = workspace.publisher("diff", "bf16", "fp4", code=1)
    assert "model.layers.*.mlp.experts.*.up_proj" in done.out
    assert "bf16" in done.out
    assert len(done.out.splitlines()) < 60


def test_a_repository_is_compared_by_its_headers(workspace: Workspace) -> None:
    folder = nvfp4(llama()).write(workspace.folder / "a")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with LoopbackHub() as hub:
        hub.seed_repo(f"{hub.user}/tiny-fp4", files)
        env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(workspace.folder / "home")}
        done = workspace.publisher("diff", "a", f"hf://{hub.user}/tiny-fp4", **env)
        assert "the same" in done.out
        (folder / "LICENSE").write_bytes(b"other")
        assert "LICENSE" in workspace.publisher("diff", "a", f"hf://{hub.user}/tiny-fp4", code=1, **env).out
        assert hub.token not in done.out + done.err


def test_recipes_are_compared_with_their_defaults(workspace: Workspace) -> None:
    text = (workspace.folder / workspace.recipe()).read_text()
    (workspace.folder / "other.yaml").write_text(text.replace("name: tiny", "name: tiny\nmode: even"))
    assert "the same" in workspace.publisher("diff", "mxfp4.yaml", "other.yaml").out
    (workspace.folder / "other.yaml").write_text(text.replace("name: tiny", "name: tiny\nmode: floor"))
    done = workspace.publisher("diff", "mxfp4.yaml", "other.yaml", code=1)
    assert "~ mode" in done.out
    found = workspace.publisher("diff", "mxfp4.yaml", "other.yaml", "--format", "json", code=1).json
    assert [change["key"] for change in found["recipe"]] == ["mode"]


def test_what_cannot_be_compared_is_refused(workspace: Workspace) -> None:
    workspace.recipe()
    assert "cannot be compared" in workspace.publisher("diff", "mxfp4.yaml", "source", code=2).err
    assert "does not exist" in workspace.publisher("diff", "nowhere", "source", code=2).err


def test_names_of_a_stranger_do_not_reach_the_terminal(workspace: Workspace) -> None:
    tiny = llama()
    tiny.rename("model.norm.weight", "model.\x1b[31mnorm[bold].weight")
    tiny.config["x\x1b[2J"] = "\x1b]0;title\x07"
    tiny.write(workspace.folder / "b")
    done = workspace.publisher("diff", "source", "b", code=1)
    assert "\x1b" not in done.out
    assert "[bold]" in done.out


def test_the_same_exit_code_whatever_the_format(tmp_path: Path, workspace: Workspace) -> None:
    for form in ("human", "json", "quiet"):
        workspace.publisher("diff", "source", "source", "--format", form, code=0)
