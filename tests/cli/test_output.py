"""What is printed: numbers a person reads, a stranger's text made harmless, progress without a terminal."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from publisher.checkpoint.open import open_checkpoint
from publisher.cli.output import (
    REPORT_FORMS,
    Display,
    Output,
    print_error,
    print_error_document,
    print_report,
    printable,
    progress_text,
    report_option,
    tell_report,
)
from publisher.errors import AccessError
from publisher.findings import ERROR, WARNING, Finding, NotRun, Report
from publisher.journal import Event
from publisher.reports import REPORTS
from publisher.reports.files import ENDINGS, destinations
from tests.builders.tiny import llama, nvfp4
from tests.cli.conftest import Workspace


def test_progress_says_what_how_much_how_fast_and_how_long() -> None:
    payload = {"done": 5e8, "total": 1e9, "unit": "bytes", "rate": 1e8, "eta": 5}
    assert progress_text(payload)[0] == "500 MB of 1.00 GB, 100 MB/s, 5 s left"
    assert progress_text({"done": 3, "total": 9, "unit": "shards"})[0] == "3 of 9 shards"
    assert progress_text(payload | {"files": 3, "files_total": 1200})[0] == (
        "500 MB of 1.00 GB, 3 of 1,200 files, 100 MB/s, 5 s left"
    )


def test_what_a_push_changes_is_shown_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(Output("human"))
    update = {"step": "repository", "message": "This update: removed notes.md (4 B).", "changes": ["removed notes.md"]}
    display(Event(time=0.0, stage="push", kind="log", payload=update))
    display(Event(time=0.0, stage="quantize", kind="log", payload={"message": "a line of an engine"}))
    told = capsys.readouterr().err
    assert "This update: removed notes.md (4 B)." in told
    assert told.splitlines()[1].split() == ["push", "removed", "notes.md"]
    assert "a line of an engine" not in told


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


def test_a_report_leads_with_the_verdict_and_what_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    findings = tuple(
        Finding(code="SV01", slug="nan-block-scale", severity=ERROR, message=f"{i} NaN bytes", tensor=f"m{i}")
        for i in range(5)
    )
    warning = Finding(code="CN06", slug="no-format", severity=WARNING, message="no format", waived="known")
    report = Report(findings=(*findings, warning), not_run=(NotRun(code="SD01", reason="needs the source"),))
    print_report(Output("human"), report, label="./checkpoint")
    out = capsys.readouterr().out
    assert out.index("not publishable: ./checkpoint") < out.index("SV01") < out.index("CN06")
    assert "… and 2 more" in out
    assert "m4" not in out
    assert "waived: known" in out
    assert "needs the source" in out
    print_report(Output("human"), report, verbose=True)
    assert "m4" in capsys.readouterr().out
    print_report(Output("quiet"), report)
    assert capsys.readouterr().out == ""


def test_a_report_without_a_terminal_has_no_colour_and_hides_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    finding = Finding(code="SV01", slug="x", severity=ERROR, message="[red]hf_abcdefghijklmnop[/red] \x1b[31m")
    print_report(Output("human"), Report(findings=(finding,)))
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "hf_abcdefghijklmnop" not in out
    assert "[red]***[/red]" in out


def test_every_form_of_a_report_is_offered() -> None:
    assert set(REPORT_FORMS) == {*REPORTS, "quiet"}
    help_text = str(report_option(lambda: None).__click_params__[0].help)  # type: ignore[attr-defined]
    assert set(re.findall(r"\.[a-z]+", help_text)) <= set(ENDINGS)


@pytest.mark.parametrize("form", sorted(REPORTS))
def test_a_report_is_printed_in_the_form_asked_for(
    form: str, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    checkpoint = open_checkpoint(nvfp4(llama()).write(tmp_path / "c"))
    report = Report(rules_run=("SV01",), tool={"name": "fp4-publisher", "version": "1"})
    wanted = destinations([f"{form}:{tmp_path / 'file'}"])
    tell_report(Output(form), report, checkpoint, label="./c", level="scales", wanted=wanted)
    printed, written = capsysbinary.readouterr().out.decode(), (tmp_path / "file").read_text()
    assert "publishable" in printed.lower() or form in ("sarif", "junit")
    if form != "human":
        assert printed == written


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


def test_validate_writes_every_report_asked_for(workspace: Workspace) -> None:
    nvfp4(llama()).write(workspace.folder / "good")
    (workspace.folder / "good/model-00002-of-00002.safetensors").unlink()
    names = ["r.html", "r.sarif", "r.xml", "r.md", "r.txt"]
    wanted = [word for name in names for word in ("--report", name)]
    done = workspace.publisher("validate", "good", "--format", "jsonl", *wanted, code=1)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[-1]["type"] == "summary"
    assert "CN09" in {line.get("code") for line in lines}
    for name in names:
        assert "CN09" in (workspace.folder / name).read_text(encoding="utf-8")
        assert f"report: {name}" in done.err
    shown = workspace.publisher("validate", "good", "--format", "github", code=1).out
    assert "::error file=" in shown
    assert "title=CN09" in shown


def test_a_report_that_cannot_be_written_is_refused_before_the_work(workspace: Workspace) -> None:
    done = workspace.publisher("validate", "nowhere", "--report", "no/such/r.html", "--format", "jsonl", code=2)
    assert "no/such" in done.json["error"]["message"]
    assert "nowhere" not in done.err


def test_a_terminal_without_our_signs_is_no_reason_to_fail(workspace: Workspace) -> None:
    nvfp4(llama()).write(workspace.folder / "good")
    for form, sign in (("human", "\\u2713 publishable"), ("html", "✓"), ("markdown", "✅")):
        done = workspace.publisher("validate", "good", "--format", form, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert sign in done.out
