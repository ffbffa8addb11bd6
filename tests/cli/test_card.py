"""`publisher card`: the card on standard output, and any card beside its files."""

from __future__ import annotations

import json
import re
import shutil

from tests.builders.tiny import llama, nvfp4
from tests.cli.conftest import Workspace
from tests.hub.loopback import LoopbackHub


def test_card_prints_what_the_files_say(pushed: Workspace) -> None:
    asked = ("card", "run/checkpoint", "--source", "source", "--card", "card.toml", "--repo", "demo/x")
    done = pushed.publisher(*asked, fresh=True)
    assert done.out.startswith("---\n")
    assert "# x" in done.out
    assert "MXFP4" in done.out
    assert "| Weight error |" in done.out, "the engine's record lies beside the folder"


def test_our_own_card_claims_nothing_wrong(pushed: Workspace) -> None:
    for tree in (pushed.checkpoint, pushed.tree):
        done = pushed.publisher("card", "lint", str(tree), "--source", "source", "--complete", "--format", "json")
        assert done.json["findings"] == []


def test_a_wrong_card_is_told_line_by_line(pushed: Workspace) -> None:
    text = (pushed.checkpoint / "README.md").read_text()
    card = pushed.folder / "other.md"
    card.write_text(f"{text}\nStorage: 99 shards.\n\nThe MLP layers are stored â€” as MXFP4.\n")
    done = pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", "--format", "json", code=1)
    found = {f["code"]: f for f in done.json["findings"]}
    assert set(found) == {"LC04", "LC09"}
    line = len(text.splitlines()) + 2
    assert found["LC04"]["where"] == {"file": "README.md", "tensor": None, "index": [line]}
    assert f'Line {line} says "Storage: 99 shards."' in found["LC04"]["message"]
    assert (pushed.checkpoint / "README.md").read_text() == text
    human = pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", code=1)
    assert "99 shards" in human.out
    waived = ("--ignore", "LC04=counted otherwise", "--ignore", "LC09=as captured")
    pushed.publisher("card", "lint", "run/checkpoint", "--card", "other.md", *waived)


def test_beside_the_source_licence_and_base_model_are_judged_too(pushed: Workspace) -> None:
    text = (pushed.checkpoint / "README.md").read_text()
    text = text.replace("base_model_relation: quantized\n", "").replace("license: apache-2.0", "license: mit")
    (pushed.folder / "other.md").write_text(text)
    asked = ("card", "lint", "run/checkpoint", "--card", "other.md", "--format", "json")
    codes = {f["code"] for f in pushed.publisher(*asked, "--source", "source", code=1).json["findings"]}
    assert {"LC02", "LC03"} <= codes
    assert not {"LC02", "LC03"} & {f["code"] for f in pushed.publisher(*asked, code=None).json["findings"]}


def test_without_a_card_the_next_step_is_named(workspace: Workspace) -> None:
    (workspace.source / "README.md").unlink()
    done = workspace.publisher("card", "lint", "source", code=2)
    assert "--card FILE" in done.err


def test_help_tells_of_both(pushed: Workspace) -> None:
    told = pushed.publisher("card", "--help").out
    assert "publisher card [OPTIONS] PATH" in told
    assert "publisher card lint [OPTIONS] PATH" in told
    assert "--complete" in pushed.publisher("card", "lint", "--help").out


def test_a_repositorys_card_is_read_without_its_weights(workspace: Workspace) -> None:
    tiny = nvfp4(llama())
    tiny.files["README.md"] += b"\n- Group size: 32\n"
    folder = tiny.write(workspace.folder / "a")
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with LoopbackHub() as hub:
        hub.seed_repo(f"{hub.user}/tiny-fp4", files)
        env = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token, "HF_HOME": str(workspace.folder / "home")}
        place = f"hf://{hub.user}/tiny-fp4"
        done = workspace.publisher("card", "lint", place, "--format", "json", code=1, **env)
    assert [finding["code"] for finding in done.json["findings"]] == ["LC04"]
    assert "blocks hold 16" in done.json["findings"][0]["message"]


def test_an_order_of_sections_is_chosen_and_its_images_are_written(pushed: Workspace) -> None:
    copy = pushed.folder / "copy"
    shutil.copytree(pushed.checkpoint, copy, dirs_exist_ok=True)
    shutil.rmtree(copy / "images")
    asked = ("card", "copy", "--source", "source", "--card", "card.toml", "--repo", "demo/x")
    assert "\n## Post Training Quantization\n" in pushed.publisher(*asked, "--order", "nvidia").out
    assert "\n## Model Optimizations\n" in pushed.publisher(*asked, "--order", "redhat").out
    told = pushed.publisher(*asked, "--order", "amd", "--write").out
    assert "copy/images/coverage.svg" in told
    text = (copy / "README.md").read_text()
    assert "\n## Model Quantization\n" in text
    shown = re.findall(r"!\[[^\]]+\]\(<([^>]+)>\)", text)
    assert shown
    assert all((copy / name).is_file() for name in shown)
    pushed.publisher(*asked, "--order", "intel", code=2)


def test_what_is_published_lists_the_images_and_where_each_value_comes_from(pushed: Workspace) -> None:
    manifest = json.loads((pushed.tree / "publish.json").read_text())
    names = {entry["name"] for entry in manifest["resources"]}
    assert {"images/coverage.svg", "images/error.svg"} <= names
    text = (pushed.tree / "README.md").read_text()
    assert "](<images/coverage.svg>)" in text
    assert "](<images/error.svg>)" in text
    facts = {(fact["part"], fact["label"]): fact for fact in manifest["facts"]}
    assert facts["environment", "System"]["origin"] == "quantize.json: environment"
    assert facts["method", "Quantized by"]["text"] in text
