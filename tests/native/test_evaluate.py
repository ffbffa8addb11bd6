"""The perplexity against transformers' own loss, and the program as the pipeline runs it."""

from __future__ import annotations

import hashlib
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from publisher import jsonio
from publisher.errors import CheckpointError, PublisherError
from publisher.native import evaluate
from tests.builders.tiny import Tensor, Tiny, llama, mxfp4, nvfp4

ROOT = Path(__file__).parents[2]
WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(3, 32))]


def tokenizer(*, bos: bool = False) -> Any:
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if bos:
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def random_text(count: int) -> str:
    return " ".join(WORDS[number] for number in np.random.default_rng(3).integers(3, 32, count))


def write(tiny: Tiny, folder: Path, **changes: Any) -> Path:
    tiny.config |= changes
    tiny.write(folder)
    tokenizer().save_pretrained(folder)
    return folder


def write_job(folder: Path, **changes: Any) -> Path:
    (folder / "text.txt").write_text(random_text(500))
    job = {
        "source": str(write(llama(), folder / "source")),
        "checkpoint": str(write(nvfp4(llama()), folder / "checkpoint")),
        "text": str(folder / "text.txt"),
        "windows": 5,
        "length": 40,
        "prompt": "w3 w4 w5",
        "output": str(folder / "evaluation.json"),
        **changes,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def program(job: Path) -> tuple[int, list[dict[str, Any]]]:
    command = [sys.executable, "-m", "publisher.native.evaluate", str(job)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def plain(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def losses(model: Any, windows: list[list[int]]) -> list[float]:
    with torch.inference_mode():
        batches = [torch.tensor([window]) for window in windows]
        return [model(input_ids=batch, labels=batch).loss.item() for batch in batches]


# --- the measurement -----------------------------------------------------------------------------------------------


def test_score_is_transformers_own_loss(tmp_path: Path) -> None:
    model = plain(llama().write(tmp_path))
    windows = np.random.default_rng(0).integers(0, 32, (4, 50)).tolist()
    seen: list[int] = []
    score = evaluate.score(model, windows, lambda: seen.append(1))
    assert score.nll == pytest.approx(np.mean(losses(model, windows)), rel=1e-5)
    assert score.perplexity == pytest.approx(math.exp(score.nll))
    assert (score.tokens, len(seen)) == (4 * 49, 4)


def test_a_long_window_weighs_more_than_a_short_one(tmp_path: Path) -> None:
    model = plain(llama().write(tmp_path))
    windows = [list(range(30)), [5, 9]]
    one, other = losses(model, windows)
    assert evaluate.score(model, windows).nll == pytest.approx((29 * one + other) / 30, rel=1e-5)


def test_windows_follow_each_other_without_overlap() -> None:
    text = random_text(100)
    ids = tokenizer()(text)["input_ids"]
    assert evaluate.cut(tokenizer(), text, windows=3, length=20) == [ids[0:20], ids[20:40], ids[40:60]]
    assert len(evaluate.cut(tokenizer(), text, windows=99, length=30)) == 3


def test_every_window_begins_with_bos_where_the_tokenizer_adds_one() -> None:
    text = random_text(100)
    ids = tokenizer()(text)["input_ids"]
    windows = evaluate.cut(tokenizer(bos=True), text, windows=2, length=20)
    assert windows == [[1, *ids[0:19]], [1, *ids[19:38]]]


def test_a_text_shorter_than_a_window_is_refused() -> None:
    with pytest.raises(PublisherError, match="9 tokens; one window needs 10"):
        evaluate.cut(tokenizer(), random_text(9), windows=1, length=10)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_model_has_no_perplexity(tmp_path: Path, value: float) -> None:
    model = plain(llama().write(tmp_path))
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[3, 5] = value
    with pytest.raises(CheckpointError, match="broken"):
        evaluate.score(model, [[1, 2, 3]])


def test_greedy_continuation_is_the_argmax_of_each_step(tmp_path: Path) -> None:
    model = plain(write(llama(), tmp_path, eos_token_id=None, bos_token_id=1))
    ids = [3, 4, 5]
    for _ in range(4):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    said = evaluate.continuation(model, tokenizer(), "w3 w4 w5", 4)
    assert said.split() == [WORDS[number] for number in ids[3:] if number not in (1, 2)]


# --- the program ---------------------------------------------------------------------------------------------------


def test_the_program_measures_both_models(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    code, events = program(job)
    assert code == 0, events
    assert [events[0]["kind"], events[-1]["kind"]] == ["start", "done"]
    assert [e["payload"] for e in events if e["kind"] == "progress"][-1]["done"] == 2 * 5 * 40
    result = json.loads((tmp_path / "evaluation.json").read_text())
    assert result["kind"] == "weight-only perplexity"
    windows = evaluate.cut(tokenizer(), random_text(500), windows=5, length=40)
    before = np.mean(losses(plain(tmp_path / "source"), windows))
    assert result["source"]["perplexity"] == pytest.approx(math.exp(before), rel=1e-5)
    after = np.mean(losses(plain(by_hand(tmp_path / "by_hand")), windows))
    assert result["checkpoint"]["perplexity"] == pytest.approx(math.exp(after), rel=1e-5)
    assert result["checkpoint"]["perplexity"] != result["source"]["perplexity"]
    text = (tmp_path / "text.txt").read_bytes()
    assert result["text"] == {"name": "text.txt", "sha256": hashlib.sha256(text).hexdigest()}
    assert (result["windows"], result["length"], result["source"]["tokens"]) == (5, 40, 5 * 39)
    assert (result["prompt"], type(result["continuation"])) == ("w3 w4 w5", str)


def by_hand(folder: Path) -> Path:
    """The NVFP4 checkpoint as a plain float32 one, decoded by ml_dtypes alone."""
    tiny = nvfp4(llama())
    for name in [name for name in tiny.tensors if name.endswith(".weight_scale")]:
        module = name.removesuffix(".weight_scale")
        scales = tiny.tensors.pop(name)
        second = np.frombuffer(tiny.tensors.pop(f"{module}.weight_scale_2").data, "<f4")
        steps = np.frombuffer(scales.data, ml_dtypes.float8_e4m3fn).reshape(scales.shape).astype(np.float32) * second
        packed = tiny.tensors[f"{module}.weight"]
        data = np.frombuffer(packed.data, np.uint8).reshape(packed.shape)
        codes = np.stack([data & 0xF, data >> 4], axis=-1).reshape(data.shape[0], -1)
        values = codes.view(ml_dtypes.float4_e2m1fn).astype(np.float32) * np.repeat(steps, 16, axis=1)
        tiny.tensors[f"{module}.weight"] = Tensor("F32", values.shape, values.tobytes())
        del tiny.tensors[f"{module}.input_scale"]
    del tiny.config["quantization_config"]
    tiny.hf_quant_config = None
    return tiny.write(folder)


def test_without_a_prompt_there_is_no_continuation(tmp_path: Path) -> None:
    checkpoint = write(mxfp4(llama()), tmp_path / "quark")
    job = evaluate.read_job(write_job(tmp_path, prompt=None, checkpoint=str(checkpoint), windows=1))
    evaluate.run(job)
    result = json.loads(job.output.read_text())
    assert result["continuation"] is None
    assert result["windows"] == 1


def test_a_bad_job_names_every_problem(tmp_path: Path) -> None:
    job = write_job(tmp_path, windows=0, surprise=1)
    with pytest.raises(jsonio.DocumentError) as caught:
        evaluate.read_job(job)
    assert "surprise" in caught.value.message
    assert "windows" in caught.value.message


@pytest.mark.parametrize(
    ("content", "words"), [(b"w3 \xff", "not UTF-8 .byte 3"), (b"", "0 tokens"), (None, "does not exist")]
)
def test_a_text_that_cannot_be_read(tmp_path: Path, content: bytes | None, words: str) -> None:
    job = evaluate.read_job(write_job(tmp_path))
    job.text.unlink() if content is None else job.text.write_bytes(content)
    with pytest.raises(PublisherError, match=words):
        evaluate.run(job)
    assert not job.output.exists()


def test_nan_weights_end_with_a_sentence_and_no_result(tmp_path: Path) -> None:
    tiny = nvfp4(llama())
    tiny.poke("model.layers.0.mlp.up_proj.weight_scale", 0, 0x7F)
    job = evaluate.read_job(write_job(tmp_path, checkpoint=str(write(tiny, tmp_path / "broken"))))
    with pytest.raises(CheckpointError, match="broken") as caught:
        evaluate.run(job)
    assert "validate" in caught.value.hint
    assert not job.output.exists()


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    job = write_job(tmp_path, windows=100_000, length=2)
    (tmp_path / "text.txt").write_text(random_text(200_000))
    child = subprocess.Popen(
        [sys.executable, "-m", "publisher.native.evaluate", str(job)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert child.stdout is not None
    while '"progress"' not in child.stdout.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGTERM)
    last = child.stdout.read().splitlines()[-1]
    assert child.wait(30) == 6
    assert json.loads(last)["kind"] == "cancelled"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "job.json", "source", "text.txt"]


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    try:
        assert evaluate.main([]) == 2
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT), handlers, strict=True):
            signal.signal(number, handler)
    assert "Usage" in json.loads(capsys.readouterr().out)["payload"]["message"]


def test_activations_are_also_measured_rounded(tmp_path: Path) -> None:
    path = write_job(tmp_path, activations="simulated", prompt=None)
    evaluate.run(evaluate.read_job(path))
    found = json.loads((tmp_path / "evaluation.json").read_text())
    exact, rounded = found["checkpoint"], found["activations"]
    assert rounded["tokens"] == exact["tokens"]
    assert rounded["nll"] != exact["nll"]
    assert rounded["perplexity"] == pytest.approx(exact["perplexity"], rel=0.2)
    weight_only = write(nvfp4(llama(), activations=False), tmp_path / "w4a16")
    job = json.loads(path.read_text())
    path.write_text(json.dumps({**job, "checkpoint": str(weight_only)}))
    with pytest.raises(PublisherError, match="weight-only") as refused:
        evaluate.run(evaluate.read_job(path))
    assert refused.value.exit_code == 2
