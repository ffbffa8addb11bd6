"""What a run's checkpoint consisted of when it was made, so that nothing else is published later.

Digests of the shards are taken when the engine has finished (or come from its record); every later stage that relies
on the shards asks whether they are still those. Files that no stage put there are refused before the manifest would
list them. Digests of unchanged files are kept, so that a second run does not read them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from publisher import jsonio, manifest
from publisher.errors import CheckpointError

Row = tuple[int, int, str]  # size, time of change in ns, sha256 (hex)


class Custody:
    """Keeps watch over one run's checkpoint.

    Args:
        checkpoint: the folder watched.
        records: the run directory, where `made.json` and `digests.json` are kept.
    """

    def __init__(self, checkpoint: Path, records: Path) -> None:
        self.checkpoint = checkpoint
        self._made = records / "made.json"
        self._digests = records / "digests.json"

    def take(self, known: Mapping[str, str], progress: Callable[[int, int], None]) -> None:
        """Record every file, and the digest of every shard, as they are now.

        Args:
            known: sha256 of shards as the engine wrote them; those are not read again.
            progress: called with (bytes done, bytes in all).
        """
        names = manifest.listing(self.checkpoint)
        shards = {name: size for name, size in names.items() if name.endswith(".safetensors")}
        digests, done = {}, 0
        for name, size in shards.items():
            digests[name] = known.get(name) or manifest.hash_file(self.checkpoint / name)[1]
            done += size
            progress(done, sum(shards.values()))
        document = {"files": sorted(names), "shards": self._rows_of(digests)}
        jsonio.write_atomic(self._made, jsonio.dump_json(document))

    def require_unchanged(self) -> None:
        """Refuse shards that are not those the engine made: nothing after this would notice a changed weight.

        Raises:
            CheckpointError: one is gone or changed.
        """
        for name, row in self._shards().items():
            state = _state(self.checkpoint / name)
            if state is None or (state != row[:2] and manifest.hash_file(self.checkpoint / name)[1] != row[2]):
                raise self._not_as_made(name, gone=state is None)

    def require_same(self, built: manifest.Manifest) -> None:
        """The same of the digests that will be published.

        Raises:
            CheckpointError: one is gone or changed.
        """
        digests = {entry.path: entry.sha256 for entry in built.files}
        for name, row in self._shards().items():
            if digests.get(name) != row[2]:
                raise self._not_as_made(name, gone=name not in digests)

    def require_nothing_added(self, allowed: Iterable[str]) -> None:
        """Refuse files that neither the engine nor a later stage put there: they would be published with the rest.

        Args:
            allowed: what later stages write.

        Raises:
            CheckpointError: naming them.
        """
        made = _document(self._made).get("files")
        if not isinstance(made, list):
            return  # a run directory of an older version
        strays = sorted(set(manifest.listing(self.checkpoint)) - set(made) - set(allowed))
        if strays:
            raise CheckpointError(
                f"{self.checkpoint} holds {len(strays)} file(s) that no stage put there: {', '.join(strays[:10])}.",
                hint="Move them away and run the same command again; what is in this folder is published.",
            )

    def known_digests(self) -> dict[str, str]:
        """Digests taken earlier of files that have not changed since."""
        rows = {**self._shards(), **_rows(_document(self._digests))}
        return {name: row[2] for name, row in rows.items() if _state(self.checkpoint / name) == row[:2]}

    def remember(self, built: manifest.Manifest) -> None:
        """Keep the digests of a manifest for the next run."""
        rows = self._rows_of({entry.path: entry.sha256 for entry in built.files})
        jsonio.write_atomic(self._digests, jsonio.dump_json(rows))

    def _rows_of(self, digests: Mapping[str, str]) -> dict[str, Row]:
        return {name: (*(_state(self.checkpoint / name) or (0, 0)), sha256) for name, sha256 in digests.items()}

    def _shards(self) -> dict[str, Row]:
        return _rows(_document(self._made).get("shards"))

    def _not_as_made(self, name: str, *, gone: bool) -> CheckpointError:
        return CheckpointError(
            f"{self.checkpoint / name} {'is gone' if gone else 'changed'} since it was made.",
            hint=f"Remove {self.checkpoint} and run the same command again; it is made anew.",
        )


def _document(path: Path) -> Mapping[str, Any]:
    """A record of ours; a damaged one counts as absent, so that the files are looked at again."""
    try:
        value = jsonio.load_json(path)
    except jsonio.DocumentError:
        return {}
    return value if isinstance(value, Mapping) else {}


def _rows(value: Any) -> dict[str, Row]:
    rows = value if isinstance(value, Mapping) else {}
    return {name: (row[0], row[1], row[2]) for name, row in rows.items() if isinstance(row, list) and len(row) == 3}


def _state(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None when it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns
