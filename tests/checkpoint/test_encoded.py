"""Encoded weights of sources: what they count as, and what is said of one that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.encoded import DECODED, decoded_ref, decoded_size, encoded_weights, is_encoded
from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.checkpoint.stored import UnreadableWeight
from tests.builders.sources import fp8, int4
from tests.builders.tiny import Tensor, Tiny, kimi, llama, mixture, nvfp4, values_of

UP = "language_model.model.layers.1.mlp.experts.2.up_proj"


def opened(folder: Path, tiny: Tiny) -> Checkpoint:
    return open_checkpoint(tiny.write(folder))


@pytest.mark.parametrize("make", [lambda: int4(kimi()), lambda: fp8(mixture())], ids=["int4", "fp8"])
@pytest.mark.parametrize("headers_only", [True, False])
def test_each_counts_as_the_matrix_it_stands_for(make: object, headers_only: bool, tmp_path: Path) -> None:
    stored, meant = make()  # type: ignore[operator]
    checkpoint = opened(tmp_path, stored)
    found = {module.name: weight for module, weight in encoded_weights(checkpoint, headers_only=headers_only)}
    changed = {name for name, tensor in meant.tensors.items() if stored.tensors.get(name) != tensor}
    assert {f"{name}.weight" for name in found} == changed
    for weight in found.values():
        ref = decoded_ref(weight)
        assert (ref.dtype, ref.shape) == (DECODED, meant.tensors[ref.name].shape)
        assert decoded_size(weight) == len(meant.tensors[ref.name].data)
        assert (ref.shard, ref.begin, ref.end) == (weight.ref.shard, weight.ref.begin, weight.ref.end)


def test_a_result_of_this_kind_of_work_has_none(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path, nvfp4(llama()))
    assert list(encoded_weights(checkpoint)) == []
    assert is_encoded(checkpoint.modules["model.layers.0.mlp.up_proj"])
    assert not is_encoded(checkpoint.modules["model.norm"])


def test_one_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    stored, _ = int4(kimi())
    columns = values_of(kimi().tensors[f"{UP}.weight"]).shape[1]
    shape = stored.tensors[f"{UP}.weight_shape"].data
    stored.tensors[f"{UP}.weight_shape"].data = shape[:8] + (columns - 9).to_bytes(8, "little")
    checkpoint = opened(tmp_path, stored)
    assert len(list(encoded_weights(checkpoint, headers_only=True))) == 24
    with pytest.raises(UnreadableWeight, match=rf"{UP} cannot be decoded: .* claim to be") as caught:
        list(encoded_weights(checkpoint))
    assert "unquantized" in caught.value.hint


def test_a_weight_stored_twice_is_refused(tmp_path: Path) -> None:
    stored, meant = int4(kimi())
    stored.tensors[f"{UP}.weight"] = meant.tensors[f"{UP}.weight"]
    with pytest.raises(UnreadableWeight, match="packed and unpacked"):
        list(encoded_weights(opened(tmp_path, stored)))


def test_a_weight_without_scales_is_refused(tmp_path: Path) -> None:
    tiny = Tiny(tensors={"a.weight": Tensor("F8_E4M3", (4, 4), bytes(16))}, config={}, shards=1)
    with pytest.raises(UnreadableWeight, match="a cannot be decoded: FP8 without scales"):
        list(encoded_weights(opened(tmp_path, tiny)))
