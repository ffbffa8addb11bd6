"""The check page is two verbs of the command line."""

from __future__ import annotations

import pytest

from publisher.errors import PublisherError
from publisher.ui.check import card_arguments, check_arguments


def test_a_check_is_validate_with_what_was_typed() -> None:
    assert check_arguments(" ./x ", "", space=False) == ["validate", "--format", "json", "--", "./x"]
    assert check_arguments("hf://a/b", "hf://c/d", space=True) == [
        *("validate", "--format", "json", "--level", "headers", "--source=hf://c/d", "--", "hf://a/b")
    ]


def test_what_looks_like_an_option_is_a_name() -> None:
    arguments = check_arguments("--ignore=CN01=x", "--select", space=False)
    assert isinstance(arguments, list)
    assert arguments[-2:] == ["--", "--ignore=CN01=x"]
    assert "--source=--select" in arguments


def test_a_card_needs_its_source() -> None:
    assert card_arguments("x", "y", space=False) == ["card", "--format", "json", "--source=y", "--", "x"]
    refused = card_arguments("x", None, space=False)
    assert isinstance(refused, PublisherError)
    assert "quantized from" in refused.message


@pytest.mark.parametrize(("path", "source"), [("/etc", ""), ("hf://a/b", "/etc"), ("", ""), (None, None)])
def test_a_visitor_names_repositories_only(path: str | None, source: str | None) -> None:
    assert isinstance(check_arguments(path, source, space=True), PublisherError)
