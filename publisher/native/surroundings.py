"""What a run is surrounded by: GPU driver and runtime, system, commits of the tools, the command.

Written into quantize.json beside the versions, so that a card can say on what a checkpoint was made. Only what a reader
needs to repeat the run: of the command and of paths the last part, of the environment the settings in `SETTINGS`;
never a name of the machine or of a user.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import Any

SETTINGS = (
    "CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF", "NVIDIA_TF32_OVERRIDE", "NUMBA_NUM_THREADS",
)  # fmt: skip
DRIVERS = (Path("/proc/driver/nvidia/version"), Path("/sys/module/amdgpu/version"))
MAX_SETTING = 200
_SHA = re.compile(r"[0-9a-f]{40}")
_NVIDIA = re.compile(r"Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)")


def surroundings(distributions: Iterable[str], torch: Any = None) -> dict[str, Any]:
    """The record, without what is not known.

    Args:
        distributions: packages whose commit is wanted, where they were installed from a repository.
        torch: the library, where it is loaded: it knows its runtime.
    """
    runtime = dict(_runtime(torch)) if torch is not None else {}
    found: dict[str, Any] = {
        "system": f"{platform.system()} {platform.release()}".strip(),
        "machine": platform.machine(),
        "driver": driver(),
        **runtime,
        "commits": {name: sha for name in distributions if (sha := commit(name))},
        "settings": {key: os.environ[key][:MAX_SETTING] for key in SETTINGS if os.environ.get(key)},
        "command": [PurePath(part).name for part in sys.argv],
    }
    return {key: value for key, value in found.items() if value}


def driver(places: Iterable[Path] = DRIVERS) -> str | None:
    """The GPU driver's name and version, as the kernel tells it; None without one."""
    for place in places:
        with contextlib.suppress(OSError):
            text = place.read_text(errors="replace")
            if "nvidia" in str(place):
                match = _NVIDIA.search(text)
                return f"NVIDIA {match.group(1)}" if match else None
            return f"amdgpu {text.strip()[:40]}" if text.strip() else None
    return None


def commit(distribution: str) -> str | None:
    """The commit a package was installed from: recorded by the installer (PEP 610), or of the checkout it runs from."""
    try:
        text = importlib.metadata.distribution(distribution).read_text("direct_url.json")
        found = json.loads(text) if text else None
    except (importlib.metadata.PackageNotFoundError, ValueError, OSError):
        return None
    if not isinstance(found, dict):
        return None
    repository = found.get("vcs_info")
    sha = repository.get("commit_id") if isinstance(repository, dict) else None
    if isinstance(sha, str) and _SHA.fullmatch(sha):
        return sha
    url, folder = found.get("url"), found.get("dir_info")
    if isinstance(url, str) and url.startswith("file://") and isinstance(folder, dict) and folder.get("editable"):
        return _head(Path(url.removeprefix("file://")) / ".git")
    return None


def _head(git: Path) -> str | None:
    """The commit a checkout is at, read from its files; what was changed since is not seen."""
    with contextlib.suppress(OSError):
        head = (git / "HEAD").read_text().strip()
        if head.startswith("ref: "):
            name = head.removeprefix("ref: ")
            loose = git / name
            head = loose.read_text().strip() if loose.is_file() else _packed(git, name)
        return head if _SHA.fullmatch(head) else None
    return None


def _packed(git: Path, name: str) -> str:
    for line in (git / "packed-refs").read_text().splitlines():
        sha, _, ref = line.partition(" ")
        if ref == name:
            return sha
    return ""


def _runtime(torch: Any) -> Iterator[tuple[str, str]]:
    version = getattr(torch, "version", None)
    for key in ("cuda", "hip"):
        value = getattr(version, key, None)
        if isinstance(value, str) and value:
            yield key, value
