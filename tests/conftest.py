"""Settings every test shares: no telemetry, plain LFS transport, caches of its own, nothing beyond loopback."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import settings

# huggingface_hub reads these when it is imported, so they are set before any test module is.
os.environ["HF_HUB_DISABLE_XET"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="publisher-test-hf-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody listens: no test reaches the real Hub
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["TORCHAO_FORCE_SKIP_LOADING_SO_FILES"] = "1"
os.environ.pop("HF_TOKEN", None)

# A shared machine may take longer than hypothesis's default of 200 ms for one example without anything being wrong.
settings.register_profile("publisher", deadline=None)
settings.load_profile("publisher")


@pytest.fixture(autouse=True)
def _environment_as_it_was() -> Iterator[None]:
    """What one test, or the program it runs in this process, sets in the environment is gone for the next."""
    with mock.patch.dict(os.environ):
        yield
