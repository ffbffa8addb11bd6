"""The validator on Kimi-shaped checkpoints: header rules without data, scale rules over real scale bytes.

Headers: sparse files with the real names and shapes, at growing sizes, so that the growth can be read off; beside them
`json.loads` of the same headers and index (any validator in Python parses them) and the safetensors library listing the
names. Every measurement is a process of its own, for its peak memory. Scales: one thread, warm caches, random but clean
scale bytes, holes where the payload would be; beside them a numpy copy between two arrays.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import kimi
from benchmarks.measure import Result, Timing, faster, last_json, longer, run_child, spread

# sizes to open, shards of the last (fewer for a smaller one), rounds
HEADERS = {
    "small": ([kimi.Sizes(layers=1, experts=4, shrink=32), kimi.Sizes(layers=2, experts=4, shrink=32)], 3, 1),
    "normal": ([kimi.Sizes(layers=15), kimi.Sizes(layers=60), kimi.Sizes(layers=108)], 119, 3),
}
# experts whose scales are written, divisor of widths, rounds
SCALES = {"small": (2, 32, 1), "normal": (80, 1, 5)}
FULL = 60  # sparse layers of the published model


def run(size: str, folder: Path) -> Result:
    """Make the checkpoints in `folder`, one at a time, and measure child processes on them."""
    result = Result()
    _headers(result, size, folder)
    for form in ("nvfp4", "mxfp4"):
        _scales(result, size, folder, form)
    return result


# --- headers -------------------------------------------------------------------------------------------------------


def _headers(result: Result, size: str, folder: Path) -> None:
    shapes, shards, rounds = HEADERS[size]
    whole: list[tuple[int, Timing]] = []
    for sizes in shapes:
        place = folder / f"headers-{sizes.layers}"
        entries = kimi.quantized(kimi.source(sizes), "nvfp4")
        files = max(2, round(shards * sizes.layers / min(FULL, shapes[-1].layers)))
        count = kimi.write(place, entries, kimi.config(sizes, "nvfp4"), files, _hole)
        whole.append((count, _header_rounds(result, place, count, files, rounds)))
        shutil.rmtree(place)
    for (fewer, short), (more, long) in itertools.pairwise(whole):
        exponents = [math.log(b / a) / math.log(more / fewer) for a, b in zip(short.rounds, long.rounds, strict=True)]
        name = f"growth exponent from {fewer:,} to {more:,} tensors (1 is linear)"
        result.ratios.append(spread(name, exponents, "lower"))


def _hole(_entry: kimi.Entry) -> None:
    """No data: what reads headers alone never misses it."""


def _header_rounds(result: Result, place: Path, count: int, files: int, rounds: int) -> Timing:
    children = [(run_child(_self("headers", place)), run_child(_self("json", place)), run_child(_self("names", place)))
                for _ in range(rounds)]  # fmt: skip
    found = [tuple(last_json(child.output) for child in round_) for round_ in children]
    title = f"{count:,} tensors"
    timings = {
        name: Timing(name=f"{title}: {name}", rounds=tuple(values))
        for name, values in {
            "open": [ours["open"] for ours, _, _ in found],
            "header rules": [ours["rules"] for ours, _, _ in found],
            "open + header rules": [ours["open"] + ours["rules"] for ours, _, _ in found],
            "json.loads of headers and index": [other["seconds"] for _, other, _ in found],
            "safetensors lists the names": [other["seconds"] for _, _, other in found if "seconds" in other],
        }.items()
        if values
    }
    for name, timing in timings.items():
        more: dict[str, Any] = {}
        if name == "open + header rules":
            more = {
                "tensors_per_s": round(count / statistics.median(timing.rounds)),
                "peak_mb": max(child.peak for child, _, _ in children) // 1_000_000,
                "shards": files,
                "findings": found[0][0]["findings"],
            }
        result.rows.append(timing.to_json(**more))
    total = timings["open + header rules"]
    for peer in ("json.loads of headers and index", "safetensors lists the names"):
        if peer in timings:
            result.ratios.append(longer(f"{title}: open + rules / {peer}", total, timings[peer]))
    if "safetensors lists the names" not in timings:
        result.not_run[f"{title}: safetensors"] = str(found[0][2].get("reason"))
    return total


def _self(what: str, place: Path) -> list[str | Path]:
    return [sys.executable, "-m", "benchmarks.validate", what, place]


# --- scales --------------------------------------------------------------------------------------------------------


def _scales(result: Result, size: str, folder: Path, form: str) -> None:
    experts, shrink, rounds = SCALES[size]
    sizes = kimi.Sizes(layers=1, experts=experts, shrink=shrink)
    place = folder / f"scales-{form}"
    entries = kimi.quantized(kimi.source(sizes), form)
    kimi.write(place, entries, kimi.config(sizes, form), 2, _scale_noise(form))
    children = [(run_child(_self("scales", place)), run_child(_self("copy", place))) for _ in range(rounds)]
    found = [last_json(ours.output) | last_json(copy.output) for ours, copy in children]
    read = found[0]["bytes"]
    ours = Timing(name=f"{form}: scale rules", rounds=tuple(one["rules"] for one in found), size=read)
    copy = Timing(name=f"{form}: numpy copy of as many bytes", rounds=tuple(one["copy"] for one in found), size=read)
    plain = Timing(
        name=f"{form}: reading the same files' scales", rounds=tuple(one["read"] for one in found), size=read
    )
    peak = max(child.peak for child, _ in children) // 1_000_000
    result.rows.append(ours.to_json(scale_mb=read // 1_000_000, peak_mb=peak, findings=found[0]["findings"]))
    result.rows += [copy.to_json(), plain.to_json()]
    result.ratios.append(faster(f"{form}: scale rules / numpy copy, one thread", ours, copy))
    result.ratios.append(faster(f"{form}: scale rules / only reading", ours, plain))


def _scale_noise(form: str) -> kimi.Fill:
    import numpy as np

    random = np.random.default_rng(0)
    low, high = (0x30, 0x7F) if form == "nvfp4" else (110, 125)
    one = np.float32(1e-4).tobytes()

    def fill(entry: kimi.Entry) -> bytes | None:
        if entry.name.endswith("weight_scale"):
            return random.integers(low, high, entry.size, np.uint8).tobytes()
        return one if entry.name.endswith(("_scale_2", "input_scale")) else None

    return fill


# --- in the child --------------------------------------------------------------------------------------------------


def _measure_headers(place: Path) -> dict[str, Any]:
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.subjects import Evidence

    rules.load_rules()
    began = time.perf_counter()
    checkpoint = open_checkpoint(place)
    opened = time.perf_counter()
    report = rules.run(Evidence(checkpoint=checkpoint), level="headers")
    done = time.perf_counter()
    return {"open": opened - began, "rules": done - opened, "findings": len(report.findings)}


def _measure_json(place: Path) -> dict[str, Any]:
    began = time.perf_counter()
    json.loads((place / kimi.INDEX).read_bytes())
    for path in sorted(place.glob("*.safetensors")):
        with path.open("rb") as file:
            json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return {"seconds": time.perf_counter() - began}


def _measure_names(place: Path) -> dict[str, Any]:
    try:
        from safetensors import safe_open
    except ImportError as error:
        return {"reason": str(error)}
    began = time.perf_counter()
    count = 0
    for path in sorted(place.glob("*.safetensors")):
        with safe_open(path, framework="np") as file:
            count += len(file.keys())
    return {"seconds": time.perf_counter() - began, "tensors": count}


def _measure_scales(place: Path) -> dict[str, Any]:
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.subjects import Evidence

    codes = [code for code, rule in rules.load_rules().items() if rule.cost == "scales"]
    checkpoint = open_checkpoint(place)
    scales = [ref for ref in checkpoint.tensors.values() if ref.name.endswith("weight_scale")]
    plain = math.inf
    for _ in range(2):  # the first pass warms the page cache
        began = time.perf_counter()
        for ref in scales:
            checkpoint.files.read(ref.shard, ref.begin, ref.end)
        plain = min(plain, time.perf_counter() - began)
    began = time.perf_counter()
    report = rules.run(Evidence(checkpoint=checkpoint), level="scales", select=codes)
    taken = time.perf_counter() - began
    return {"rules": taken, "read": plain, "bytes": _scale_bytes(place), "findings": len(report.findings)}


def _measure_copy(place: Path) -> dict[str, Any]:
    """As many bytes as the scales have, between two arrays whose pages are there; the fastest of five."""
    import numpy as np

    size = _scale_bytes(place)
    data, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    seconds = math.inf
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, data)
        seconds = min(seconds, time.perf_counter() - began)
    return {"copy": seconds}


def _scale_bytes(place: Path) -> int:
    sizes = []
    for path in place.glob("*.safetensors"):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        spans = [entry["data_offsets"] for name, entry in header.items() if name.endswith("weight_scale")]
        sizes += [end - begin for begin, end in spans]
    return sum(sizes)


MEASURES = {
    "headers": _measure_headers,
    "json": _measure_json,
    "names": _measure_names,
    "scales": _measure_scales,
    "copy": _measure_copy,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]))))
