"""What this machine can do, what is missing, and what that means for quantizing and for serving the result.

Nothing heavy is imported and nothing is changed: versions come from package metadata, GPUs from the vendors' own tools
(`nvidia-smi`, `amd-smi`, `rocminfo`), each with a time limit, and from torch in a child process where there is none.
What a chip means is a row of `data/hardware/gpus.json`.
"""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from publisher import jsonio
from publisher.engines import ENGINES
from publisher.errors import PublisherError

OK, WARN, MISSING = "ok", "warn", "missing"
CORE = ("click", "huggingface_hub", "jinja2", "jsonschema", "numpy", "psutil", "pyyaml", "rich")
STACK = ("torch", "transformers", "nvidia-modelopt", "accelerate", "gradio")
SECONDS = 20.0
MAX_OUTPUT = 1 << 20
GB = 1_000_000_000
_TORCH_PROBE = """
import json, torch
found = []
for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
    p = torch.cuda.get_device_properties(i)
    arch = getattr(p, "gcnArchName", "") if torch.version.hip else f"sm_{p.major}{p.minor}"
    found.append([p.name, arch.split(":")[0], p.total_memory])
print("GPUS " + json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Args:
        name: what, in two or three words.
        status: ok, warn or missing.
        detail: what was found.
        meaning: what follows from it, and the next step where one is needed.
    """

    name: str
    status: str
    detail: str
    meaning: str = ""

    def to_json(self) -> dict[str, str]:
        """The check as one JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its name, its architecture (`sm_100`, `gfx950`), its memory in bytes where known."""

    name: str
    arch: str
    memory: int | None


Runner = Callable[[Sequence[str]], str | None]


def examine(
    *,
    token_state: Callable[[], Any] | None = None,
    place: Path | None = None,
    run: Runner | None = None,
) -> list[Check]:
    """Look at everything.

    Args:
        token_state: says whether a Hub token is there: a text to show, or something false; it may raise PublisherError.
        place: the folder whose disk counts, by default the current one.
        run: starts a tool and gives its output, None where it is missing or fails.
    """
    checks = [_python(), _core(), *_engines(), *_gpu_checks(gpus(run or run_tool))]
    checks += [_memory(), _disk(place or Path.cwd()), _endpoint()]
    if token_state is not None:
        checks.append(_token(token_state))
    return checks


# --- software ------------------------------------------------------------------------------------------------------


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    return Check("Python", OK, f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _core() -> Check:
    versions = {name: _version(name) for name in CORE}
    absent = [name for name, version in versions.items() if version is None]
    if absent:
        return Check("libraries", MISSING, ", ".join(absent), "Install them: `pip install fp4-publisher`.")
    stack = {name: version for name in STACK if (version := _version(name)) is not None}
    shown = ", ".join(f"{name} {version}" for name, version in {**versions, **stack}.items())
    return Check("libraries", OK, shown)


def _engines() -> Iterator[Check]:
    for engine in ENGINES.values():
        problem = engine.available()
        makes = f"{', '.join(engine.formats)} in the layouts {', '.join(engine.layouts)}"
        if problem is None:
            yield Check(f"engine {engine.name}", OK, "ready", f"Makes {makes}.")
        else:
            yield Check(
                f"engine {engine.name}", MISSING, problem, f"Would make {makes}. The other verbs do not need it."
            )


# --- GPUs ----------------------------------------------------------------------------------------------------------


def run_tool(command: Sequence[str]) -> str | None:
    """Output of a tool that is on the PATH; None where it is missing, fails, or takes longer than `SECONDS`."""
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, timeout=SECONDS, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout[:MAX_OUTPUT].decode("utf-8", errors="replace") if done.returncode == 0 else None


def gpus(run: Runner = run_tool) -> list[Gpu]:
    """The GPUs of this machine, by the first tool that knows any."""
    text = run(("nvidia-smi", "--query-gpu=name,compute_cap,memory.total", "--format=csv,noheader"))
    found = parse_nvidia_smi(text or "")
    if found:
        return found
    text = run(("rocminfo",))
    found = parse_rocminfo(text or "")
    if found:
        return found
    text = run(("amd-smi", "static", "--asic", "--vram", "--json"))
    found = parse_amd_smi(text or "")
    if found or importlib.util.find_spec("torch") is None:
        return found
    return parse_torch(run((sys.executable, "-c", _TORCH_PROBE)) or "")


def parse_nvidia_smi(text: str) -> list[Gpu]:
    """GPUs of `nvidia-smi --query-gpu=name,compute_cap,memory.total --format=csv,noheader`; memory there is in MiB."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^(.+), (\d+)\.(\d+), (?:(\d+) MiB|\[N/A\]|\[Not Supported\])\s*$", line)
        if match:
            name, major, minor, memory = match.groups()
            found.append(Gpu(name.strip(), f"sm_{major}{minor}", int(memory) * 2**20 if memory else None))
    return found


def parse_rocminfo(text: str) -> list[Gpu]:
    """GPU agents of `rocminfo`; the size of an agent's first global pool is its memory, in KB of 1024 bytes."""
    found = []
    for agent in re.split(r"^\*+\s*\nAgent \d+\s*\n\*+\s*$", text, flags=re.MULTILINE)[1:]:
        arch = re.search(r"^  Name:\s+(gfx\w+)", agent, flags=re.MULTILINE)
        if arch and re.search(r"^  Device Type:\s+GPU", agent, flags=re.MULTILINE):
            name = re.search(r"^  Marketing Name:[ \t]*(\S.*?)[ \t]*$", agent, flags=re.MULTILINE)
            size = re.search(r"Segment:\s+GLOBAL.*?\n\s+Size:\s+(\d+)", agent)
            memory = int(size.group(1)) * 1024 if size else None
            found.append(Gpu(name.group(1) if name else "AMD GPU", arch.group(1), memory))
    return found


def parse_amd_smi(text: str) -> list[Gpu]:
    """GPUs of `amd-smi static --asic --vram --json`."""
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        return []
    rows = raw.get("gpu_data", []) if isinstance(raw, dict) else raw
    found = []
    for row in rows if isinstance(rows, list) else []:
        asic = row.get("asic") if isinstance(row, dict) else None
        arch = asic.get("target_graphics_version") if isinstance(asic, dict) else None
        if isinstance(asic, dict) and isinstance(arch, str) and arch.startswith("gfx"):
            vram = row.get("vram")
            size = vram.get("size") if isinstance(vram, dict) else None
            value = size.get("value") if isinstance(size, dict) else None
            memory = value * 2**20 if isinstance(value, int) else None
            found.append(Gpu(str(asic.get("market_name", "AMD GPU")), arch, memory))
    return found


def parse_torch(text: str) -> list[Gpu]:
    """GPUs of the probe that runs torch in a child process."""
    for line in text.splitlines():
        if line.startswith("GPUS "):
            return [Gpu(str(name), str(arch), int(memory)) for name, arch, memory in json.loads(line[5:])]
    return []


def facts(arch: str) -> dict[str, str] | None:
    """The row of `data/hardware/gpus.json` for an architecture; rows are tried in order."""
    rows: list[dict[str, str]] = jsonio.data("hardware/gpus.json")["gpus"]
    return next((row for row in rows if fnmatch.fnmatchcase(arch, row["match"])), None)


def _gpu_checks(found: list[Gpu]) -> Iterator[Check]:
    if not found:
        yield Check(
            "GPU",
            WARN,
            "none found",
            "Quantizing runs on the CPU: right for small models, slow for large ones. The result can be checked and "
            "published here; serving it needs a GPU.",
        )
        return
    for gpu, count in {gpu: found.count(gpu) for gpu in found}.items():
        memory = f", {gpu.memory / GB:.0f} GB" if gpu.memory else ""
        yield Check("GPU", OK, f"{count} × {gpu.name} ({gpu.arch}{memory})", meaning(gpu.arch))


def meaning(arch: str) -> str:
    """What a GPU architecture means for quantizing and for serving, in sentences."""
    row = facts(arch)
    if row is None:
        return "Quantizing may run on it through torch; nothing is known here about serving FP4 on it."
    words = jsonio.data("hardware/gpus.json")["support"]
    chips = f" ({row['chips']})" if row["chips"] else ""
    serving = "; ".join(
        f"{label} {row[key]}: {words[row[key]]}" for label, key in (("NVFP4", "nvfp4"), ("MXFP4", "mxfp4"))
    )
    return f"{row['family']}{chips}. Quantizing runs on it through torch. Serving: {serving}. {row['note']}"


# --- the machine and the Hub ---------------------------------------------------------------------------------------


def _memory() -> Check:
    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Check(
        "memory",
        OK,
        f"{memory.available / GB:.1f} of {memory.total / GB:.1f} GB free, {cores} CPU cores",
        "The engine native needs a layer's share of the model, the engine modelopt all of it.",
    )


def _disk(place: Path) -> Check:
    usage = shutil.disk_usage(place)
    status = OK if usage.free > 10 * GB else WARN
    return Check(
        "disk", status, f"{usage.free / GB:.1f} GB free under {place}", "`publisher plan` says what a run needs."
    )


def _endpoint() -> Check:
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    shown = re.sub(r"//[^/@]*@", "//***@", endpoint)
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if offline:
        return Check("Hub", WARN, f"{shown}, but HF_HUB_OFFLINE is set", "Unset it to download or push.")
    return Check("Hub", OK, shown, "Not contacted now.")


def _token(token_state: Callable[[], Any]) -> Check:
    try:
        state = token_state()
    except PublisherError as error:
        return Check("Hub token", WARN, error.message, error.hint)
    if not state:
        return Check("Hub token", WARN, "none", "Needed for pushing to the Hub and for gated sources: `hf auth login`.")
    return Check("Hub token", OK, state if isinstance(state, str) else "present")
