"""The native engine's whole job on a Kimi-shaped source of experts, beside `cp` of what it reads plus what it writes.

Both end with their bytes on the disk: the job flushes every shard, and `cp` is followed by a flush of every copy. Once
with the source in the page cache and once with its pages dropped. The job is the real program in a process of its own,
so its time includes the start of Python and torch; `work` leaves that out, as the program's own record does. `full` is
a source of 8 GB, whose runs need 23 GB of disk.

Two workers stand beside one where the arithmetic is all that counts: a thread each, and the sweep of all scales without
numba. Quark's file-to-file mode stands beside the MXFP4 job where `PUBLISHER_QUARK_PYTHON` names its interpreter.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import kimi
from benchmarks.measure import Child, Result, Timing, drop_caches, faster, longer, run_child, say, spread

# sizes, shards, rounds, states of the caches
SIZES = {
    "small": (kimi.Sizes(layers=1, experts=2, shrink=32), 2, 1, ("cold",)),
    "normal": (kimi.Sizes(layers=1, experts=6), 4, 3, ("warm", "cold")),
    "full": (kimi.Sizes(layers=1, experts=88), 16, 2, ("warm", "cold")),
}
COMPUTE = {  # sources that are small for their arithmetic
    "small": kimi.Sizes(layers=1, experts=2, shrink=32),
    "normal": kimi.Sizes(layers=1, experts=23, shrink=4),
    "full": kimi.Sizes(layers=1, experts=23, shrink=4),
}
_QUARK = """
import sys
from quark.torch import ModelQuantizer
from quark.torch.quantization.config.config import OCP_MXFP4Spec, QConfig, QLayerConfig
static, dynamic = (OCP_MXFP4Spec(ch_axis=-1, is_dynamic=d).to_quantization_spec() for d in (False, True))
layer = QLayerConfig(weight=static, input_tensors=dynamic)
config = QConfig(global_quant_config=layer, exclude=["*mlp.gate", "*norm*"])
ModelQuantizer(config).direct_quantize_checkpoint(sys.argv[1], sys.argv[2], device="cpu")
"""
FORMATS = {"nvfp4": ("modelopt", "max"), "mxfp4": ("quark", "even")}


def run(size: str, folder: Path) -> Result:
    """Make the source in `folder`, run both formats in turn with `cp`."""
    sizes, shards, rounds, states = SIZES[size]
    result = Result()
    source = folder / "source"
    count = kimi.write(source, _experts(sizes), kimi.config(sizes), shards, _noise())
    read = _bytes(source)
    result.notes.append(f"source: {count} tensors, {shards} shards, {read / 1e6:.0f} MB; {rounds} rounds")
    for form in FORMATS:
        for caches in states:
            _compare(result, folder, source, form, caches, rounds)
    _threads(result, folder, source, "nvfp4", rounds)
    _quark(result, folder, source)
    shutil.rmtree(source)
    _workers(result, folder, COMPUTE[size], min(rounds, 2))
    return result


def _experts(sizes: kimi.Sizes) -> Iterator[kimi.Entry]:
    """The sparse layer and the small tensors around it; embedding, head and vision would only be copied."""
    keep = (f"{kimi.LAYERS}.1.", f"{kimi.HEAD}model.norm")
    return (entry for entry in kimi.source(sizes) if entry.name.startswith(keep))


def _noise() -> kimi.Fill:
    """Pieces of one run of noise, each from another place on, because making noise takes longer than all the rest."""
    import torch

    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1 << 24, generator=generator) * 0.02
    runs = {"BF16": noise.bfloat16(), "F32": noise}
    begin = 0

    def fill(entry: kimi.Entry) -> bytes:
        nonlocal begin
        run = memoryview(runs[entry.dtype].view(torch.uint8).numpy())
        begin = (begin + 123_457 * 32) % (len(run) // 2)
        whole, rest = divmod(entry.size, len(run) - begin)
        return bytes(run[begin:]) * whole + bytes(run[begin : begin + rest])

    return fill


def _compare(result: Result, folder: Path, source: Path, form: str, caches: str, rounds: int) -> None:
    whole, work, copies, peaks, written = [], [], [], [], 0
    for _ in range(rounds):
        _caches(source, caches)
        child, record, output = _quantize(folder, source, form)
        written = _bytes(output)
        whole.append(child.seconds)
        work.append(float(record["seconds"]))
        peaks.append(child.peak)
        _caches(source, caches)
        _caches(output, caches)
        copies.append(_copy([source, output], folder / "copy"))
        shutil.rmtree(output)
        say(f"{form} {caches}: whole process", whole[-1])
        say(f"{form} {caches}: cp", copies[-1])
    moved = _bytes(source) + written
    title = f"{form} {caches}"
    timings = [
        Timing(name=f"{title}: job, whole process", rounds=tuple(whole), size=_bytes(source)),
        Timing(name=f"{title}: job, work", rounds=tuple(work), size=_bytes(source)),
        Timing(name=f"{title}: cp of bytes read + written", rounds=tuple(copies), size=moved),
    ]
    result.rows.append(timings[0].to_json(peak_mb=max(peaks) // 1_000_000, written_mb=written // 1_000_000))
    result.rows += [timing.to_json() for timing in timings[1:]]
    result.ratios.append(longer(f"{title}: whole process / cp", timings[0], timings[2]))
    result.ratios.append(longer(f"{title}: work / cp", timings[1], timings[2]))
    largest = _largest_group(source)
    result.ratios.append(spread(f"{title}: peak memory / largest fused group", [p / largest for p in peaks], "lower"))
    result.ratios.append(spread(f"{title}: peak memory / 2 GB", [p / 2e9 for p in peaks], "lower"))


def _workers(result: Result, folder: Path, sizes: kimi.Sizes, rounds: int) -> None:
    """The same job with one worker and with two, a thread each, in turn."""
    source, without = folder / "arithmetic", folder / "without"
    kimi.write(source, _experts(sizes), kimi.config(sizes), 4, _noise())
    without.mkdir()
    (without / "numba.py").write_text('raise ImportError("left out")\n')
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(without)}
    written = _bytes(source) * 9 // 32
    taken: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for workers, values in taken.items():
            change = {"mode": "mse", "workers": workers, "shard_size": max(written // 24, 1)}
            child, _, output = _quantize(folder, source, "nvfp4", environment, change)
            values.append(child.seconds)
            say(f"{workers} worker(s)", values[-1])
            shutil.rmtree(output)
    one, two = (
        Timing(
            name=f"nvfp4 mse without numba: {n} worker(s) of one thread", rounds=tuple(taken[n]), size=_bytes(source)
        )
        for n in (1, 2)
    )
    result.rows += [one.to_json(), two.to_json()]
    result.ratios.append(longer("nvfp4 mse without numba: two workers / one, whole process", two, one))


def _quark(result: Result, folder: Path, source: Path) -> None:
    python = os.environ.get("PUBLISHER_QUARK_PYTHON")
    if not python:
        result.not_run["mxfp4: Quark's file-to-file mode"] = (
            "PUBLISHER_QUARK_PYTHON names no interpreter with amd-quark"
        )
        return
    out = folder / "quark"
    _caches(source, "warm")
    theirs = run_child([python, "-c", _QUARK, source.resolve(), out.resolve()])
    say("Quark file to file", theirs.seconds)
    _caches(source, "warm")
    ours, _, output = _quantize(folder, source, "mxfp4")
    shutil.rmtree(output)
    shutil.rmtree(out)
    timings = [
        Timing(name=f"mxfp4 warm: {name}, whole process", rounds=(child.seconds,), size=_bytes(source))
        for name, child in (("Quark file to file", theirs), ("job beside it", ours))
    ]
    result.rows.append(timings[0].to_json(peak_mb=theirs.peak // 1_000_000))
    result.rows.append(timings[1].to_json(peak_mb=ours.peak // 1_000_000))
    result.ratios.append(faster("mxfp4 warm: native / Quark, whole process", timings[1], timings[0]))


def _threads(result: Result, folder: Path, source: Path, form: str, rounds: int) -> None:
    """The same job with one torch thread and with one per core, in turn, caches warm."""
    every_core = str(os.cpu_count() or 1)
    work: dict[str, list[float]] = {"1": [], every_core: []}
    for _ in range(rounds):
        for threads, values in work.items():
            _caches(source, "warm")
            _, record, output = _quantize(folder, source, form, {"OMP_NUM_THREADS": threads})
            values.append(float(record["seconds"]))
            shutil.rmtree(output)
    one = Timing(name=f"{form} warm: job, work, one thread", rounds=tuple(work["1"]), size=_bytes(source))
    every = Timing(
        name=f"{form} warm: job, work, a thread per core", rounds=tuple(work[every_core]), size=_bytes(source)
    )
    result.rows += [one.to_json(), every.to_json()]
    result.ratios.append(longer(f"{form} warm: a thread per core / one thread", every, one))


def _quantize(
    folder: Path,
    source: Path,
    form: str,
    environment: Mapping[str, str] | None = None,
    change: Mapping[str, Any] | None = None,
) -> tuple[Child, Any, Path]:
    layout, mode = FORMATS[form]
    run_folder = folder / f"run-{form}"
    shutil.rmtree(run_folder, ignore_errors=True)
    run_folder.mkdir()
    modules = sorted(name.removesuffix(".weight") for name in _names(source) if kimi.is_quantized(name))
    pairs = [name.removesuffix("gate_proj") for name in modules if name.endswith("gate_proj")]
    job = {
        "schema": 1,
        "engine": "native",
        "source": str(source.resolve()),
        "output": str((run_folder / "checkpoint").resolve()),
        "staging": str((run_folder / "staging").resolve()),
        "format": form,
        "layout": layout,
        "mode": mode,
        "activations": "none",
        "kv_cache": "none",
        "quantize": modules,
        "groups": {f"{at}gate_up_proj": [f"{at}gate_proj", f"{at}up_proj"] for at in pairs},
        "exclude": ["lm_head"],
        "quantization_config": {"quant_method": layout},
        "hf_quant_config": {"producer": {"name": "modelopt"}} if form == "nvfp4" else None,
        "calibration": None,
        "shard_size": 5_000_000_000,
        "device": "cpu",
        "plan_digest": "benchmark",
        **(change or {}),
    }
    path = run_folder / "job.json"
    path.write_text(json.dumps(job))
    child = run_child([sys.executable, "-m", "publisher.native", path], environment)
    record = json.loads((run_folder / "checkpoint.quantize.json").read_text())
    return child, record, run_folder / "checkpoint"


def _copy(folders: list[Path], target: Path) -> float:
    """Seconds of `cp` of these folders' files, each copy flushed."""
    shutil.rmtree(target, ignore_errors=True)
    began = time.perf_counter()
    for number, folder in enumerate(folders):
        (target / str(number)).mkdir(parents=True)
        subprocess.run(["cp", "--reflink=never", *_files(folder), target / str(number)], check=True)
    for path in target.rglob("*"):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def _caches(folder: Path, state: str) -> None:
    if state == "cold":
        drop_caches(_files(folder))
        return
    for path in _files(folder):
        with path.open("rb", buffering=0) as file:
            while file.read(16 << 20):
                pass


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))


def _names(source: Path) -> list[str]:
    return list(json.loads((source / kimi.INDEX).read_text())["weight_map"])


def _largest_group(source: Path) -> int:
    """Bytes of gate and up projection together, the largest unit of work."""
    entries: dict[str, Any] = {}
    for path in source.glob("*.safetensors"):
        with path.open("rb") as file:
            entries |= json.loads(file.read(int.from_bytes(file.read(8), "little")))
    sizes: list[int] = [
        e["data_offsets"][1] - e["data_offsets"][0] for name, e in entries.items() if kimi.is_quantized(name)
    ]
    return 2 * max(sizes)
