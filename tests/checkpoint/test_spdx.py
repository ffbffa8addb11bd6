"""Standard licences word by word; the oracle is pre-commit's collection and what people do to such texts."""

from __future__ import annotations

import time

import pytest

from publisher.checkpoint import spdx
from tests.builders.terms import KIMI, MIT, STANDARD

APACHE = STANDARD["apache-2.0"]


@pytest.mark.parametrize("identifier", STANDARD)
def test_every_text_of_the_collection_is_itself(identifier: str) -> None:
    assert spdx.match(STANDARD[identifier]) == spdx.Match(identifier)


@pytest.mark.parametrize(
    "text",
    [
        MIT.replace("[year] [fullname]", "2026 Somebody").replace("\n", "\r\n  "),
        "# The MIT License (MIT)\n\n" + MIT.upper(),
        MIT.replace('"', "“"),
        "Copyright 2025 A\nCopyright 2026 B\nAll rights reserved.\n" + MIT,
    ],
)
def test_what_people_do_to_a_text_leaves_it_the_same(text: str) -> None:
    assert spdx.match(text) == spdx.Match("mit")


def test_the_appendix_of_apache_may_be_left_away() -> None:
    assert spdx.match(APACHE.partition("APPENDIX")[0]) == spdx.Match("apache-2.0")


@pytest.mark.parametrize("clause", ["Non-commercial use.", "Commons Clause", "Up to 100 million monthly active users."])
@pytest.mark.parametrize("base", ["mit", "apache-2.0", "bsd-3-clause"])
def test_a_short_restriction_is_seen_wherever_it_stands(clause: str, base: str) -> None:
    text = STANDARD[base]
    for edited in (f"{clause}\n\n{text}", f"{text}\n{clause}\n"):
        found = spdx.match(edited)
        assert found is not None
        assert found.added, "a clause made it another licence"


def test_a_text_that_lacks_a_paragraph_is_not_recognised() -> None:
    head = MIT.partition("THE SOFTWARE IS PROVIDED")[0]
    assert spdx.match(head) is None
    assert spdx.match("") is None
    assert spdx.match("our own terms") is None


def test_an_addition_is_quoted_from_its_beginning() -> None:
    found = spdx.match(KIMI)
    assert found is not None
    assert found.identifier == "mit"
    assert found.added.startswith("our only modification part is that")


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 3_000_000,
        "-" * 3_000_000,
        "- \n" * 900_000,
        "the of and to in permission notice software " * 2400,
        APACHE * 9,
        "a " * 5_000_000,
    ],
)
def test_no_text_takes_long(text: str) -> None:
    began = time.monotonic()
    spdx.match(text)
    assert time.monotonic() - began < 5
