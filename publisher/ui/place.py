"""Where the page runs: a person's own machine, or a Hugging Face Space that strangers visit.

On a Space nothing of the server's disk is read for a visitor, nothing is quantized, and a command gets the visitor's
login or none: never the login of the Space's owner. A token goes into a command's environment and nowhere else.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import publisher
from publisher.errors import PublisherError
from publisher.plan.preflight import LIBRARIES
from publisher.plan.recipe import HUB_SOURCE

OAUTH = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
LOGINS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH")
NODE = (
    "This page runs on a Hugging Face Space, which has no hardware for quantizing. Save the recipe and run the command "
    "on a node that has: it does everything the page shows, resumes after a kill, and publishes."
)


def on_space(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process serves a Hugging Face Space."""
    return bool(environment.get("SPACE_ID"))


def can_log_in(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether visitors can log in: on a Space whose front matter says `hf_oauth: true`, with the library for it."""
    hosted = on_space(environment) and environment.get("SYSTEM") == "spaces"  # what gradio itself goes by
    configured = hosted and all(environment.get(name) for name in OAUTH)
    return configured and all(importlib.util.find_spec(name) is not None for name in ("authlib", "itsdangerous"))


def require_hub(value: str, what: str) -> str:
    """The value, where it names a Hub repository.

    Raises:
        PublisherError: anything else; visitors of a Space have no business on its disk.
    """
    if not HUB_SOURCE.fullmatch(value):
        raise PublisherError(
            f"{what}: on a Space only repositories can be read, not {value[:100]!r}.",
            hint="Write hf://org/name or hf://org/name@revision.",
        )
    return value


def command_environment(
    token: str | None, *, space: bool, environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The environment of a command the page runs.

    Args:
        token: the visitor's login on a Space; unused elsewhere, where the machine's own login counts.
        space: whether visitors are strangers.
        environment: what to start from.
    """
    found = dict(environment)
    root = Path(publisher.__file__).resolve().parents[1]
    if root.name not in ("site-packages", "dist-packages"):  # a checkout that is not installed
        found["PYTHONPATH"] = os.pathsep.join(filter(None, (str(root), found.get("PYTHONPATH"))))
    if space:
        for name in LOGINS + OAUTH:
            found.pop(name, None)
        found["HF_TOKEN_PATH"] = os.devnull
        found["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "0" if token else "1"
        if token:
            found["HF_TOKEN"] = token
    return found


def engines() -> dict[str, str]:
    """Engine to what this environment lacks for it; an empty string where nothing is lacking."""
    return {
        name: ", ".join(library for library in libraries if importlib.util.find_spec(library) is None)
        for name, libraries in LIBRARIES.items()
    }


def program() -> list[str]:
    """The command line's program, in this environment."""
    return [sys.executable, "-m", "publisher"]
