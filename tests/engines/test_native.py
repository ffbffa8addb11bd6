"""The adapter of our own quantizer; the program it names is tested beside it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from publisher.engines.native import Native


def test_it_makes_both_formats_in_the_layout_each_is_served_in() -> None:
    assert Native().formats == ("nvfp4", "mxfp4")
    assert Native().layouts == ("modelopt", "quark", "compressed-tensors")


def test_its_program_exists() -> None:
    module = Native().command(Path("job.json"))[2]
    assert importlib.util.find_spec(f"{module}.__main__") is not None
