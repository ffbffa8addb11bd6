"""Cards made to be slow, huge or odd: bounded time, no exception, a bounded number of findings."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from publisher.checkpoint.open import Checkpoint, open_checkpoint
from publisher.claims import MAX_DOUBTS, lint
from publisher.subjects.serving import Serving
from tests.rules.cases import GOOD

N = 300_000
SLOW = {
    "subjects": "the routers and attention are, " * (N // 31),
    "kept": "keeps a " * (N // 8),
    "sentences": "routers are quantized. Attention remains BF16. " * (N // 47),
    "numbers": "1,234 " * (N // 6),
    "products": "1 = 2 × 3 " * (N // 10),
    "colons": "Storage: 1 GB: " * (N // 15),
    "keys": "a_b_c_d = 1 " * (N // 12),
    "spaces": "a" + " " * N + "b",
    "brackets": "(" * (N // 2) + "[" * (N // 2),
    "quantize to": "quantized quantized " * (N // 20),
    "versions": "modelopt 0." + "1." * (N // 2),
    "repos": "derived from " + "a/b" * (N // 3),
    "within": "within or near within about " * (N // 28),
    "lossless": "no a b no a b " * (N // 14),
    "native": "native not native Hopper " * (N // 25),
    "z": "z = 1 Δ = " * (N // 10),
    "rows": "| a | b | c |\n|---|---|---|\n" + "| x | 1.0 ± 0.1 | 2.0 ± 0.1 |\n" * (N // 30),
    "columns": "|" + " a 1 |" * 2000 + "\n|" + "---|" * 2000 + "\n" + ("|" + " 1.0 |" * 2000 + "\n") * 20,
    "items": "Kept at BF16:\n\n" + "- routers\n" * (N // 10),
    "json": '```json\n{"quant_method": "quark", "a": ' + "[" * 60_000 + "\n```",
    "yaml": "```yaml\nquant_method: quark\na: &a [1]\n"
    + "".join(f"b{i}: &b{i} [*a,*a]\n" for i in range(2000)) + "```",
    "fences": "```json\n{\"quant_method\": \"quark\", \"exclude\": [\"re:x\"]}\n```\n\n" * 2000,
    "commands": "```\nvllm serve x --quantization awq\n```\n\n" * 5000,
    "digits": "Storage: " + "9" * 400 + " GB in " + "9" * 400 + " shards. Experts: " + "9" * 5000 + " routed.",
}  # fmt: skip
WORDS = (
    "1", "9,999", "0.5", "~", "GB", "GiB", "shards", "experts", "routed", "layers", "group", "size", ":", "=", "×", "|",
    "\n", "---", "KV", "cache", "FP8", "NVFP4", "routers", "remain", "BF16", "quantized", "to", "are", "z", "Δ", "±",
    "%", "lossless", "within", "σ", "/", "--quantization", "Hopper", "will not work", "natively", "LICENSE",
    "\n\n", "- ",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    _, tiny = GOOD["kimi-nvfp4"]()
    return open_checkpoint(tiny.write(tmp_path_factory.mktemp("hostile")))


def judged(text: str, checkpoint: Checkpoint) -> int:
    served = [(c.engine, c.text, c.line) for c in Serving(checkpoint, text).commands]
    found = lint(text, checkpoint, metadata={"base_model": ["x", 1, None], "license": {}}, served=served)
    assert all(one.message.isprintable() and len(one.message) < 1500 for one in found)
    return len(found)


@pytest.mark.parametrize("name", SLOW)
def test_a_card_made_to_be_slow_is_judged_in_bounded_time(name: str, checkpoint: Checkpoint) -> None:
    began = time.process_time()
    assert judged(f"# T\n\n{SLOW[name]}\n", checkpoint) <= MAX_DOUBTS
    assert time.process_time() - began < 12


@settings(max_examples=150, deadline=None)
@given(text=st.text(st.characters(), max_size=400))
def test_any_text_is_judged(text: str) -> None:
    assert judged(text, _BARE) >= 0


@settings(max_examples=150, deadline=None)
@given(
    words=st.lists(
        st.sampled_from(WORDS),
        max_size=60,
    )
)
def test_any_mixture_of_the_words_that_matter_is_judged(words: list[str]) -> None:
    assert judged(" ".join(words), _BARE) >= 0


class _Nothing:
    label = "nothing"
    sizes: dict[str, int] = {}  # noqa: RUF012 - a stub

    def read(self, path: str, begin: int = 0, end: int | None = None) -> bytes:
        return b""

    def local(self, path: str) -> Path | None:
        return None


_BARE = Checkpoint(
    files=_Nothing(),
    shards={},
    index=None,
    config={"num_hidden_layers": "61", "text_config": [], "auto_map": 3, "quantization_config": {}},
    hf_quant_config=None,
    document_flaws={},
    declarations=(),
    tensors={},
    modules={},
)


@pytest.mark.parametrize("value", [None, [], {}, "x", 1, 1.5, True, {"producer": {"name": "modelopt", "version": 3}}])
def test_odd_configurations_are_no_fact(value: object, checkpoint: Checkpoint) -> None:
    odd = dataclasses.replace(checkpoint, config={"text_config": value, "num_hidden_layers": value, "auto_map": value})
    assert judged("61 layers, 8 routed experts, Quark 0.11, context length 4096, `hidden_size`=3", odd) >= 0
