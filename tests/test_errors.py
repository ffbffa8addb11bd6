"""Every error has the exit code the command line promises."""

from __future__ import annotations

import pytest

from publisher import errors


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.PublisherError, 2),
        (errors.CheckpointError, 2),
        (errors.FindingsError, 1),
        (errors.AccessError, 3),
        (errors.HubError, 4),
        (errors.EngineError, 5),
        (errors.InterruptedRun, 6),
    ],
)
def test_exit_codes(kind: type[errors.PublisherError], code: int) -> None:
    error = kind("the shard is missing.", hint="Copy it again.")
    assert error.exit_code == code
    assert str(error) == "the shard is missing. Copy it again."
