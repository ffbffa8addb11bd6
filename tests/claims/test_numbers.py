"""Counts, sizes and keys of a card against headers and configuration."""

from __future__ import annotations

import pytest

from tests.claims.conftest import Lint, config

LENGTH = config(max_position_embeddings=262144)


@pytest.mark.parametrize(
    ("text", "base", "words"),
    [
        ("Storage: 3 safetensors shards", "llama-nvfp4", "holds 2"),
        ("- **Parameters:** 3.5 M", "llama-nvfp4", "weights (shard headers)"),
        ("- Model size: 7B", "llama-nvfp4", "weights (shard headers)"),
        ("It holds 17 tensors in all.", "llama-nvfp4", "tensors"),
        ("4 KV heads and 8 routed experts", "mixture-nvfp4", "4 routed experts"),
        ("Only 2 shared experts.", "kimi-nvfp4", ""),
        ("hidden_size=128", "llama-nvfp4", "hidden_size = 64"),
        ("There are 5 MoE layers.", "mixture-mxfp4", "2 layers of experts"),
        ("The block size is 64: block size 64.", "llama-mxfp4", "blocks hold 32"),
        ("12 = 2 layers × 5 projections", "llama-nvfp4", "the product is 10"),
    ],
)
def test_a_wrong_number_is_told(lint: Lint, text: str, base: str, words: str) -> None:
    found = lint(text, base)
    assert [d.topic for d in found] == (["number"] if words else [])
    assert all(words in d.message for d in found)


@pytest.mark.parametrize(
    "text",
    [
        "Storage: 2 shards, one of them the larger.",
        "The source has 64 shards and 500 GB on disk.",
        "- Memory: 80 GB per GPU; storage 288 GB HBM each",
        "12 = 2 layers × 6 projections and 50% = 1 × 2",
        "Disk space: at least 700 GB; the model size shrinks from 1,121 GB to 352.3 GB",
        "The draft model (4 layers) and a vision encoder (27 layers, 16 heads)",
        "Compared with 70 B parameters of the base model",
        "Group size 32 would be smaller.",
        "num_concurrent=4, batch_size=1, group=128",
        "0 experts required the backstop; experts 40, 42 and 82",
    ],
)
def test_true_numbers_and_those_of_other_things_are_left_alone(lint: Lint, text: str) -> None:
    assert lint(text) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Context length: 262,144 tokens", False),
        ("Context length: 256k", False),
        ("A 256K context window", False),
        ("Context length: 32,768", True),
        ("A context window of 128k", True),
        ("Tested up to a context length of 8192", False),
        ("Up to 32768, the model's positional ceiling", True),
    ],
)
def test_context_lengths(lint: Lint, text: str, wrong: bool) -> None:
    assert bool(lint(text, edit=LENGTH)) == wrong


def test_two_numbers_for_what_no_file_tells(lint: Lint) -> None:
    found = lint("It has 8 routed experts.\n\nAs said, 16 routed experts.")
    assert [d.message for d in found] == [
        'Line 5 says "As said, 16 routed experts."; line 3 counts 8 routed experts. Keep the right one of the two.'
    ]
