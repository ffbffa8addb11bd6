"""`publisher plan`: what will happen, and what cannot work, before any work starts."""

from __future__ import annotations

from pathlib import Path

from tests.builders.tiny import llama
from tests.cli.conftest import Workspace


def test_says_class_by_class_what_will_happen(workspace: Workspace) -> None:
    done = workspace.publisher("plan", workspace.recipe())
    assert "model.layers.*.mlp.up_proj" in done.out
    assert "*.mlp.*_proj" in done.out
    plan = workspace.publisher("plan", workspace.recipe(), "--format", "json").json
    actions = {d["module"]: d["action"] for d in plan["decisions"]}
    assert actions["model.layers.0.mlp.up_proj"] == "quantize"
    assert actions["model.layers.0.self_attn.q_proj"] == "keep"
    assert plan["bytes_before"] > plan["bytes_after"] > 0
    assert not workspace.run.exists(), "a plan writes nothing"


def test_an_unknown_key_names_the_known_ones(workspace: Workspace) -> None:
    done = workspace.publisher("plan", workspace.recipe(extra="formt: nvfp4\n"), code=2)
    assert "unknown key 'formt'" in done.err
    assert "quantize" in done.err


def test_what_cannot_work_is_refused_with_every_problem(workspace: Workspace) -> None:
    recipe = workspace.recipe().replace(".yaml", "-2.yaml")
    text = (workspace.folder / "mxfp4.yaml").read_text().replace('"*.mlp.*_proj"', '"*.mlp.*_prj", "*.q_proj"')
    (workspace.folder / recipe).write_text(text)
    done = workspace.publisher("plan", recipe, code=2)
    assert "*.mlp.*_prj" in done.err, "a pattern that matches nothing"
    assert "q_proj" in done.err, "a fused layer of which only a part would be quantized"


def test_a_missing_recipe_is_a_sentence(workspace: Workspace) -> None:
    assert "none.yaml does not exist" in workspace.publisher("plan", "none.yaml", code=2).err


def test_words_the_card_will_need_are_asked_for_by_the_plan(workspace: Workspace) -> None:
    (workspace.folder / "card.toml").write_text("")
    done = workspace.publisher("plan", workspace.recipe(), code=2)
    assert "base_model" in done.err
    assert "model.layers.*.mlp.up_proj" in done.out, "the plan is shown all the same"


def test_scan_finds_a_dead_weight_before_the_work(workspace: Workspace, tmp_path: Path) -> None:
    tiny = llama()
    name = "model.layers.1.mlp.down_proj.weight"
    tiny.tensors[name].data = bytes(len(tiny.tensors[name].data))
    folder = tiny.write(tmp_path / "dead")
    recipe = Path(workspace.folder, "dead.yaml")
    recipe.write_text(
        f"name: dead\nsource: {folder}\nformat: mxfp4\nlayout: quark\nengine: native\nmode: even\n"
        'activations: dynamic\nkv_cache: none\nquantize: ["*.mlp.*_proj"]\n'
    )
    assert workspace.publisher("plan", "dead.yaml", "--format", "json").json["scan"] is None
    done = workspace.publisher("plan", "dead.yaml", "--scan", code=2)
    assert name in done.err
    assert "zeros" in done.err
