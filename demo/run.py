"""The demo: SmolLM2-135M-Instruct becomes an NVFP4 and an MXFP4 checkpoint, proven, carded, published to a folder.

`make demo` runs it; `python demo/run.py DIR` works in DIR, which afterwards holds the source, the runs and the
published repositories. Everything is resumed, so a second run takes what is finished as it is and proves it again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent
RECIPES = ("nvfp4", "mxfp4")
INPUTS = ("nvfp4.yaml", "mxfp4.yaml", "card.toml", "calibration.jsonl", "eval.txt")
console = Console(highlight=False, width=max(Console().width, 110))


def main() -> int:
    """Run the demo in the folder named on the command line; the exit code of the first step that fails."""
    work = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output").absolute()
    work.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    code = step([sys.executable, str(HERE / "make_source.py"), str(work / "source")])
    for name in INPUTS:
        if (work / name).exists() and (work / name).read_bytes() == (HERE / name).read_bytes():
            continue
        shutil.copyfile(HERE / name, work / name)
    for name in RECIPES:
        code = code or publish(work, name)
    if code:
        return code
    show(work, time.monotonic() - started)
    return 0


def step(command: list[str]) -> int:
    """Run one command with its output on this terminal."""
    console.print("[bold]$[/] " + " ".join(shorten(part) for part in command))
    return subprocess.run(command, env=environment()).returncode


def environment() -> dict[str, str]:
    """Offline, without telemetry: the demo talks to nobody."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


def publish(work: Path, name: str) -> int:
    """One `publisher push` to the folder target, everything in it."""
    arguments = ["push", str(work / f"{name}.yaml"), "--to", f"folder:{work / 'published'}"]
    return step([sys.executable, "-m", "publisher", *arguments, "--run-dir", str(work / "runs" / name), "--yes"])


def shorten(part: str) -> str:
    """A path as a person would type it."""
    if part == sys.executable:
        return "python"
    try:
        return os.path.relpath(part) if os.path.isabs(part) else part
    except ValueError:
        return part


def read(path: Path) -> dict[str, Any]:
    """A JSON file of a run."""
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def facts(work: Path, name: str) -> list[tuple[str, str]]:
    """What one run did, label and value, every number read from the run's files."""
    run = work / "runs" / name
    plan, report, publication = read(run / "plan.json"), read(run / "report.json"), read(run / "publication.json")
    push, quantize, evaluation = read(run / "push.json"), read(run / "checkpoint.quantize.json"), None
    if (run / "evaluation.json").exists():
        evaluation = read(run / "evaluation.json")
    actions = [decision["action"] for decision in plan["decisions"]]
    both = [report["summary"], publication["summary"]]
    manifest = read(run / "checkpoint/publish.json")
    files = {entry["name"]: entry["digest"] for entry in manifest["resources"]}
    rows = [
        ("size before", f"{plan['bytes_before'] / 1e6:.1f} MB"),
        (
            "size after",
            f"{plan['bytes_after'] / 1e6:.1f} MB ({plan['bytes_before'] / plan['bytes_after']:.2f}x smaller)",
        ),
        ("modules", f"{actions.count('quantize')} quantized, {actions.count('keep')} kept"),
        (
            "rules",
            f"{sum(s['rules_run'] for s in both)} run, {sum(s['errors'] for s in both)} failed, "
            f"{not_run(report, publication)} not run",
        ),
        ("weight error", weight_error(quantize)),
    ]
    if evaluation:
        rows += [
            (
                "perplexity, weight-only",
                f"{evaluation['checkpoint']['perplexity']:.3f} (source {evaluation['source']['perplexity']:.3f})",
            ),
            ("continues", (evaluation.get("continuation") or "")[:60].replace("\n", " ")),
        ]
    return [
        *rows,
        ("licence", f"LICENSE sha256 {files['LICENSE'][:16]}…"),
        ("repository", f"{push['visibility']}, gate {push['gate']}, verified: {push['verified']}"),
        ("card", shorten(str(Path(push["url"].removeprefix("file://")) / "README.md"))),
    ]


def not_run(*reports: dict[str, Any]) -> int:
    """Rules that neither stage ran although they apply."""
    run = {code for report in reports for code in report["summary"]["rules"]}
    left = {entry["code"] for report in reports for entry in report["not_run"]}
    return len(left - run)


def weight_error(quantize: dict[str, Any]) -> str:
    """Relative RMSE of the quantized weights against the source."""
    error = quantize["weight_error"]
    return f"{error['overall']:.4f} relative RMSE"


def show(work: Path, seconds: float) -> None:
    """The closing table."""
    columns = {name: dict(facts(work, name)) for name in RECIPES}
    table = Table(title="\nSmolLM2-135M-Instruct in FP4", title_justify="left", title_style="bold")
    table.add_column("")
    for name in RECIPES:
        table.add_column(name.upper(), overflow="fold")
    for label in columns[RECIPES[0]]:
        table.add_row(label, *(columns[name].get(label, "") for name in RECIPES))
    console.print(table)
    console.print(
        f"{seconds:.0f} s; run it again and nothing is redone. Next: `make app`, or `publisher push` a recipe of yours."
    )


if __name__ == "__main__":
    sys.exit(main())
