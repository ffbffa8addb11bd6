"""How many random edits of good checkpoints the rules find: with source and manifest, with the source, and alone.

`python -m benchmarks.mutation [--count N]` prints a table by class of edit and the survivors' kinds.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from publisher.checkpoint.open import open_checkpoint
from publisher.errors import PublisherError
from publisher.rules import run
from publisher.subjects import Evidence
from tests.builders.edits import listed
from tests.builders.mutations import MUTATORS, Mutation, mutations
from tests.rules.cases import GOOD

BASES = ("llama-nvfp4", "mixture-nvfp4", "kimi-mxfp4", "llama-ct-nvfp4")
REGIMES = ("source and manifest", "source", "alone")


@dataclasses.dataclass
class Tally:
    """What became of the edits of one class."""

    tried: int = 0
    found: int = 0
    survivors: list[str] = dataclasses.field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.found / self.tried if self.tried else 1.0


def found(folder: Path, source: Path | None) -> bool:
    """Whether a checkpoint is refused or given a finding."""
    try:
        origin = open_checkpoint(source) if source else None
        evidence = Evidence(checkpoint=open_checkpoint(folder), source=origin, base_model="tiny/tiny")
        return any(f.severity != "info" for f in run(evidence, level="full").findings)
    except PublisherError:
        return True


def applied(folder: Path, mutation: Mutation) -> Iterator[None]:
    path = folder / mutation.path
    before = path.read_bytes()
    if mutation.data is None:
        path.unlink()
    else:
        path.write_bytes(mutation.data)
    yield
    path.write_bytes(before)


def measure(count: int, place: Path, seed: int = 1, regimes: tuple[str, ...] = REGIMES) -> dict[str, dict[str, Tally]]:
    """Tallies by regime and class; `count` edits of every class on every base."""
    table = {regime: {kind: Tally() for kind in MUTATORS} for regime in regimes}
    for base in BASES:
        source, result = GOOD[base]()
        origin = source.write(place / base / "source")
        result.write(place / base / "plain")
        listed()(result)
        folders = {"source": place / base / "plain", "alone": place / base / "plain"}
        folders["source and manifest"] = result.write(place / base / "listed")
        for regime in regimes:
            given = None if regime == "alone" else origin
            for kind, tally in table[regime].items():
                for mutation in mutations(folders[regime], kind, count, seed):
                    for _ in applied(folders[regime], mutation):
                        tally.tried += 1
                        if found(folders[regime], given):
                            tally.found += 1
                        else:
                            tally.survivors.append(f"{base} {mutation.path} {mutation.what}")
    return table


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=25, help="edits of each class on each of the four checkpoints")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--survivors", action="store_true", help="print every edit nobody saw")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(options.count, Path(folder), options.seed)
    print(f"{'class of edit':24}" + "".join(f"{regime:>24}" for regime in REGIMES))
    for kind in MUTATORS:
        cells = (table[regime][kind] for regime in REGIMES)
        print(f"{kind:24}" + "".join(f"{tally.found:>12} of {tally.tried:<4} {tally.rate:4.0%}" for tally in cells))
    for regime in REGIMES:
        words = Counter(
            f"{kind}: {' '.join(survivor.split()[1:3])}"
            for kind in MUTATORS
            for survivor in table[regime][kind].survivors
        )
        if words and not options.survivors:
            print(f"\nsurvivors, {regime}: {words.most_common(12)}")
        for kind in MUTATORS if options.survivors else ():
            sys.stdout.writelines(f"{regime} | {kind} | {line}\n" for line in table[regime][kind].survivors)


if __name__ == "__main__":
    main()
