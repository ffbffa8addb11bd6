"""Two checkpoints compared: each edit of a copy is told as what it is, and nothing else is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from publisher.checkpoint.difference import Difference, difference
from publisher.checkpoint.open import open_checkpoint
from tests.builders.tiny import Tiny, compressed, kimi, llama, mixture, mxfp4, nvfp4


def compared(folder: Path, before: Tiny, after: Tiny, level: str = "headers") -> Difference:
    one, other = (open_checkpoint(tiny.write(folder / name)) for tiny, name in ((before, "a"), (after, "b")))
    return difference(one, other, level=level)


def edited(change: Callable[[Tiny], object]) -> tuple[Tiny, Tiny]:
    before = nvfp4(mixture())
    after = copy.deepcopy(before)
    change(after)
    return before, after


@pytest.mark.parametrize("level", ["headers", "scales", "full"])
@pytest.mark.parametrize("make", [lambda: nvfp4(llama()), lambda: mxfp4(kimi()), lambda: compressed(llama(), "nvfp4")])
def test_a_copy_is_the_same(tmp_path: Path, level: str, make: Callable[[], Tiny]) -> None:
    found = compared(tmp_path, make(), make(), level)
    assert found.same
    assert found.to_json()["same"] is True


def told(found: Difference) -> set[str]:
    """The parts of the answer that hold something."""
    parts = ("declared", "index", "files", "modules", "tensors", "inside", "moved", "values")
    names = {name for name in parts if getattr(found, name)}
    return names | {name for name, own in found.documents.items() if own}


SCALE = "model.layers.1.mlp.experts.2.up_proj.weight_scale"
EDITS: dict[str, tuple[Callable[[Tiny], object], set[str], str]] = {
    "config key": (lambda t: t.config.update(rope_theta=5.0), {"config.json"}, "headers"),
    "licence": (lambda t: t.files.update(LICENSE=bytes(len(t.files["LICENSE"]))), {"files"}, "headers"),
    "removed file": (lambda t: t.files.pop("tokenizer.json"), {"files"}, "headers"),
    "removed tensor": (lambda t: t.tensors.pop("model.norm.weight"), {"tensors", "index", "moved"}, "headers"),
    "scale byte": (lambda t: t.poke(SCALE, 3, 0x7F), {"values"}, "scales"),
    "payload byte": (lambda t: t.poke("model.layers.0.mlp.up_proj.weight", 3, 0x7F), {"values"}, "full"),
    "untouched byte": (lambda t: t.poke("model.norm.weight", 1, 0x7F), {"values"}, "full"),
    "shards": (lambda t: setattr(t, "shards", 3), set(), "headers"),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_told_as_what_it_is(tmp_path: Path, name: str) -> None:
    change, wanted, level = EDITS[name]
    before, after = edited(change)
    found = compared(tmp_path, before, after, level)
    assert told(found) == wanted
    assert not found.same


def test_values_are_not_compared_unasked(tmp_path: Path) -> None:
    before, after = edited(EDITS["payload byte"][0])
    found = compared(tmp_path, before, after, "scales")
    assert found.same
    assert 0 < found.compared < found.alike


def test_quantizing_is_modules_stored_differently(tmp_path: Path) -> None:
    found = compared(tmp_path, mixture(), nvfp4(mixture()))
    groups = {group.pattern: group for group in found.modules}
    experts = groups["model.layers.*.mlp.experts.*.up_proj"]
    assert (experts.before, experts.after, experts.count, experts.layers) == ("bf16", "nvfp4", 8, "1–2")
    assert found.tensors == ()
    assert found.inside == 45 * 4
    assert [(c.key, c.before, c.after) for c in found.declared] == [("quantization", '"none"', '"nvfp4 in modelopt"')]


def test_an_added_tensor_is_grouped_by_class(tmp_path: Path) -> None:
    before, after = nvfp4(mixture(), activations=False), nvfp4(mixture())
    found = compared(tmp_path, before, after)
    group = next(g for g in found.tensors if g.pattern == "model.layers.*.mlp.experts.*.up_proj.input_scale")
    assert (group.before, group.after, group.count, group.layers) == ("", "F32 scalar", 8, "1–2")


def test_the_first_differing_place_of_a_class_is_named(tmp_path: Path) -> None:
    def change(tiny: Tiny) -> None:
        for expert in (1, 3):
            tiny.poke(f"model.layers.2.mlp.experts.{expert}.up_proj.weight_scale", 5, 0x7F)

    (group,) = compared(tmp_path, *edited(change), "scales").values
    assert (group.count, group.of, group.elements, group.layers) == (2, 8, 2, "2")
    assert group.first.name == "model.layers.2.mlp.experts.1.up_proj.weight_scale"
    assert group.first.first == (1, 1)


def test_large_side_files_are_compared_by_size_unless_all_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("publisher.checkpoint.difference.SMALL", 10)
    before, after = edited(lambda t: t.files.update({"tokenizer.json": bytes(len(t.files["tokenizer.json"]))}))
    found = compared(tmp_path, before, after)
    assert found.same
    assert "tokenizer.json" in found.by_size
    assert [f.name for f in compared(tmp_path, before, after, "full").files] == ["tokenizer.json"]


def test_unreadable_documents_are_compared_by_what_is_wrong(tmp_path: Path) -> None:
    before, after = edited(lambda t: t.after.append(lambda folder: (folder / "config.json").write_text("{") and None))
    assert "config.json" in told(compared(tmp_path, before, after))
