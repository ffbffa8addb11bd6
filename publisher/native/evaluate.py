"""`python -m publisher.native.evaluate job.json`: weight-only perplexity of a checkpoint beside its source's.

Both models read the same windows of the same text, cut by the source's tokenizer: consecutive, not overlapping, each
scored from its second token on, each beginning with the BOS token where the tokenizer adds one. The perplexity is
exp(sum of -log p / tokens scored). *Weight-only* means that packed weights are replaced by their values and activations
and KV cache stay at full precision: float32 on a CPU, BF16 on a GPU, the same for both. It says what rounding the
weights costs, not what an FP4 kernel computes.

With `activations: simulated` the quantized model reads the windows a second time with the inputs of its packed layers
rounded as a kernel takes them (`activations.py`): W4A4, but for the order in which kernels add.

The job's keys are `data/schemas/evaluate.schema.json`. Events go to standard output, one JSON object a line; the result
is one JSON file, there only when complete. Exit codes: 0 measured, 2 bad input, 5 the libraries or the hardware failed,
6 stopped. A perplexity that is no finite number is refused: that checkpoint is broken.
"""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from publisher import jsonio
from publisher.errors import CheckpointError, EngineError, PublisherError
from publisher.native import edge
from publisher.native.events import Progress, emit

if TYPE_CHECKING:
    import torch

STAGE = "evaluate"
PROGRAM = edge.Program(
    stage=STAGE,
    module="publisher.native.evaluate",
    failed="The evaluation failed",
    hint="Read the log; leave `evaluation` out of the recipe to go on without.",
    stopped="Stopped; nothing was written.",
    again="Run the same command again.",
)
PATHS = ("source", "checkpoint", "text", "output")
KIND = "weight-only perplexity"
MAX_TEXT = 64 << 20
LONGEST_TOKEN = 32  # characters of text kept per token wanted; words of any language are shorter on average
MAX_NLL = 700.0  # exp of more is no double


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to measure; the keys of the schema."""

    source: Path
    checkpoint: Path
    text: Path
    output: Path
    windows: int = 16
    length: int = 512
    prompt: str | None = None
    new_tokens: int = 24
    activations: str = "exact"
    device: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Negative log-likelihood in nats per token, over `tokens` scored tokens."""

    nll: float
    tokens: int
    seconds: float

    @property
    def perplexity(self) -> float:
        """exp(nll)."""
        return math.exp(self.nll)

    def to_json(self) -> dict[str, Any]:
        """Numbers for the result file."""
        return {
            "perplexity": self.perplexity,
            "nll": self.nll,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
        }


# --- the program ---------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Run one job file; returns the exit code."""
    edge.interruptible()
    return edge.run(PROGRAM, arguments, lambda path: run(read_job(path)))


def read_job(path: Path) -> Job:
    """Read and check a job file.

    Raises:
        DocumentError: naming every problem.
    """
    return Job(**edge.read_fields(path, "evaluate", paths=PATHS, hint="Let `publisher push` write the job file."))


def run(job: Job) -> None:
    """Measure both models and write the result.

    Raises:
        PublisherError: bad text, a model that cannot be loaded, a perplexity that is no number.
        EngineError: torch or transformers is missing, the device is not there, memory ran out.
    """
    edge.require_transformers("The evaluation", "eval")
    import torch

    from publisher.native.dequantized import load_tokenizer

    device = _device(job.device)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    data = jsonio.read_bytes(job.text, MAX_TEXT)
    tokenizer = load_tokenizer(job.source)
    windows = cut(tokenizer, _decode(data, job.text), windows=job.windows, length=job.length)
    emit(STAGE, "start", message=f"{len(windows)} windows of {job.length} tokens of {job.text.name}, on {device}")
    try:
        measured = _measure(job, tokenizer, windows, dtype, device)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise EngineError(
            f"Out of memory on {device}: {str(error)[:200] or 'an allocation failed'}.",
            hint="Evaluate on a machine that holds the unquantized model, or leave `evaluation` out of the recipe.",
        ) from error
    result = {
        "schema": 1,
        "kind": KIND,
        **measured,
        "text": {"name": job.text.name, "sha256": hashlib.sha256(data).hexdigest()},
        "windows": len(windows),
        "length": job.length,
        "prompt": job.prompt,
        "device": str(device),
        "dtype": str(dtype).removeprefix("torch."),
        "versions": _versions(),
    }
    jsonio.write_atomic(job.output, jsonio.dump_json(result))
    before, after = (measured[label]["perplexity"] for label in ("source", "checkpoint"))
    emit(STAGE, "done", message=f"{KIND} {after:.3f}, source {before:.3f}", result=result)


def _measure(
    job: Job, tokenizer: Any, windows: list[list[int]], dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """One model after the other in memory, never both."""
    from publisher.native.dequantized import load_model

    passes = 3 if job.activations == "simulated" else 2
    progress = Progress(STAGE, passes * len(windows) * job.length, "tokens")
    model = load_model(job.source, dtype=dtype, device=device)
    before = score(model, windows, partial(progress.add, job.length, what="source"))
    del model
    model = load_model(job.checkpoint, dtype=dtype, device=device)
    after = score(model, windows, partial(progress.add, job.length, what="checkpoint"))
    text = continuation(model, tokenizer, job.prompt, job.new_tokens) if job.prompt else None
    measured = {"source": before.to_json(), "checkpoint": after.to_json(), "continuation": text}
    if job.activations == "simulated":
        advance = partial(progress.add, job.length, what="activations")
        measured["activations"] = score_w4a4(model, job.checkpoint, windows, advance).to_json()
    return measured


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and int(name.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise EngineError(f"The device {name} is not there: torch sees {torch.cuda.device_count()} GPUs.")
    return torch.device(name)


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {"torch": str(torch.__version__), "transformers": str(transformers.__version__)}


def _decode(data: bytes, path: Path) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PublisherError(f"{path} is not UTF-8 (byte {error.start}).", hint="Save it as UTF-8 text.") from None


# --- the measurement -----------------------------------------------------------------------------------------------


def cut(tokenizer: Any, text: str, *, windows: int, length: int) -> list[list[int]]:
    """Windows of exactly `length` token ids from the beginning of a text; as many as are whole, at most `windows`.

    Where the tokenizer begins a text with BOS, every window does, and the text supplies one token less.

    Raises:
        PublisherError: the text does not fill one window.
    """
    start = list(tokenizer("")["input_ids"])[:1]
    if start != [tokenizer.bos_token_id]:
        start = []
    step = length - len(start)
    ids = list(tokenizer(text[: windows * length * LONGEST_TOKEN], add_special_tokens=False)["input_ids"])
    whole = min(len(ids) // step, windows)
    if not whole:
        raise PublisherError(
            f"The evaluation text has {len(ids):,} tokens; one window needs {step:,}.",
            hint="Give a longer text, or a smaller `length`.",
        )
    return [start + ids[index * step : (index + 1) * step] for index in range(whole)]


def score(model: Any, windows: Sequence[Sequence[int]], advance: Callable[[], None] | None = None) -> Score:
    """Token-weighted negative log-likelihood of windows, one forward pass each.

    Args:
        model: a causal language model of transformers.
        windows: token ids, each of at least two.
        advance: called after each window.

    Raises:
        CheckpointError: the model's answer is NaN, infinite or beyond exp's range.
    """
    import torch

    started, total, tokens = time.monotonic(), 0.0, 0
    with torch.inference_mode():
        for number, window in enumerate(windows):
            ids = torch.tensor([list(window)], device=model.device)
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            total += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").double().item()
            tokens += len(window) - 1
            if not math.isfinite(total) or total / tokens > MAX_NLL:
                raise CheckpointError(
                    f"The model answers window {number} with a log-likelihood of {-total}: it is broken.",
                    hint="Run `publisher validate --level full` on it.",
                )
            if advance is not None:
                advance()
    return Score(nll=total / tokens, tokens=tokens, seconds=time.monotonic() - started)


def score_w4a4(
    model: Any, folder: Path, windows: Sequence[Sequence[int]], advance: Callable[[], None] | None = None
) -> Score:
    """The same score with the inputs of packed layers rounded as the checkpoint declares.

    Args:
        model: what `dequantized.load_model` made of `folder`.
        folder: the quantized checkpoint.
        windows: as for `score`.
        advance: called after each window.

    Raises:
        PublisherError: the checkpoint is weight-only.
        CheckpointError: an activation or the model's answer is no number.
    """
    from publisher.native.activations import SimulatedActivations

    with SimulatedActivations(model, folder) as simulated:
        found = score(model, windows, advance)
    simulated.require_used()
    return found


def continuation(model: Any, tokenizer: Any, prompt: str, new_tokens: int) -> str:
    """What the model says after a prompt, greedily, without the prompt and without special tokens."""
    inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        max_new_tokens=new_tokens,
        do_sample=False,
        num_beams=1,
    )
    new = output[0, inputs["input_ids"].shape[1] :]
    return str(tokenizer.decode(new, skip_special_tokens=True))


if __name__ == "__main__":
    edge.leave(main(sys.argv[1:]))
