"""Workflow commands, parsed here as the runner documents it."""

from __future__ import annotations

import re

from publisher.findings import ERROR, Finding
from publisher.reports import github
from publisher.reports.validation import Validation
from tests.reports.conftest import report

COMMAND = re.compile(r"::(error|warning|notice) ([^\r\n]*?)::(.*)")


def parsed(page: str) -> list[tuple[str, dict[str, str], str]]:
    found = []
    for line in page.split("\n")[:-1]:
        match = COMMAND.fullmatch(line)
        assert match, line
        pairs = dict(pair.split("=", 1) for pair in match.group(2).split(","))
        found.append((match.group(1), {k: unescaped(v) for k, v in pairs.items()}, unescaped(match.group(3))))
    return found


def unescaped(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_one_annotation_a_rule(validation: Validation) -> None:
    found = parsed(github.write(validation))
    assert [(kind, values["title"].split()[0]) for kind, values, _ in found[:-1]] == [
        ("error", "CN09"),
        ("error", "SV01"),
        ("warning", "FU01"),
        ("notice", "CF30"),
    ]
    _, values, message = found[1]
    assert values["file"] == "a.safetensors"
    assert message.startswith("model.layers.0.mlp.up_proj.weight_scale: 0 NaN bytes. And 1,249 more places.\nFix: ")
    assert found[-1][2].startswith("not publishable: 1,251 errors")


def test_a_stranger_cannot_end_a_command_or_begin_one(hostile: Validation) -> None:
    page = github.write(hostile)
    found = parsed(page)
    assert len(found) == 3
    assert len(page.splitlines()) >= 3
    assert "%0A::set-output name=a::b" in found[0][2]
    assert set(found[0][1]) == {"file", "title"}


def test_files_of_a_folder_in_the_workspace_are_found_there() -> None:
    finding = Finding(code="SV01", slug="s", severity=ERROR, message="m", file="b/a, b: c.safetensors")

    def file(label: str) -> str:
        return parsed(github.write(Validation(report=report(findings=(finding,)), label=label)))[0][1]["file"]

    assert file("./out/checkpoint") == "out/checkpoint/b/a, b: c.safetensors"
    assert file("hf://org/name@1") == file("/elsewhere") == file("../x") == "b/a, b: c.safetensors"
