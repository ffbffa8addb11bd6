"""A Kimi-sized repository validated over a network: every reply of a Hub on this machine comes 50 ms late.

The files are sparse, with the real names and shapes; the Hub serves their ranges. Measured in processes of their own:
all header rules with nothing cached, the same again with everything cached by commit, and beside them the Hub client's
own reading of the same headers, which parses names, dtypes and shapes and judges nothing.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import kimi
from benchmarks.measure import Child, Result, Timing, last_json, longer, run_child

LATENCY = 0.05  # seconds before every reply
REPOSITORY = "bench/kimi"
# size of the model, shards, rounds
SIZES = {
    "small": (kimi.Sizes(layers=2, experts=4, shrink=32), 4, 1),
    "normal": (kimi.Sizes(layers=60), 119, 3),
}


def run(size: str, folder: Path) -> Result:
    """Serve one checkpoint from `folder` and measure child processes that read it."""
    from tests.hub.loopback import LoopbackHub

    sizes, shards, rounds = SIZES[size]
    place = folder / "kimi"
    count = kimi.write(place, kimi.quantized(kimi.source(sizes), "nvfp4"), kimi.config(sizes, "nvfp4"), shards, _hole)
    result = Result()
    with LoopbackHub() as hub:
        hub.seed_folder(REPOSITORY, place)
        hub.latency = LATENCY
        found: dict[str, list[tuple[Child, dict[str, Any]]]] = {"cold": [], "warm": [], "client": []}
        for number in range(rounds):
            home = folder / f"home-{number}"
            for name in found:
                asked = len(hub.log)
                child = run_child(_self("client" if name == "client" else "rules"), _environment(hub.endpoint, home))
                found[name].append((child, last_json(child.output) | {"asked": len(hub.log) - asked}))
    _tell(result, found, count)
    return result


def _tell(result: Result, found: dict[str, list[tuple[Child, dict[str, Any]]]], count: int) -> None:
    titles = {
        "cold": "all header rules, nothing cached",
        "warm": "all header rules, headers cached",
        "client": "huggingface_hub get_safetensors_metadata",
    }
    timings = {}
    for name, rounds in found.items():
        first = rounds[0][1]
        timing = Timing(name=titles[name], rounds=tuple(facts["seconds"] for _, facts in rounds))
        timings[name] = timing
        more = {"peak_mb": max(child.peak for child, _ in rounds) // 1_000_000, "http_requests": first["asked"]}
        more |= {key: first[key] for key in ("fetched_mb", "findings", "tensors") if key in first}
        result.rows.append(timing.to_json(**more))
    result.ratios.append(
        longer("all header rules / the Hub client's headers alone", timings["cold"], timings["client"])
    )
    result.ratios.append(longer("cached / nothing cached", timings["warm"], timings["cold"]))
    facts = found["cold"][0][1]
    result.notes.append(
        f"{count:,} tensors, {facts['repository_gb']:,} GB, {LATENCY * 1000:.0f} ms before every reply; "
        f"level scales would make {facts['scale_requests']:,} requests for {facts['scale_gb']} GB"
    )


def _hole(_entry: kimi.Entry) -> None:
    """No data: header rules never miss it."""


def _self(what: str) -> list[str | Path]:
    return [sys.executable, "-m", "benchmarks.remote", what]


def _environment(endpoint: str, home: Path) -> dict[str, str]:
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "FP4_PUBLISHER_CACHE": str(home / "cache"), **quiet}


# --- in the child --------------------------------------------------------------------------------------------------


def _measure_rules() -> dict[str, Any]:
    from publisher import rules
    from publisher.checkpoint.open import open_checkpoint
    from publisher.checkpoint.source import resolve
    from publisher.subjects import Evidence, planned_reads

    rules.load_rules()
    began = time.perf_counter()
    place = resolve(f"hf://{REPOSITORY}", token=False)
    checkpoint = open_checkpoint(place.files)
    evidence = Evidence(checkpoint=checkpoint, settings={"gated": place.gated})
    report = rules.run(evidence, level="headers")
    seconds = time.perf_counter() - began
    remote = place.remote
    assert remote is not None
    planned = planned_reads(checkpoint, rules.evidence_asked(evidence, "scales"))
    return {
        "seconds": seconds,
        "findings": len(report.findings),
        "tensors": len(checkpoint.tensors),
        "fetched_mb": round(remote.bytes_fetched / 1e6, 1),
        "repository_gb": round(remote.repository_bytes / 1e9),
        "scale_requests": len(planned),
        "scale_gb": round(sum(run.size for run in planned) / 1e9, 1),
    }


def _measure_client() -> dict[str, Any]:
    from huggingface_hub import HfApi

    began = time.perf_counter()
    found = HfApi(token=False).get_safetensors_metadata(REPOSITORY)
    return {"seconds": time.perf_counter() - began, "tensors": len(found.weight_map)}


MEASURES = {"rules": _measure_rules, "client": _measure_client}

if __name__ == "__main__":
    os.environ.pop("HF_TOKEN", None)
    print(json.dumps(MEASURES[sys.argv[1]]()))
