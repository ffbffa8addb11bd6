"""Which lines are drawn from a calibration file, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from publisher.errors import PublisherError
from publisher.native import samples
from publisher.native.samples import draw, token_ids


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


class Words:
    """Stands in for a tokenizer: one token a word."""

    def __call__(self, text: str, truncation: bool, max_length: int, add_special_tokens: bool) -> dict[str, Any]:
        assert truncation
        return {"input_ids": [len(word) for word in text.split()][:max_length]}

    def apply_chat_template(self, messages: list[dict[str, Any]], tokenize: bool) -> str:
        return " ".join(f"<{message['role']}> {message['content']}" for message in messages)


def test_a_text_file_is_one_sample_a_line_without_blank_ones(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "one\n\n  \ntwo words\r\nthree\n")
    drawn = draw(path, 10, seed=0)
    assert sorted(sample.text or "" for sample in drawn.samples) == ["one", "three", "two words"]
    assert drawn.available == 3
    assert drawn.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_draws_the_same_samples_again_and_another_one_others(tmp_path: Path) -> None:
    path = write(tmp_path, "a.txt", "".join(f"line {i}\n" for i in range(100)))
    first = [sample.text for sample in draw(path, 20, seed=1).samples]
    assert first == [sample.text for sample in draw(path, 20, seed=1).samples]
    assert first != [sample.text for sample in draw(path, 20, seed=2).samples]
    assert len(set(first)) == 20


def test_jsonl_holds_texts_and_chats(tmp_path: Path) -> None:
    rows = [{"text": "plain text here"}, {"messages": [{"role": "user", "content": "hi there"}]}]
    path = write(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    ids = list(token_ids(draw(path, 2, seed=0), Words(), 8))
    assert sorted(ids) == [[5, 4, 4], [6, 2, 5]]


def test_samples_are_cut_and_empty_ones_passed_over(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", '{"text": "a b c d e"}\n')
    assert list(token_ids(draw(path, 1, seed=0), Words(), 3)) == [[1, 1, 1]]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "", "holds no text"),
        ("a.txt", "\n \n", "holds no text"),
        ("a.txt", b"ok\n\xff\xfe\n", "line 2, is not UTF-8"),
        ("a.jsonl", '{"text": "x"}\n{"text"\n', "line 2 is not JSON"),
        ("a.jsonl", "[1]\n", "line 1, has neither"),
        ("a.jsonl", '{"text": ""}\n', "line 1, has neither"),
        ("a.jsonl", '{"messages": [{"role": "user"}]}\n', "line 1, has neither"),
        ("a.jsonl", '{"text": "x", "text": "y"}\n', "twice"),
    ],
)
def test_a_file_that_is_no_data_is_refused_with_its_place(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = write(tmp_path, name, content)
    with pytest.raises(PublisherError) as caught:
        draw(path, 10, seed=0)
    assert words in caught.value.message
    assert str(path) in caught.value.message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PublisherError, match="No such file") as caught:
        draw(tmp_path / "none.txt", 1, seed=0)
    assert "calibration.data" in caught.value.hint


def test_an_endless_line_is_refused_without_being_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "MAX_LINE", 1000)
    with pytest.raises(PublisherError, match="line 2, is longer than 1,000 bytes"):
        draw(write(tmp_path, "a.txt", "short\n" + "x" * 5000), 1, seed=0)


def test_a_chat_the_template_refuses_names_its_line(tmp_path: Path) -> None:
    class Refusing(Words):
        def apply_chat_template(self, messages: list[dict[str, Any]], tokenize: bool) -> str:
            raise RuntimeError("roles must alternate")

    path = write(tmp_path, "a.jsonl", '\n{"messages": [{"role": "user", "content": "hi"}]}\n')
    with pytest.raises(PublisherError, match=r"line 2 .*roles must alternate"):
        list(token_ids(draw(path, 1, seed=0), Refusing(), 8))
