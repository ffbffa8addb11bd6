"""A Space gives a visitor its own login or none, and no path."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from publisher.errors import PublisherError
from publisher.ui import place

OWNER = {"HF_TOKEN": "hf_ownersOwnToken1", "OAUTH_CLIENT_SECRET": "s3cret", "PATH": os.environ["PATH"]}


def test_a_visitor_gets_the_visitor_s_token_and_never_the_owner_s() -> None:
    found = place.command_environment("hf_visitorsToken1", space=True, environment=OWNER)
    assert found["HF_TOKEN"] == "hf_visitorsToken1"
    assert "s3cret" not in found.values()


def test_a_visitor_without_login_gets_no_login_at_all() -> None:
    found = place.command_environment(None, space=True, environment=OWNER)
    program = "import huggingface_hub as h; print(h.get_token(), h.utils.build_hf_headers().get('authorization'))"
    said = subprocess.run([sys.executable, "-c", program], env=found, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "None None"


def test_the_visitor_s_token_is_the_one_the_hub_client_sends() -> None:
    found = place.command_environment("hf_visitorsToken1", space=True, environment=OWNER)
    program = "from huggingface_hub.utils import build_hf_headers as b; print(b()['authorization'])"
    said = subprocess.run([sys.executable, "-c", program], env=found, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "Bearer hf_visitorsToken1"


def test_on_one_s_own_machine_the_machine_s_login_counts() -> None:
    assert place.command_environment("ignored", space=False, environment=OWNER)["HF_TOKEN"] == OWNER["HF_TOKEN"]


def test_login_is_offered_only_where_the_space_is_set_up_for_it() -> None:
    full = {"SPACE_ID": "a/b", "SYSTEM": "spaces", **dict.fromkeys(place.OAUTH, "x")}
    assert place.can_log_in(full)
    assert not place.can_log_in({"SPACE_ID": "a/b"})
    assert not place.can_log_in({**full, "SPACE_ID": ""})
    assert not place.can_log_in({**full, "SYSTEM": ""})


@pytest.mark.parametrize("value", ["/etc/passwd", "--help", "hf://a/b/../c", "hf://a/b ; x", "", "HF://a/b"])
def test_a_visitor_names_repositories_only(value: str) -> None:
    with pytest.raises(PublisherError, match="only repositories"):
        place.require_hub(value, "Checkpoint")
    assert place.require_hub("hf://org/name@v1.0", "Checkpoint") == "hf://org/name@v1.0"


def test_every_engine_is_told_of_with_what_it_lacks() -> None:
    assert set(place.engines()) == {"native", "modelopt"}
