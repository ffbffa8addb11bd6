"""What a plan decides on: every weight matrix once, whatever it is stored as."""

from __future__ import annotations

from typing import Any

from publisher.plan.matrix import matrices_of


def test_a_stack_counts_as_one_until_somebody_asks(headers: Any, shapes: Any) -> None:
    tensors = {
        **shapes("llama", layers=1),
        "model.layers.0.mlp.experts.gate_up_proj": ("BF16", (4, 192, 64)),
        "model.layers.0.mlp.experts.down_proj": ("BF16", (4, 64, 96)),
    }
    found = {matrix.name: matrix for matrix in matrices_of(headers(tensors))}
    stack = found["model.layers.0.mlp.experts"]
    assert stack.stacked
    assert stack.size == 2 * 4 * (192 * 64 + 64 * 96)
    assert stack.names[0] == stack.name == "model.layers.0.mlp.experts"
    assert set(stack.names[1:]) == {f"{stack.name}.{projection}" for projection in ("gate_up_proj", "down_proj")}


def test_blocks_count_as_a_stack_of_all_their_bytes(headers: Any, shapes: Any) -> None:
    tensors = dict(shapes("llama", layers=1))
    for projection, rows, groups in (("gate_up_proj", 192, 2), ("down_proj", 64, 3)):
        base = f"model.layers.0.mlp.experts.{projection}"
        tensors[f"{base}_blocks"] = ("U8", (4, rows, groups, 16))
        tensors[f"{base}_scales"] = ("U8", (4, rows, groups))
    stack = next(matrix for matrix in matrices_of(headers(tensors)) if matrix.stacked)
    assert stack.size == 4 * 17 * (192 * 2 + 64 * 3)
