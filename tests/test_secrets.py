"""What counts as a secret, where it is found, and that it is never repeated."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from publisher import jsonio, secrets
from publisher.secrets import Leak, find, homes, mask, spellings

ROOT = Path(__file__).resolve().parents[1]
LETTERS = string.ascii_letters + string.digits
NOTHING: dict[str, str] = {}


def random_text(length: int, alphabet: str = LETTERS) -> str:
    """Characters of nobody's secret; the tests hold none that a scanner of this repository would find."""
    return "".join(random.Random(length).choices(alphabet, k=length))


HF = "hf_" + random_text(34)
SECRETS = {
    "Hugging Face token": HF,
    "GitHub token": "ghp_" + random_text(36),
    "GitLab token": "glpat-" + random_text(20),
    "OpenAI or Anthropic key": "sk-ant-" + random_text(60) + "A1",
    "NVIDIA key": "nvapi-" + random_text(64),
    "AWS key": "AKIA" + random_text(16, string.ascii_uppercase + string.digits),
    "AWS secret": "aws_secret_access_key = " + random_text(40),
    "Google key": "AIza" + random_text(35),
    "Slack token": "xoxb-" + random_text(40),
    "Slack hook": "https://hooks.slack.com/services/T"
    + random_text(10)
    + "/B"
    + random_text(10)
    + "/"
    + random_text(24),
    "PyPI token": "pypi-AgE" + random_text(80),
    "npm token": "npm_" + random_text(36),
    "Stripe key": "sk_live_" + random_text(24),
    "SendGrid key": "SG." + random_text(22) + "." + random_text(43),
    "DigitalOcean token": "dop_v1_" + random_text(64, "0123456789abcdef"),
    "Replicate token": "r8_" + random_text(36) + "A",
    "Groq or xAI key": "gsk_" + random_text(52),
    "Weights & Biases key": 'WANDB_API_KEY="' + random_text(40, "0123456789abcdef") + '"',
    "Azure storage key": "AccountKey=" + random_text(86) + "==",
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "netrc password": "machine example.org login ada password " + random_text(16),
    "password in an address": "https://ada:" + random_text(20) + "@example.org/",
    "signed address": "X-Amz-Signature=" + random_text(64, "0123456789abcdef"),
    "web token": "eyJ" + random_text(20) + ".eyJ" + random_text(40) + "." + random_text(43),
}


def kinds(data: bytes) -> set[str]:
    return {leak.kind for leak in find([data], NOTHING)}


def test_every_kind_of_the_table_has_a_specimen() -> None:
    assert set(SECRETS) == {row["name"] for row in jsonio.data("sidefiles/secrets.json")["patterns"]}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("frame", ["{}", 'x = "{}"\n', "line\n{}\nline", '{{"text": "a\\n{}\\n"}}', "({})", "'{}',"])
def test_each_kind_is_found_in_every_frame(kind: str, frame: str) -> None:
    text = frame.format(SECRETS[kind])
    assert kind in kinds(text.encode())
    assert kind in kinds(text.encode("utf-16")), "as Windows editors save it"


@pytest.mark.parametrize("kind", SECRETS)
def test_each_kind_is_found_wherever_the_pieces_are_cut(kind: str) -> None:
    data = b"\n" * 50 + SECRETS[kind].encode() + b"\n" * 300
    for cut in range(40, 60 + len(SECRETS[kind])):
        leaks = find([data[:cut], data[cut:]], NOTHING)
        assert [(leak.kind, leak.line) for leak in leaks] == [(kind, 51)]


def test_no_pattern_is_longer_than_what_two_pieces_share() -> None:
    for row in jsonio.data("sidefiles/secrets.json")["patterns"]:
        longest = re._parser.parse(row["pattern"]).getwidth()[1]  # type: ignore[attr-defined]
        assert longest < secrets.OVERLAP, row["name"]


@pytest.mark.parametrize(
    "text",
    [
        "hf_" + "x" * 34,
        "HF_TOKEN=hf_your_token_here",
        "sk-" + "a" * 48,
        "sk-learn-contributors-and-maintainers-of-the-project-since-2007",
        "disk-encryption-set-name-that-is-a-long-identifier-in-kebab-case",
        "<|sk-|> Ġsk- ##sk- hf_ ghp_ AKIA xoxb- nvapi-",
        "https://user:password@localhost:8000/v1",
        "https://example.org/a@b:c",
        "docker run --env HUGGING_FACE_HUB_TOKEN=<secret>",
        "-----BEGIN CERTIFICATE-----",
        "postgresql://scott:tiger@host/db",
        "def convert_hf_checkpoint_to_megatron_distributed_checkpoint(x): ...",
        "git+https://github.com/org/name@0123456789abcdef0123456789abcdef01234567",
    ],
)
def test_what_is_no_secret_is_not_taken_for_one(text: str) -> None:
    assert find([text.encode()], NOTHING) == []


def published() -> Iterator[Path]:
    """Real texts: this repository's, with the demo's cards and tokenizer where they have been made."""
    for top in ("docs", "demo", "templates", "publisher", "validators", "demo-output/source", "demo-output/published"):
        yield from (
            path
            for path in (ROOT / top).rglob("*")
            if path.is_file() and path.suffix not in (".safetensors", ".pyc", ".so")
        )


def test_real_texts_and_tokenizers_hold_none() -> None:
    """Of the command line's own examples, its data, docs and pages, and the demo's tokenizer and cards."""
    files = list(published())
    assert len(files) > 200
    assert {path: leaks for path in files if (leaks := find([path.read_bytes()], NOTHING))} == {}


def test_random_bytes_and_vocabularies_hold_none() -> None:
    pick = random.Random(0)
    words = {"".join(pick.choices("hfsk-_ghpAKIAxob" + LETTERS, k=pick.randint(1, 12))): n for n in range(50_000)}
    assert find([json.dumps(words).encode()], NOTHING) == []
    assert find([pick.randbytes(4 << 20)], NOTHING) == []


def test_a_place_is_told_and_the_secret_is_not() -> None:
    leaks = find([b"a\nb\n" + b"c" * 2000 + b" " + HF.encode()], NOTHING)
    assert leaks == [Leak(line=3, column=2002, kind="Hugging Face token")]
    assert leaks[0].place == "line 3, byte 2,002"
    assert HF not in repr(leaks)


def test_a_long_file_takes_no_memory_and_its_end_is_looked_at() -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(24):
            yield b"just words\n" * 95_325
        yield HF.encode()

    tracemalloc.start()
    leaks = find(pieces(), NOTHING)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(leak.kind, leak.line, leak.column) for leak in leaks] == [("Hugging Face token", 24 * 95_325 + 1, 1)]
    assert peak < 8 << 20


def test_a_file_of_secrets_gives_a_bounded_list() -> None:
    lines = b"\n".join(b"ghp_%06d" % n + random_text(36).encode() for n in range(2_000))
    assert len(find([lines], NOTHING)) == secrets.MAX_LEAKS


# --- this environment's own ------------------------------------------------------------------------------------------

SHAPELESS = 'canary+of/no."known"=shäpe'


@pytest.mark.parametrize("name", ["HF_TOKEN", "MY_API_KEY", "DB_PASSWORD", "CLIENT_SECRET", "aws_secret_access_key"])
def test_values_of_secret_variables_are_found_in_any_form(name: str) -> None:
    own = {name: SHAPELESS}
    for before in ("", "x", "ab", "user:"):
        for form in (
            before + SHAPELESS,
            before + quote(SHAPELESS, safe=""),
            json.dumps(before + SHAPELESS),
            base64.b64encode((before + SHAPELESS + "tail").encode()).decode(),
            base64.urlsafe_b64encode((before + SHAPELESS).encode()).decode(),
        ):
            leaks = find([b"one\n" + form.encode()], own)
            assert [(leak.kind, leak.line) for leak in leaks] == [(f"value of this environment's {name}", 2)], form


def test_what_is_no_secret_value_is_passed_over() -> None:
    harmless = {
        "HF_TOKEN": "",
        "A_TOKEN": "short",
        "HF_TOKEN_PATH": "/home/x/token",
        "KEY_SECRET": "/run/secrets/long-path",
    }
    more = {
        "PASSWORD": "with spaces in a sentence",
        "GPG_KEY": "E3FF2839C048B25C084DEBE9B26995E310250568",
        "X_TOKEN": "a" * 40,
    }
    assert secrets.environment(harmless | more) == {}


def test_masking_takes_out_shapes_and_own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SHAPELESS)
    hidden = [SHAPELESS, quote(SHAPELESS, safe=""), *(text for kind, text in SECRETS.items() if len(text) > 30)]
    certain = [text for text in hidden if text not in (SECRETS["signed address"], SECRETS["web token"])]
    for text in [*certain, *spellings(SHAPELESS)]:
        assert text not in mask(f"before {text} after"), text
        assert mask(f"before {text} after").startswith("before ")
    assert mask("nothing in here, sk- and hf_ and ghp_") == "nothing in here, sk- and hf_ and ghp_"
    assert mask("Authorization: Bearer abcdefghijkl") == "Authorization: Bearer ***"
    assert mask("kept \udc80 bytes " + HF) == "kept \udc80 bytes ***"


# --- somebody's folders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["/home/mkowalski/models/x", '"C:\\\\Users\\\\mkowalski\\\\x"', "C:\\Users\\mkowalski\\x", "~ /Users/mkowalski/x"],
)
def test_somebodys_home_is_named(text: str) -> None:
    assert homes("first\n" + text) == [(2, "mkowalski")]


@pytest.mark.parametrize(
    "text", ["/home/user/x", "/root/.cache/huggingface", "https://site.org/home/news/x", "/home/<you>/x"]
)
def test_a_home_of_anybody_is_not(text: str) -> None:
    assert homes(text) == []
