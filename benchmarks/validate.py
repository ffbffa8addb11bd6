"""The validator on Kimi-shaped checkpoints: header rules without data, scale and payload rules over real bytes.

Headers: sparse files with the real names and shapes, at growing sizes, so that the growth can be read off; beside them
`json.loads` of the same headers and index (any validator in Python parses them) and the safetensors library listing the
names. Every measurement is a process of its own, for its peak memory. Scales and payloads: one thread, warm caches,
random but clean bytes, holes where the rest would be; beside them a numpy copy between two arrays. Payloads are counted
with numba, its compiling left out and told, and without.
"""

from __future__ import annotations

import itertools
import json
import math
import shutil
import statistics
import sys
import time
import zlib
from pathlib import Path
from typing import Any

from benchmarks import kimi
from benchmarks.measure import Result, Timing, faster, last_json, longer, run_child, spread

# sizes to open, shards of the last (fewer for a smaller one), rounds
HEADERS = {
    "small": ([kimi.Sizes(layers=1, experts=4, shrink=16), kimi.Sizes(layers=2, experts=4, shrink=16)], 3, 1),
    "normal": ([kimi.Sizes(layers=15), kimi.Sizes(layers=60), kimi.Sizes(layers=108)], 119, 3),
}
# experts whose scales are written, divisor of widths, rounds
SCALES = {"small": (2, 16, 1), "normal": (80, 1, 5)}
# the same for payloads
PAYLOADS = {"small": (2, 16, 1), "normal": (24, 1, 5)}
FULL = 60  # sparse layers of the published model


def run(size: str, folder: Path) -> Result:
    """Make the checkpoints in `folder`, one at a time, and measure child processes on them."""
    result = Result()
    _headers(result, size, folder)
    for form in ("nvfp4", "mxfp4"):
        _scales(result, size, folder, form)
        _payloads(result, size, folder, form)
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
        if entry.name.endswith("input_scale"):  # one for gate and up
            seen = zlib.crc32(entry.name.replace("gate_proj", "up_proj").encode())
            return np.float32(1e-4 * (1 + seen / 2**32)).tobytes()
        return one if entry.name.endswith("_scale_2") else None

    return fill


# --- payloads ------------------------------------------------------------------------------------------------------


def _payloads(result: Result, size: str, folder: Path, form: str) -> None:
    experts, shrink, rounds = PAYLOADS[size]
    sizes = kimi.Sizes(layers=1, experts=experts, shrink=shrink)
    place = folder / f"payload-{form}"
    kimi.write(place, kimi.quantized(kimi.source(sizes), form), kimi.config(sizes, form), 2, _payload_noise(form))
    ways = {"with numba": "payload-numba", "without numba": "payload-numpy"}
    for way, what in ways.items():
        children = [(run_child(_self(what, place)), run_child(_self("copy-payload", place))) for _ in range(rounds)]
        found = [last_json(ours.output) | last_json(copy.output) for ours, copy in children]
        if "seconds" not in found[0]:
            result.not_run[f"{form}: payload rules {way}"] = str(found[0].get("reason"))
            continue
        _payload_rows(result, f"{form}: payload rules {way}", found, max(ours.peak for ours, _ in children))
    children = [(run_child(_self("plain", place)), run_child(_self("copy-payload", place))) for _ in range(rounds)]
    found = [last_json(ours.output) | last_json(copy.output) for ours, copy in children]
    _payload_rows(result, f"{form}: search of plain tensors", found, max(ours.peak for ours, _ in children))
    shutil.rmtree(place)


def _payload_rows(result: Result, name: str, found: list[dict[str, Any]], peak: int) -> None:
    """Our rate over that of a copy; both in bytes per second, since the copy is of another size."""
    ours = Timing(name=name, rounds=tuple(one["seconds"] for one in found), size=found[0]["bytes"])
    more = {key: round(found[0][key], 2) for key in ("compiling",) if key in found[0]}
    result.rows.append(ours.to_json(peak_mb=peak // 1_000_000, findings=found[0]["findings"], **more))
    rates = [one["bytes"] / one["seconds"] / one["copy_rate"] for one in found]
    result.ratios.append(spread(f"{name} / numpy copy, one thread", rates, "higher"))


def _payload_noise(form: str) -> kimi.Fill:
    import numpy as np

    random, scales = np.random.default_rng(1), _scale_noise(form)

    def fill(entry: kimi.Entry) -> bytes | None:
        if entry.dtype != "U8" or entry.name.endswith("weight_scale"):
            return scales(entry)
        codes = random.integers(0, 256, entry.size, np.uint8)
        codes[::8] |= 0x70  # every block has a weight at the top, as its scale says
        return codes.tobytes()

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


def _measure_payload(place: Path, numba: bool) -> dict[str, Any]:
    import numpy as np

    from publisher.formats import scan
    from publisher.subjects import payload

    if numba and not scan.accelerated():
        return {"reason": "numba is not installed"}
    began = time.perf_counter()
    scan.BlockCounts().add(np.zeros(8, np.uint8), np.zeros(1, np.uint8), fast=numba)
    compiling = time.perf_counter() - began
    payload.FAST_FROM = 0 if numba else sys.maxsize
    return _measure_rules(place, "Payload", "Payloads") | ({"compiling": compiling} if numba else {})


def _measure_rules(place: Path, *kinds: str) -> dict[str, Any]:
    """The rules on these kinds of evidence, the second time they read the files."""
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.subjects import Evidence

    codes = [code for code, rule in rules.load_rules().items() if rule.evidence.__name__ in kinds]
    checkpoint = open_checkpoint(place)
    headers = sum(header.data_start for header in checkpoint.shards.values())
    taken: float = 0
    for _ in range(2):
        began = time.perf_counter()
        report = rules.run(Evidence(checkpoint=checkpoint), level="full", select=codes)
        taken = time.perf_counter() - began
    return {"seconds": taken, "bytes": report.bytes_read - headers, "findings": len(report.findings)}


def _measure_copy_rate(_place: Path) -> dict[str, Any]:
    """Bytes per second of a copy between two arrays of 512 MB; the fastest of five."""
    import numpy as np

    data, target = np.ones(1 << 29, np.uint8), np.ones(1 << 29, np.uint8)
    seconds = math.inf
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, data)
        seconds = min(seconds, time.perf_counter() - began)
    return {"copy_rate": len(data) / seconds}


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
    "payload-numba": lambda place: _measure_payload(place, True),
    "payload-numpy": lambda place: _measure_payload(place, False),
    "plain": lambda place: _measure_rules(place, "Plain"),
    "copy-payload": _measure_copy_rate,
}

if __name__ == "__main__":
    print(json.dumps(MEASURES[sys.argv[1]](Path(sys.argv[2]))))
