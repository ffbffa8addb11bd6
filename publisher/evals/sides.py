"""Which runs belong together: all of one label are one model, and its seeds are samples.

Without a label a run belongs to the model its file names. Two runs with the same seeds are no two samples, and a mean
over them would claim what was not measured; they are refused where both have the same score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from publisher.errors import PublisherError
from publisher.evals import protocol
from publisher.evals.results import Key, Run, read_runs

MAX_LABEL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One model with its runs.

    Args:
        label: what its column is called.
        runs: in the order named.
        keys: every score of any of them, in order.
    """

    label: str
    runs: tuple[Run, ...]
    keys: dict[Key, None]

    def runs_with(self, key: Key) -> tuple[Run, ...]:
        """The runs that have a score.

        Raises:
            PublisherError: two of them have the same seeds.
        """
        found = tuple(run for run in self.runs if key in run.scores)
        seen: dict[tuple[tuple[str, int], ...], Run] = {}
        for run in found:
            other = seen.setdefault(protocol.seeds(run), run)
            if other is not run:
                told = ", ".join(f"{name} {value}" for name, value in protocol.seeds(run)) or "no seed recorded"
                raise PublisherError(
                    f"{self.label} has {key} twice with the same seeds ({told}): {other.path} and {run.path}.",
                    hint="Name the run that counts; runs with other seeds are averaged.",
                )
        return found


def sides(places: Sequence[str], noun: str) -> tuple[Side, ...]:
    """Read runs and group them by model, in the order in which models are first named.

    Args:
        places: PATH or LABEL=PATH, a results file or a folder of them.
        noun: what they are, for the message when there are none.

    Raises:
        PublisherError: none are named, or one cannot be read.
    """
    grouped: dict[str, dict[Path, Run]] = {}
    for place in places:
        label, path = split(place)
        for run in read_runs(path):
            grouped.setdefault(label or run.model, {}).setdefault(run.path.resolve(), run)
    if not grouped:
        raise PublisherError(
            f"No {noun} is named.", hint="Write: publisher eval compare BASELINE... -- RESULT..., each a results file."
        )
    return tuple(_side(label[:MAX_LABEL], tuple(runs.values())) for label, runs in grouped.items())


def split(place: str, base: Path = Path()) -> tuple[str, Path]:
    """LABEL=PATH as its two parts; the label is empty where there is none, or where a file has that very name.

    Args:
        place: as written.
        base: the folder that a relative path begins in.
    """
    label, equals, path = place.partition("=")
    if not equals or not label.strip() or (base / place).exists():
        return "", base / place
    return label.strip(), base / path


def _side(label: str, runs: tuple[Run, ...]) -> Side:
    return Side(label=label, runs=runs, keys=dict.fromkeys(key for run in runs for key in run.scores))
