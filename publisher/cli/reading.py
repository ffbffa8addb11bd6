"""What reading a place costs: said before it starts, shown while it goes on, counted in the report.

A folder costs nothing worth a word. Of a repository the user hears how many requests and bytes a level takes, sees the
bytes fetched beside the repository's size, is told when the Hub makes everybody wait, and can interrupt at any time:
what has been read is kept, and the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from publisher.cli.output import Display
from publisher.journal import Event
from publisher.units import format_bytes

if TYPE_CHECKING:
    from publisher.checkpoint.open import Checkpoint
    from publisher.checkpoint.source import Source
    from publisher.findings import Report
    from publisher.subjects import Evidence


class Reading:
    """The places one command reads.

    Args:
        display: where to tell.
        stage: the command's stage, such as `validate`.
    """

    def __init__(self, display: Display, stage: str) -> None:
        self._display, self._stage = display, stage
        self._places: list[Source] = []

    def open(self, spec: str) -> tuple[Source, Checkpoint]:
        """A folder or `hf://org/name[@revision]`, pinned and opened.

        Raises:
            CheckpointError: it is no checkpoint.
            AccessError: the Hub refuses.
            HubError: the Hub cannot be reached.
        """
        from publisher.checkpoint.open import open_checkpoint
        from publisher.checkpoint.source import resolve

        place = resolve(spec, tell=lambda message: self._tell("warning", message))
        self._places.append(place)
        remote = place.remote
        if remote is None:
            return place, open_checkpoint(place.files)
        whole = format_bytes(remote.repository_bytes)

        def progress(done: int, total: int) -> None:
            fetched = f"headers, {format_bytes(remote.bytes_fetched)} fetched of a repository of {whole}"
            self._tell("progress", done=done, total=total, unit=fetched)

        with self.interruptible():
            return place, open_checkpoint(place.files, progress=progress)

    def announce(self, evidence: Evidence, kinds: Collection[type], level: str) -> None:
        """Say what reading tensors of a repository will take; nothing at level headers, or of a folder."""
        from publisher.checkpoint.remote import HubFiles

        files = evidence.checkpoint.files
        if level == "headers" or not isinstance(files, HubFiles):
            return
        outlook = files.outlook(_reads(evidence, kinds, level))
        size, whole = format_bytes(outlook.size), format_bytes(files.repository_bytes)
        cached = f", {outlook.cached:,} reads are in the cache" if outlook.cached else ""
        more = "; comparing with the source reads more" if evidence.source is not None and level == "full" else ""
        text = f"{outlook.requests:,} requests for {size} of the repository's {whole}{cached}{more}"
        self._tell("start", text)

    def progress(self, done: int, total: int) -> None:
        """Show how much of the tensors has been read."""
        self._tell("progress", done=done, total=total, unit="bytes")

    def counted(self, report: Report) -> Report:
        """The report with what was fetched among its counts, which are told too."""
        counts: dict[str, int] = {}
        for name, place in zip(("", "source_"), self._places, strict=False):
            if (remote := place.remote) is not None:
                counts[f"{name}requests"] = remote.requests
                counts[f"{name}bytes_fetched"] = remote.bytes_fetched
                counts[f"{name}repository_bytes"] = remote.repository_bytes
                whole = format_bytes(remote.repository_bytes)
                fetched = f"{format_bytes(remote.bytes_fetched)} of the repository's {whole}"
                self._tell("done", f"fetched {fetched} in {remote.requests:,} requests ({place.repo})")
        return dataclasses.replace(report, subjects={**report.subjects, **counts})

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let an interrupt end the waits of reading threads too; they would keep the process for minutes."""
        remotes = [place.remote for place in self._places if place.remote is not None]
        if not remotes or threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(*_: object) -> None:
            for remote in remotes:
                remote.stop()
            raise KeyboardInterrupt

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _tell(self, kind: str, message: str = "", **payload: Any) -> None:
        words = {"message": message} if message else {}
        self._display(Event(stage=self._stage, kind=kind, payload={**payload, **words}))


def _reads(evidence: Evidence, kinds: Collection[type], level: str) -> Iterator[tuple[str, int, int]]:
    """The range requests of a level: scales and payloads, and at level full whole files for a manifest's digests."""
    from publisher.subjects import Listing, planned_reads
    from publisher.subjects.evidence import PIECE, Meter

    checkpoint = evidence.checkpoint
    for run in planned_reads(checkpoint, kinds, evidence.sample):
        yield run.shard, run.begin, run.end
    listing = Listing(checkpoint=checkpoint, meter=Meter(), shards=level == "full" and evidence.sample is None)
    if Listing in kinds and listing.has_manifest:
        for path in checkpoint.files.sizes:
            size = listing.hashed(path)
            yield from ((path, at, min(at + PIECE, size)) for at in range(0, size, PIECE))
