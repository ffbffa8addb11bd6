"""The numbers of one comparison at their edges: nothing there, nothing left, nothing looked at."""

from __future__ import annotations

import math
from typing import Any

import pytest

from publisher.checkpoint.modules import Module
from publisher.formats.makers import Verdict
from publisher.subjects import Compared


def made(**changes: Any) -> Compared:
    given = {
        "module": Module("a.b", "mlp", {}, "a.b"),
        "format": "nvfp4",
        "stored": "BF16",
        "weights": 100,
        "looked": 100,
        "norm": 4.0,
        "own": 9.0,
        "product": 6.0,
        "error": 1.0,
        "amax": 2.0,
        "finite": True,
        "sound": True,
        "global_scale": 1e-4,
        "direction": "multiply",
        "verdict": Verdict(maker="even", blocks=10, wrong=1),
    }
    return Compared(**{**given, **changes})


def test_numbers_of_two_that_agree_up_to_a_factor() -> None:
    one = made()
    assert (one.rel_rmse, one.cosine, one.whole, one.dead, one.comparable) == (0.5, 1.0, True, False, True)
    assert one.measured() == {"share": 1.0, "blocks": 10.0, "rel_rmse": 0.5, "cosine": 1.0, "mismatch": 0.1}


def test_a_dead_source_has_no_error_to_speak_of() -> None:
    zeros = made(norm=0.0, amax=0.0, own=0.0, product=0.0, error=0.0)
    assert (zeros.rel_rmse, zeros.cosine, zeros.dead, zeros.comparable) == (0.0, 1.0, True, False)
    alive = made(norm=0.0, amax=0.0, product=0.0, error=9.0)
    assert (alive.rel_rmse, alive.cosine, alive.comparable) == (math.inf, 0.0, False)
    assert "rel_rmse" not in alive.measured()


@pytest.mark.parametrize("changes", [{"finite": False}, {"sound": False}, {"error": math.inf}])
def test_what_is_not_finite_is_not_comparable(changes: dict[str, Any]) -> None:
    assert not made(**changes).comparable


def test_a_sample_says_its_share() -> None:
    one = made(looked=25, verdict=Verdict())
    assert not one.whole
    assert one.measured() == {"share": 0.25, "blocks": 0.0, "rel_rmse": 0.5, "cosine": 1.0}
