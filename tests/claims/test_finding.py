"""A finding's message: one form, and nothing of a stranger's words that a terminal obeys."""

from __future__ import annotations

from publisher.claims.finding import MAX_QUOTE, NUMBER, doubt, quoted


def test_a_message_tells_line_claim_fact_and_step() -> None:
    found = doubt(NUMBER, 7, "2 shards", "there are 3 (shard headers)", "Correct it")
    assert found.message == 'Line 7 says "2 shards"; there are 3 (shard headers). Correct it.'


def test_a_strangers_words_are_short_and_harmless() -> None:
    told = quoted("\x1b[31m\u202e\ud800" + 'x"' * 500)
    assert len(told) < MAX_QUOTE + 40
    assert told.isprintable()
    assert told.count('"') == 2
    told.encode()
