"""When the card is judged, and what the meter counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from publisher.checkpoint.files import LocalFiles
from publisher.checkpoint.open import open_checkpoint
from publisher.subjects import Evidence, Meter


@pytest.mark.parametrize(
    ("asked", "there", "judged"),
    [(None, True, True), (None, False, False), (False, True, False), (True, False, True)],
)
def test_the_card_is_judged_where_it_is_or_is_asked_for(
    asked: bool | None, there: bool, judged: bool, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    if there:
        (tmp_path / "README.md").write_text("# Card")
    assert Evidence(checkpoint=open_checkpoint(tmp_path), card=asked).has_card is judged


def test_the_meter_counts_the_bytes_that_came(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    told: list[tuple[int, int]] = []
    meter = Meter(progress=lambda done, total: told.append((done, total)), total=10)
    files = LocalFiles(tmp_path)
    assert meter.read(files, "file", 2, 5) == b"234"
    assert meter.read(files, "file", 8, 99) == b"89"
    assert meter.bytes_read == 5
    meter.step(4)
    meter.step(6)
    assert told == [(4, 10), (10, 10)]
