"""A card is looked at without running or fetching anything."""

from __future__ import annotations

from publisher.ui.runs import calm


def test_tags_and_pictures_are_parted_outside_code() -> None:
    card = "<img src=x>\n![pixel](http://example.com/p.png)\n<script>\n1 < 2, <https://example.com>\n"
    shown = calm(card)
    assert "<img" not in shown
    assert "<script" not in shown
    assert "![" not in shown
    assert "1 < 2, <https://example.com>" in shown
    assert shown.replace("\u2060", "") == card.rstrip("\n")


def test_fenced_code_stays_as_it_is() -> None:
    card = "```html\n<b>![x]\n```"
    assert calm(card) == card
