"""What a run recorded of its surroundings is printed, what it did not is not; energy only where a person says more."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.card.environment import energy_rows, environment_rows

RECORD = {
    "versions": {"torch": "2.13.0", "modelopt": "0.47.0"},
    "device": {"kind": "cuda:0", "name": "NVIDIA B200", "gpus": 8},
    "seconds": 3725.0,
    "peak_memory": {"host": 5_000_000_000, "device": 150_000_000_000},
    "environment": {
        "driver": "NVIDIA 580.95.05",
        "cuda": "13.0",
        "system": "Linux 6.8.0",
        "machine": "x86_64",
        "commits": {"fp4-publisher": "a" * 40},
        "settings": {"CUDA_LAUNCH_BLOCKING": "1"},
        "command": ["__main__.py", "job.json"],
    },
}


def test_everything_recorded_is_said() -> None:
    assert {row.label: row.value.text for row in environment_rows(RECORD)} == {
        "Libraries": "modelopt 0.47.0, torch 2.13.0",
        "Commits of the tools": f"fp4-publisher {'a' * 40}",
        "Program": "python -m publisher.native job.json",
        "Environment variables": "CUDA_LAUNCH_BLOCKING=1",
        "Hardware": "8 × NVIDIA B200",
        "Driver and runtime": "NVIDIA 580.95.05, CUDA 13.0",
        "System": "Linux 6.8.0, x86_64",
        "Time": "1 h 02 min",
        "Peak": "5.0 GB (4.7 GiB) of host memory, 150.0 GB (139.7 GiB) of device memory",
    }


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"versions": [1], "device": 7, "seconds": "12", "peak_memory": "much", "environment": "x"},
        {"seconds": float("nan"), "peak_memory": {"host": -1}, "device": {"name": ""}, "environment": {"commits": 1}},
        {"environment": {"driver": 1, "cuda": None, "command": "a", "settings": {"a": 1}, "commits": {"a": ""}}},
    ],
)
def test_a_record_of_nothing_adds_no_row(record: dict[str, Any]) -> None:
    assert environment_rows(record) == ()
    assert energy_rows(record, {"environmental": {"watts": 1000}}) == ()


def test_energy_is_time_times_power() -> None:
    told = {"environmental": {"watts": 10_000, "kg_co2_per_kwh": 0.4, "region": "Sweden"}}
    energy, emissions = energy_rows({"seconds": 7200.0}, told)
    assert energy.value.text == "20 kWh: 2 h 00 min at 10000 W"
    assert emissions.value.text == "8 kg CO2 at 0.4 kg per kWh (Sweden)"
    assert energy_rows({"seconds": 7200.0}, {}) == ()
