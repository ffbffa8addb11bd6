"""The page of what is published is three verbs of the command line, and shows their answers as text."""

from __future__ import annotations

from typing import Any

import pytest

from publisher.cli import main
from publisher.errors import PublisherError
from publisher.ui.published import (
    decide_arguments,
    decisions_html,
    lint_arguments,
    list_arguments,
    requests_html,
    verification_html,
    verify_arguments,
)

EVIL = "<img src=x onerror=alert(1)>"


def test_the_buttons_are_verbs_of_the_command_line() -> None:
    assert verify_arguments(" hf://a/b ", space=True) == ["verify", "--format", "json", "--", "hf://a/b"]
    assert lint_arguments("hf://a/b", space=True) == [
        "card",
        "lint",
        "--format",
        "json",
        "--complete",
        "--",
        "hf://a/b",
    ]
    assert list_arguments("hf://a/b", "all") == [
        "access",
        "--format",
        "json",
        "--state",
        "all",
        "--",
        "list",
        "hf://a/b",
    ]
    assert decide_arguments("reject", "hf://a/b", "ada, grace", " no ") == [
        *("access", "--format", "json", "--yes", "--reason=no", "--", "reject", "hf://a/b", "ada", "grace")
    ]


def test_a_published_folder_has_its_files_in_its_tree() -> None:
    arguments = lint_arguments("folder:out/me/model", space=False)
    assert isinstance(arguments, list)
    assert arguments[-1] == "out/me/model/tree"


@pytest.mark.parametrize(
    "arguments",
    [
        verify_arguments("--manifest=/etc/passwd", space=False),
        list_arguments("--output=/x", "pending"),
        decide_arguments("accept", "--all", "--yes", None),
    ],
)
def test_what_looks_like_an_option_is_a_name(arguments: Any) -> None:
    assert isinstance(arguments, list)
    assert not [word for word in arguments[: arguments.index("--")] if word in ("--all", "--output=/x")]
    with pytest.raises(SystemExit) as ended:  # the command line takes them for names too
        main(arguments)
    assert ended.value.code not in (0, None)


@pytest.mark.parametrize("path", ["", None, "/etc", "folder:/etc/a/b"])
def test_a_visitor_names_repositories_only(path: str | None) -> None:
    for arguments in (verify_arguments(path, space=True), lint_arguments(path, space=True)):
        assert isinstance(arguments, PublisherError)


@pytest.mark.parametrize(("action", "who"), [("accept", " , "), ("accept", None), ("delete", "ada")])
def test_a_decision_needs_somebody_and_a_word(action: str, who: str | None) -> None:
    assert isinstance(decide_arguments(action, "hf://a/b", who, None), PublisherError)


def test_what_differs_is_shown_and_is_text() -> None:
    html = verification_html(
        {
            "place": "hf://a/b",
            "verified": False,
            "files": 3,
            "bytes": 5,
            "root_digest": "ab",
            "settings": {"visibility": "public", "gate": "off"},
            "differences": [{"path": EVIL, "kind": "sha256", "expected": "a", "actual": None}],
            "problems": [{"check": "gate", "message": EVIL}],
            "warnings": 3,
            "not_checked": [7],
        }
    )
    assert "Is not what its publisher says" in html
    assert "&lt;img" in html
    assert "<img" not in html


def test_nothing_published_is_said() -> None:
    assert "There is no repository at hf://a/b" in verification_html({"place": "hf://a/b", "settings": None})


@pytest.mark.parametrize("document", [{}, {"requests": 3}, {"requests": ["x"]}, {"requests": []}])
def test_an_empty_list_is_said(document: dict[str, Any]) -> None:
    assert "Nobody" in requests_html(document)


def test_what_people_wrote_is_text() -> None:
    rows = [{"user": f"u{n}", "name": EVIL, "form": {EVIL: EVIL}, "state": "pending"} for n in range(250)]
    html = requests_html({"requests": rows})
    assert "<img" not in html
    assert "250 request(s); 50 more are not shown" in html


def test_a_decision_the_hub_did_not_take_is_told() -> None:
    made = [{"who": "ada", "state": "accepted", "error": None}, {"who": "bob", "state": "accepted", "error": EVIL}]
    html = decisions_html({"decisions": made})
    assert "ada: accepted" in html
    assert "bob: &lt;img" in html
    assert "so already" in decisions_html({"decisions": []})
