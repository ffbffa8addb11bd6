"""Where a report goes is settled before the work, and what cannot be written is refused then."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from publisher.errors import PublisherError
from publisher.reports import REPORTS, files
from publisher.reports.validation import Validation
from tests.reports.conftest import report


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.html", "html"), ("a.sarif", "sarif"), ("a.sarif.json", "sarif"), ("a.json", "json"), ("A.JSONL", "jsonl"),
     ("a.xml", "junit"), ("a.md", "markdown"), ("a.txt", "human"), ("github:a.log", "github"), ("html:x", "html")],
)  # fmt: skip
def test_the_name_says_the_form(name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = files.destinations([name])
    assert found.form == form
    assert found.path.name == name.rpartition(":")[2]


@pytest.mark.parametrize("name", ["report", "report.pdf", "html:", "no/such/folder/r.html"])
def test_what_cannot_be_written_is_refused_with_the_next_step(name: str, tmp_path: Path) -> None:
    with pytest.raises(PublisherError) as caught:
        files.destinations([name])
    assert caught.value.hint


def test_a_folder_is_no_report(tmp_path: Path) -> None:
    (tmp_path / "x.html").mkdir()
    with pytest.raises(PublisherError, match="is a folder"):
        files.destinations([str(tmp_path / "x.html")])


def test_every_form_can_be_written_and_hides_tokens(tmp_path: Path, hostile: Validation) -> None:
    wanted = files.destinations([f"{form}:{tmp_path / form}" for form in REPORTS])
    assert files.write(wanted, hostile) == [item.path for item in wanted]
    for form in REPORTS:
        text = (tmp_path / form).read_text(encoding="utf-8")
        assert "hf_abcdefghijklmnop" not in text
        assert "\x1b" not in text, form
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(REPORTS)


def test_a_pipe_is_written_to_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "r.json"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write(files.destinations([str(pipe)]), Validation(report=report(findings=()), label="x"))
    assert os.read(reader, 10_000).startswith(b'{"findings"')
    os.close(reader)
    assert pipe.is_fifo()
