"""On what a checkpoint was made: libraries with their commits, hardware, driver, system, time, memory and energy.

All of it is what the run itself recorded in quantize.json; a checkpoint made elsewhere has none, and then nothing is
said. Energy is an estimate and only made where a person says what the hardware drew.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from publisher.card.person import part
from publisher.card.value import Row, Value, size
from publisher.units import format_duration

RECORD = "quantize.json"


def environment_rows(record: Mapping[str, Any]) -> tuple[Row, ...]:
    """What the run recorded of its surroundings; empty where it recorded nothing."""
    return (*_libraries(record), *_machine(record), *_spent(record))


def energy_rows(record: Mapping[str, Any], person: Mapping[str, Any]) -> tuple[Row, ...]:
    """An estimate of the energy: the time that was recorded, times what a person says the hardware drew."""
    seconds, told = number(record.get("seconds")), part(person, "environmental")
    watts = number(told.get("watts"))
    if seconds is None or watts is None:
        return ()
    energy = seconds / 3600 * watts / 1000
    rows = [Row("Energy (estimate)", Value(f"{energy:.3g} kWh: {format_duration(seconds)} at {watts:g} W", _both()))]
    grid = number(told.get("kg_co2_per_kwh"))
    if grid is not None:
        where = f" ({told['region']})" if told.get("region") else ""
        text = f"{energy * grid:.3g} kg CO2 at {grid:g} kg per kWh{where}"
        rows.append(Row("Emissions (estimate)", Value(text, _both())))
    return tuple(rows)


def number(value: Any) -> float | None:
    """A finite number that is not negative; None for anything else."""
    return float(value) if type(value) in (int, float) and math.isfinite(value) and value >= 0 else None


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def _both() -> str:
    return f"{RECORD}: seconds; card.toml: environmental"


def _libraries(record: Mapping[str, Any]) -> Iterator[Row]:
    versions, around = mapping(record.get("versions")), mapping(record.get("environment"))
    told = [f"{name} {version}" for name, version in sorted(versions.items()) if isinstance(version, str)]
    if told:
        yield Row("Libraries", Value(", ".join(told), f"{RECORD}: versions"))
    commits = [
        f"{name} {sha}" for name, sha in sorted(mapping(around.get("commits")).items()) if isinstance(sha, str) and sha
    ]
    if commits:
        yield Row("Commits of the tools", Value(", ".join(commits), f"{RECORD}: environment.commits"))
    command = around.get("command")
    words = [word for word in command if isinstance(word, str)] if isinstance(command, list) else []
    if words[:1] == ["__main__.py"]:  # of our programs only this one is a package that is run
        words[:1] = ["python -m publisher.native"]
    if words:
        yield Row("Program", Value(" ".join(words), f"{RECORD}: environment.command", code=True))
    settings = [f"{k}={v}" for k, v in sorted(mapping(around.get("settings")).items()) if isinstance(v, str)]
    if settings:
        yield Row("Environment variables", Value(" ".join(settings), f"{RECORD}: environment.settings", code=True))


def _machine(record: Mapping[str, Any]) -> Iterator[Row]:
    device, around = record.get("device"), mapping(record.get("environment"))
    named = device.get("name") or device.get("kind") if isinstance(device, Mapping) else device
    if isinstance(named, str) and named:
        gpus = device.get("gpus") if isinstance(device, Mapping) else None
        several = f"{gpus} × " if type(gpus) is int and gpus > 1 else ""
        workers = record.get("workers")
        shared = f", {workers} workers" if type(workers) is int and workers > 1 else ""
        yield Row("Hardware", Value(f"{several}{named}{shared}", f"{RECORD}: device"))
    labels = (("driver", ""), ("cuda", "CUDA "), ("hip", "ROCm "))
    told = [f"{label}{around[key]}" for key, label in labels if isinstance(around.get(key), str) and around[key]]
    if told:
        yield Row("Driver and runtime", Value(", ".join(told), f"{RECORD}: environment"))
    system = [around[key] for key in ("system", "machine") if isinstance(around.get(key), str) and around[key]]
    if system:
        yield Row("System", Value(", ".join(system), f"{RECORD}: environment"))


def _spent(record: Mapping[str, Any]) -> Iterator[Row]:
    seconds = number(record.get("seconds"))
    if seconds is not None:
        yield Row("Time", Value(format_duration(seconds), f"{RECORD}: seconds"))
    peak = record.get("peak_memory")
    parts = peak if isinstance(peak, Mapping) else {"host": peak}
    memory = [f"{size(int(n))} of {key} memory" for key in ("host", "device") if (n := number(parts.get(key)))]
    if memory:
        yield Row("Peak", Value(", ".join(memory), f"{RECORD}: peak_memory"))
