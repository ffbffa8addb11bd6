"""Serving commands as published cards write them, and as nobody should."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.subjects.evidence import Meter
from publisher.subjects.serving import Serving, read_serving
from tests.builders.tiny import llama


def serving(tmp_path: Path, card: str) -> Serving:
    tiny = llama()
    tiny.files["README.md"] = card.encode()
    return read_serving(open_checkpoint(tiny.write(tmp_path)), True, Meter())


DOCKER = """
docker run --rm --gpus all \\
    nvcr.io/nvidia/vllm:26.03.post1-py3 \\
    python -m vllm.entrypoints.openai.api_server \\
        --model /model \\
        --tensor-parallel-size 4 \\
        --moe-backend cutlass \\
        --port 8001

Tune --tensor-parallel-size 16 for your hardware.
"""
ATOM = "    python -m atom.entrypoints.openai_server \\\n        --model a/b -tp 8 \\\n        --kv_cache_dtype fp8\n"
SGLANG = "```bash\npython3 -m sglang.launch_server --model-path a/b --tp-size=2 --ep-size 4\n```\n--tp 16\n"


def test_a_published_vllm_command(tmp_path: Path) -> None:
    (command,) = serving(tmp_path, DOCKER).commands
    assert (command.engine, command.tensor_parallel, command.backend) == ("vllm", 4, "cutlass")


def test_other_engines_spell_it_otherwise(tmp_path: Path) -> None:
    found = serving(tmp_path, ATOM + SGLANG + "vllm serve a/b -tp 2 --enable-expert-parallel\n")
    assert [(c.engine, c.tensor_parallel, c.expert_parallel) for c in found.commands] == [
        ("atom", 8, None),
        ("sglang", 2, 4),
        ("vllm", 2, 2),
    ]
    assert found.advertised == (2, 8)


def test_prose_is_not_a_command(tmp_path: Path) -> None:
    found = serving(tmp_path, "Served with vLLM at TP=4, `--tensor-parallel-size 8` on 8 GPUs.\n")
    assert found.commands == ()
    assert found.advertised == ()


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        ("pip install vllm==0.17.1", ("vllm", "0.17.1")),
        ('uv pip install "vllm>=0.33"', ("vllm", "0.33")),
        ("docker pull vllm/vllm-openai:v0.23.0", ("vllm", "0.23.0")),
        ('pip install "sglang[all]==0.5.2"', ("sglang", "0.5.2")),
    ],
)
def test_installed_versions(tmp_path: Path, text: str, pin: tuple[str, str]) -> None:
    assert serving(tmp_path, text).pins == (pin,)


def test_machines(tmp_path: Path) -> None:
    card = "Verified: 8\u00d7 NVIDIA B300 SXM6. Fits 8x MI350X VF and 4xB200; 3x faster than 16x nothing, 0x H200.\n"
    assert [(node.count, node.name) for node in serving(tmp_path, card).nodes] == [
        (8, "B300"),
        (8, "MI350X"),
        (4, "B200"),
    ]


@pytest.mark.parametrize("card", ["vllm serve " * 50_000, "vllm serve x -tp 99999999999999", "vllm serve -tp 0\n"])
def test_hostile_cards_cost_little(tmp_path: Path, card: str) -> None:
    found = serving(tmp_path, card)
    assert found.advertised == ()
    assert found.splits
