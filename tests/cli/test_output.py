"""What is printed: numbers a person reads, a stranger's text made harmless, progress without a terminal."""

from __future__ import annotations

import json

import pytest

from publisher.cli.output import (
    Display,
    Output,
    print_error,
    print_error_document,
    print_report,
    printable,
    progress_text,
)
from publisher.errors import AccessError
from publisher.findings import ERROR, WARNING, Finding, NotRun, Report
from publisher.journal import Event


def test_progress_says_what_how_much_how_fast_and_how_long() -> None:
    payload = {"done": 5e8, "total": 1e9, "unit": "bytes", "rate": 1e8, "eta": 5}
    assert progress_text(payload)[0] == "500 MB of 1.00 GB, 100 MB/s, 5 s left"
    assert progress_text({"done": 3, "total": 9, "unit": "shards"})[0] == "3 of 9 shards"


def test_escape_codes_and_markup_of_a_stranger_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    assert printable("a\x1b[31mb\r") == "a\\x1b[31mb\\x0d"
    Output("human").say("[bold]name[/bold] [link=x]")
    Output("human").table(["x"], [["[red]\x1b]0;title\x07"]])
    out = capsys.readouterr().out
    assert "[bold]name[/bold] [link=x]" in out
    assert "[red]" in out
    assert "\x1b" not in out


def test_an_error_hides_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    error = AccessError("401 for hf_abcdefghijklmnop.", hint="Log in.")
    print_error(error)
    print_error_document(error)
    captured = capsys.readouterr()
    assert "hf_abcdefghijklmnop" not in captured.out + captured.err
    assert json.loads(captured.out)["error"]["exit_code"] == 3


def test_a_report_leads_with_errors_and_ends_with_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    findings = tuple(
        Finding(code="SV01", slug="nan-block-scale", severity=ERROR, message=f"{i} NaN bytes", tensor=f"m{i}")
        for i in range(5)
    )
    warning = Finding(code="CN06", slug="no-format", severity=WARNING, message="no format", waived="known")
    report = Report(findings=(*findings, warning), not_run=(NotRun(code="SD01", reason="needs the source"),))
    print_report(Output("human"), report)
    out = capsys.readouterr().out
    assert out.index("SV01") < out.index("CN06") < out.index("not publishable")
    assert "… and 2 more" in out
    assert "waived: known" in out
    assert "needs the source" in out


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("publisher.cli.output.time.monotonic", lambda: now[0])
    with Display(Output("human")) as display:
        for second in range(30):
            now[0] = float(second)
            display(Event(stage="push", kind="progress", payload={"done": second, "total": 30, "unit": "files"}))
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2
    assert "10 of 30 files" in lines[0]


def test_json_prints_one_document_and_quiet_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("json")
    output.say("hello")
    output.table(["x"], [["y"]])
    output.data({"a": 1})
    assert capsys.readouterr().out == '{"a": 1}\n'
    Output("quiet").note("hello")
    assert capsys.readouterr().err == ""
