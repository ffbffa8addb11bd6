"""`python -m benchmarks.perplexity SOURCE WORK`: the perplexity of every mode beside the vendors' of the same mode.

Every checkpoint is made by its own tool in WORK, all linear layers of attention and MLP quantized, then measured by the
project's evaluator: first with exact activations (weight-only), then, where the checkpoint quantizes them, with
activations rounded as kernels do (W4A4). Checkpoints that stand for the same weights are measured once. A figure that
was measured is kept in WORK/results.json, so that a run goes on where it was stopped. `--table FILE` puts the two
tables between the marks in FILE.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION, TEXT = ROOT / "demo/calibration.jsonl", ROOT / "demo/eval.txt"
LINEARS = ["*.mlp.*_proj", "*.self_attn.*_proj"]
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


@dataclass(frozen=True)
class Subject:
    """One checkpoint to measure.

    Args:
        mode: what both sides of a comparison share.
        maker: ours or a vendor's name and version.
        tool: native, or a tool of `vendors.py`.
        how: recipe keys (native) or the tool's word for the mode.
        calibrated: whether its activations need calibration.
        w4a4: whether it is also measured with its activations quantized.
    """

    mode: str
    maker: str
    tool: str
    how: Any
    calibrated: bool = False
    w4a4: bool = False

    @property
    def name(self) -> str:
        told = self.how if isinstance(self.how, str) else "-".join(str(value) for value in self.how.values())
        return f"{self.tool}-{told}".lower().replace(":", "-")


def ours(what: str, maker: str = "native", **recipe: Any) -> Subject:
    """A subject of the engine native; calibrated NVFP4 and dynamic MXFP4 are measured as W4A4 too."""
    w4a4 = recipe.get("activations") in ("calibrated", "dynamic")
    return Subject(what, maker, "native", recipe, recipe.get("activations") == "calibrated", w4a4)


CT = {"layout": "compressed-tensors"}
W4A4 = {"activations": "calibrated"}
SUBJECTS = [
    ours("NVFP4 max", format="nvfp4", mode="max", **W4A4),
    Subject("NVFP4 max", "modelopt, NVFP4_DEFAULT_CFG", "modelopt", "NVFP4_DEFAULT_CFG", True, True),
    ours("NVFP4 max", "native, compressed-tensors layout", format="nvfp4", **CT, **W4A4),
    Subject("NVFP4 max", "llm-compressor, NVFP4 oneshot", "llm-compressor", "NVFP4", True, True),
    Subject("NVFP4 max", "llm-compressor, NVFP4A16 file to file", "llm-compressor", "NVFP4A16"),
    Subject("NVFP4 max", "torchao, NVFP4Tensor", "torchao", "nvfp4"),
    ours("NVFP4 mse", format="nvfp4", mode="mse", **W4A4),
    ours("NVFP4 four-over-six", format="nvfp4", mode="four-over-six", **W4A4),
    ours("NVFP4 max, paired-4:8", format="nvfp4", mode="max", sparsity="paired-4:8", **W4A4),
    ours("MXFP4 even", format="mxfp4", mode="even", activations="dynamic"),
    Subject("MXFP4 even", "Quark, file to file", "quark", "mxfp4", False, True),
    ours("MXFP4 even", "native, compressed-tensors layout", format="mxfp4", **CT, activations="dynamic"),
    Subject("MXFP4 even", "llm-compressor, MXFP4 file to file", "llm-compressor", "MXFP4", False, True),
    Subject("MXFP4 even", "torchao, EVEN", "torchao", "even"),
    ours("MXFP4 floor", format="mxfp4", mode="floor", activations="dynamic"),
    Subject("MXFP4 floor", "torchao, FLOOR", "torchao", "floor"),
    ours("MXFP4 ceil", format="mxfp4", mode="ceil", activations="dynamic"),
    Subject("MXFP4 ceil", "torchao, CEIL", "torchao", "ceil"),
    ours("MXFP4 ceil6", "native, compressed-tensors layout", format="mxfp4", mode="ceil6", **CT, activations="dynamic"),
    Subject("MXFP4 ceil6", "torchao, RCEIL", "torchao", "rceil"),
    Subject("MXFP4 ceil6", "modelopt, MXFP4_DEFAULT_CFG (ties down)", "modelopt", "MXFP4_DEFAULT_CFG"),
]


class Work:
    """The folder everything is made in, and what was measured."""

    def __init__(self, source: Path, folder: Path, options: argparse.Namespace) -> None:
        self.source, self.folder, self.options = source.absolute(), folder.absolute(), options
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "results.json"
        self.results: dict[str, Any] = json.loads(self.file.read_text()) if self.file.exists() else {}

    def keep(self, name: str, **found: Any) -> None:
        self.results[name] = {**self.results.get(name, {}), **found}
        self.file.write_text(json.dumps(self.results, indent=1))

    # --- making ------------------------------------------------------------------------------------------------

    def make(self, subject: Subject) -> Path:
        """The subject's checkpoint."""
        out = self.folder / "made" / subject.name
        if out.exists():
            return out
        out.parent.mkdir(exist_ok=True)
        if subject.tool == "native":
            self._native(subject, out)
            return out
        interpreter = self.options.python.get(subject.tool, sys.executable)
        command = [interpreter, str(ROOT / "benchmarks/vendors.py"), subject.tool, subject.how, str(self.source)]
        partial = out.with_suffix(".partial")
        _run([*command, str(partial), *([str(CALIBRATION)] if subject.calibrated else [])])
        partial.rename(out)
        return out

    def _native(self, subject: Subject, out: Path) -> None:
        recipe = {"name": subject.name, "source": str(self.source), "quantize": LINEARS, **subject.how}
        if subject.calibrated:
            recipe["statistics"] = str(self._statistics())
        path, run = self.folder / f"{subject.name}.json", self.folder / "runs" / subject.name
        path.write_text(json.dumps(recipe))  # JSON is YAML
        _run([sys.executable, "-m", "publisher", "quantize", str(path), "--run-dir", str(run)])
        (run / "checkpoint").rename(out)

    def _statistics(self) -> Path:
        path = self.folder / "statistics.safetensors"
        if not path.exists():
            told = ["--samples", "32", "--sequence-length", "256", "--output", str(path)]
            _run([sys.executable, "-m", "publisher", "calibrate", str(self.source), "--data", str(CALIBRATION), *told])
        return path

    # --- measuring ---------------------------------------------------------------------------------------------

    def measure(self, name: str, folder: Path, *, w4a4: bool) -> None:
        """Both perplexities of a checkpoint, unless they are known."""
        known = self.results.get(name, {})
        if "weights" in known and ("w4a4" in known or not w4a4):
            return
        import torch

        from publisher.native import dequantized, evaluate
        from publisher.native.activations import SimulatedActivations

        began = time.monotonic()
        windows = evaluate.cut(
            dequantized.load_tokenizer(self.source),
            TEXT.read_text(),
            windows=self.options.windows,
            length=self.options.length,
        )
        model = dequantized.load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
        digest = _digest(model)
        same = next((r for r in self.results.values() if r.get("digest") == digest and "weights" in r), None)
        self.keep(name, digest=digest, weights=same["weights"] if same else _scores(model, windows))
        if w4a4:
            simulated = SimulatedActivations(model, folder)
            alike = f"{digest} {simulated.description}"
            same = next((r for r in self.results.values() if r.get("inputs") == alike and "w4a4" in r), None)
            found = same["w4a4"] if same else []
            if not found:
                with simulated:
                    found = _scores(model, windows)
                simulated.require_used()
            self.keep(name, w4a4=found, inputs=alike)
        took = time.monotonic() - began
        print(f"{name}: {_perplexity(self.results[name]['weights']):.3f}, {took:.0f} s", flush=True)


def _scores(model: Any, windows: list[list[int]]) -> list[float]:
    """Negative log-likelihood of each window, nats per token; all windows are of one length."""
    from publisher.native.evaluate import score

    return [score(model, [window]).nll for window in windows]


def _perplexity(scores: list[float]) -> float:
    return math.exp(statistics.fmean(scores))


def _against(scores: list[float], base: list[float]) -> str:
    """How much larger a perplexity is, with the standard error of that over the windows, which both models read."""
    differences = [one - other for one, other in zip(scores, base, strict=True)]
    ratio = math.exp(statistics.fmean(differences))
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    return f"{100 * (ratio - 1):+.1f} % ± {100 * ratio * error:.1f}"


def _digest(model: Any) -> str:
    """One number of all weights; equal weights are measured once. +0 and -0 are the same weight."""
    total = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        total.update(name.encode() + (parameter.detach() + 0.0).contiguous().numpy().tobytes())
    return total.hexdigest()


def _run(command: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if "vendors.py" in command[1]:
        environment.pop("PYTHONPATH")
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:5])}: {done.stderr[-600:]}")


# --- the tables ----------------------------------------------------------------------------------------------------


def table(results: Mapping[str, Any], key: str) -> str:
    """Markdown rows of what was measured, in the order of the subjects."""
    base = results["source"]["weights"]
    lines = ["| mode | made by | perplexity | over BF16 | the same weights as |", "|---|---|---|---|---|"]
    lines += [f"| BF16 | the source | {_perplexity(base):.3f} | | |"]
    first: dict[str, str] = {}
    for subject in SUBJECTS:
        found = results.get(subject.name, {})
        if key not in found:
            if "error" in found and (key == "weights" or subject.w4a4):
                lines.append(f"| {subject.mode} | {subject.maker} | not run: {found['error']} | | |")
            continue
        own = f"{subject.mode}, {subject.maker}"
        alike = first.setdefault(found["digest"], own)
        numbers = f"{_perplexity(found[key]):.3f} | {_against(found[key], base)}"
        lines.append(f"| {subject.mode} | {subject.maker} | {numbers} | {'' if alike == own else alike} |")
    return "\n".join(lines)


def report(work: Work) -> str:
    """Both tables with how and when they were measured."""
    options, results = work.options, work.results
    names = ("torch", "transformers", "nvidia-modelopt", "torchao", "compressed-tensors")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    versions += "".join(f", {tool}" for tool in options.versions)
    tokens = len(results["source"]["weights"]) * (options.length - 1)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "\n\n".join(
        [
            f"Measured on {day}: {options.windows} windows of {options.length} tokens of `demo/eval.txt` ({tokens:,} "
            f"scored), float32 on a CPU; {versions}.",
            f"### Weight-only: activations exact\n\n{table(results, 'weights')}",
            f"### W4A4: activations quantized as the checkpoint declares\n\n{table(results, 'w4a4')}",
        ]
    )


def main() -> int:
    """Make, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--only", action="append", help="a subject's name, or the beginning of names; may be repeated")
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--python", action="append", default=[], metavar="TOOL=PYTHON", help="a tool's own environment")
    parser.add_argument("--versions", action="append", default=[], metavar="TEXT", help="of those tools, for the table")
    parser.add_argument("--table", type=Path, metavar="FILE", help="put the tables between the marks in FILE")
    options = parser.parse_args()
    options.python = dict(pair.partition("=")[::2] for pair in options.python)
    work = Work(options.source, options.work, options)
    work.measure("source", work.source, w4a4=False)
    for subject in SUBJECTS:
        if options.only and not subject.name.startswith(tuple(options.only)):
            continue
        try:
            work.measure(subject.name, work.make(subject), w4a4=subject.w4a4)
        except Exception as error:  # noqa: BLE001 - one that cannot be made must not take the others with it
            print(f"{subject.name}: not run: {error}", flush=True)
            work.keep(subject.name, error=" ".join(str(error).split())[-200:])
    text = report(work)
    if options.table:
        before, _, rest = options.table.read_text().partition(BEGIN)
        options.table.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
