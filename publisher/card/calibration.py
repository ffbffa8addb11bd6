"""What activations were calibrated on, and how well the experts of the model were reached by it.

What was really drawn stands in the engine's record and wins over what the recipe asked for. Experts that saw no token
have no range of their own: whose range they were given is told, with how many they are, because a reader cannot see it
in the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from publisher.card.environment import RECORD, mapping
from publisher.card.value import Row, Value, count
from publisher.checkpoint.modules import role_of
from publisher.plan.model import Calibration, Plan

FEW = 32  # tokens below which a range says little


def calibration_rows(plan: Plan | None, record: Mapping[str, Any]) -> tuple[Row, ...]:
    """Data, digest and coverage; empty where nothing is known of a calibration."""
    return tuple(_rows(plan, record))


def _rows(plan: Plan | None, record: Mapping[str, Any]) -> Iterator[Row]:
    drawn = mapping(record.get("calibration"))
    if plan is not None:
        yield from _asked(plan, drawn)
    elif drawn:
        yield Row("Calibration data", _observed_on("", drawn))
    digest = drawn.get("sha256") or drawn.get("data_sha256")
    if isinstance(digest, str) and digest:
        yield Row("Calibration data digest", Value(f"sha256 {digest}", f"{RECORD}: calibration"))
    template = drawn.get("chat_template")
    if template in ("true", "false", True, False):
        told = "applied" if template in ("true", True) else "not applied"
        yield Row("Chat template in calibration", Value(told, f"{RECORD}: calibration"))
    yield from _reached(mapping(record.get("activation_statistics")))


def _asked(plan: Plan, drawn: Mapping[str, Any]) -> Iterator[Row]:
    recipe = plan.recipe
    if recipe.calibration is not None and recipe.activations == "calibrated":
        yield Row("Calibration data", _calibrated_on(recipe.calibration, drawn))
    elif recipe.statistics is not None:
        yield Row("Calibration data", _observed_on(recipe.statistics.name, drawn))
    elif recipe.activations != "calibrated":
        yield Row("Calibration data", Value("none needed", "recipe.yaml: activations"))


def _calibrated_on(asked: Calibration, drawn: Mapping[str, Any]) -> Value:
    """What was drawn where the engine recorded it, otherwise what the recipe asked for."""
    name, length, seed = PurePath(asked.data).name, f"of at most {count(asked.sequence_length)} tokens", asked.seed
    samples, tokens = drawn.get("samples"), drawn.get("tokens")
    if type(samples) is int and type(tokens) is int:
        told = f"{name}: {count(samples)} samples {length}, {count(tokens)} tokens in all, seed {seed}"
        return Value(told, f"{RECORD}: calibration")
    return Value(f"{name}: up to {count(asked.samples)} samples {length}, seed {seed}", "recipe.yaml: calibration")


def _observed_on(file: str, told: Mapping[str, Any]) -> Value:
    """Of activation statistics, what they say about themselves; a data set of the Hub keeps its name and revision."""
    data, samples, length = (told.get(key) for key in ("data", "samples", "sequence_length"))
    where = f" (activation statistics {file})" if file else ""
    if not isinstance(data, str) or not data:
        return Value(
            f"activation statistics {file}" if file else "recorded without its name", "recipe.yaml: statistics"
        )
    text = data if not data.startswith(("/", ".")) else PurePath(data).name
    text += f": {samples} samples" if _plain(samples) else ""
    text += f" of at most {length} tokens" if _plain(length) else ""
    text += f", seed {told['seed']}" if _plain(told.get("seed")) else ""
    return Value(text + where, f"{RECORD}: calibration")


def _plain(value: Any) -> bool:
    return (isinstance(value, str) and value.isdigit()) or type(value) is int


def _reached(seen: Mapping[str, Any]) -> Iterator[Row]:
    """Of the experts that were observed: how many saw no token, how few the least, and whose range was taken."""
    experts = {name: mapping(row) for name, row in seen.items() if role_of(name) == "expert"}
    counts = [row["tokens"] for row in experts.values() if type(row.get("tokens")) is int]
    if not counts:
        return
    origin = f"{RECORD}: activation_statistics"
    none, few = sum(number == 0 for number in counts), sum(0 < number < FEW for number in counts)
    text = f"{count(len(counts))} expert layers, {count(none)} of them reached by no token"
    text += f", {count(few)} by fewer than {FEW}" if few else ""
    reached = [number for number in counts if number]
    text += f"; the least reached one saw {count(min(reached))}" if reached else ""
    yield Row("Expert coverage", Value(text, origin))
    policies = {row["substituted"] for row in experts.values() if isinstance(row.get("substituted"), str)}
    substituted = sum(isinstance(row.get("substituted"), str) for row in experts.values())
    if substituted:
        told = f"{count(substituted)} input ranges are not the layer's own but {', '.join(sorted(policies))}"
        yield Row("Ranges of unreached experts", Value(told, origin))
