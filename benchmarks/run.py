"""`python benchmarks/run.py [--only NAME] [--size small|normal|full] [--json FILE]`: measure and print, judge nothing.

A benchmark that cannot run is reported with its reason; the exit code is 0 all the same, because a figure is no test.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

if not __package__:  # started as a script: this folder's module names must not stand for anybody else's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import job, quantize, remote, validate
from benchmarks.measure import Result, machine

BENCHMARKS: Mapping[str, Callable[[str, Path], Result]] = {
    "quantize": quantize.run,
    "job": job.run,
    "validate": validate.run,
    "remote": remote.run,
}


def main() -> int:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description="Side-by-side measurements of this project; they print, never judge.")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="one of them; may be repeated")
    parser.add_argument(
        "--size", choices=("small", "normal", "full"), default="normal", help="small: seconds; full: job on 8 GB"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where temporary checkpoints go (a real disk)")
    options = parser.parse_args()
    report: dict[str, Any] = {"schema": 1, "size": options.size, "machine": machine(), "benchmarks": {}}
    print(_machine_line(report["machine"]))
    for name, benchmark in BENCHMARKS.items():
        if options.only and name not in options.only:
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="publisher-bench-", dir=options.work) as folder:
            size = "normal" if options.size == "full" and name != "job" else options.size
            result = _attempt(benchmark, size, Path(folder))
        report["benchmarks"][name] = {**result.to_json(), "seconds": round(time.monotonic() - began, 1)}
        _show(name, result)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _attempt(benchmark: Callable[[str, Path], Result], size: str, folder: Path) -> Result:
    try:
        return benchmark(size, folder)
    except Exception as error:  # noqa: BLE001 - one benchmark that breaks must not take the others with it
        return Result(not_run={"everything": f"{type(error).__name__}: {str(error)[:500]}"})


def _machine_line(facts: Mapping[str, Any]) -> str:
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    return f"{facts['processor']}, {facts['cores']} cores, load {facts['load']}; Python {facts['python']}, {libraries}"


def _show(name: str, result: Result) -> None:
    print(f"\n== {name}")
    for note in result.notes:
        print(f"   {note}")
    for row in result.rows:
        seconds = row["seconds"]
        rate = f"{row['gb_per_s']:9.3f} GB/s" if row["gb_per_s"] else " " * 14
        extra = "  ".join(f"{k} {_number(v)}" for k, v in row.items() if k not in ("name", "seconds", "gb_per_s"))
        print(
            f"   {row['name']:44} {seconds['median']:9.4f} s  [{seconds['min']:.4f}, {seconds['max']:.4f}] "
            f"x{seconds['rounds']} {rate}  {extra}"
        )
    for ratio in result.ratios:
        print(f"   {ratio['name']:66} {ratio['value']:8.3f}  [{ratio['min']:.3f}, {ratio['max']:.3f}]")
    for what, why in result.not_run.items():
        print(f"   not run: {what}: {why}")
    sys.stdout.flush()


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main())
