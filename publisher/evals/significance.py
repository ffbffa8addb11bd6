"""The few formulas that say whether two scores differ, on the standard library alone.

Standard errors: of a mean over documents (lm_eval/api/metrics.py, `mean_stderr`), of the difference of two independent
scores, of paired differences over the same documents, of means over seeds (Welch). Confidence: the chance that a
difference as large would not arise between equals, from the normal distribution or Student's t. Pairing is what
E. Miller, "Adding Error Bars to Evals", 2024 (arXiv:2411.00640, section 4.2) recommends: the questions are the same, so
their difficulty cancels.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

PAIRED, SEEDS, INDEPENDENT = "paired by document", "over seeds", "independent errors"
_STEPS = 300  # of a continued fraction that needs about sqrt(degrees of freedom)
_SMALL = 1e-300


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The standard error of a difference.

    Args:
        value: in the unit of the scores.
        method: how it was computed.
        freedom: degrees of freedom of Student's t; None for the normal distribution.
    """

    value: float
    method: str
    freedom: float | None = None


def mean_error(values: Sequence[float]) -> float | None:
    """Standard error of a mean, s / sqrt(n) with s of n - 1; None for fewer than two values."""
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None


def independent(one: float, other: float) -> Error:
    """Of the difference of two independent scores: variances add."""
    return Error(value=math.hypot(one, other), method=INDEPENDENT)


def paired(differences: Sequence[float]) -> Error | None:
    """Of the mean of differences document by document; None for fewer than two."""
    error = mean_error(differences)
    return None if error is None else Error(value=error, method=PAIRED, freedom=len(differences) - 1)


def stratified(strata: Sequence[Sequence[float]]) -> Error | None:
    """Of the plain mean of the means of several tasks' differences; None where one has fewer than two."""
    errors = [mean_error(differences) for differences in strata]
    known = [error for error in errors if error is not None]
    if not known or len(known) < len(errors):
        return None
    freedom = min(len(differences) for differences in strata) - 1
    return Error(value=math.hypot(*known) / len(known), method=PAIRED, freedom=freedom)


def over_seeds(one: Sequence[float], other: Sequence[float]) -> Error | None:
    """Of the difference of two means over seeds, with Welch's and Satterthwaite's degrees of freedom.

    B. L. Welch, Biometrika 34 (1947): nu = (a + b)^2 / (a^2 / (m - 1) + b^2 / (n - 1)), a and b the squared errors.
    None where one side has a single run.
    """
    first, second = mean_error(one), mean_error(other)
    if first is None or second is None:
        return None
    parts = first**4 / (len(one) - 1) + second**4 / (len(other) - 1)
    freedom = (first**2 + second**2) ** 2 / parts if parts else len(one) + len(other) - 2.0
    return Error(value=math.hypot(first, second), method=SEEDS, freedom=freedom)


def ratio(difference: float, error: Error) -> float | None:
    """z, the difference in standard errors; None where the error is zero or next to it."""
    z = difference / error.value if error.value > 0 else math.inf
    return z if math.isfinite(z) else None


def confidence(z: float, freedom: float | None = None) -> float:
    """Two-sided confidence that a difference of z standard errors is none of chance: 1 - p.

    Args:
        z: the ratio.
        freedom: degrees of freedom of Student's t; None for the normal distribution.
    """
    if freedom is None:
        return math.erf(abs(z) / math.sqrt(2))
    # P(|t| <= z) = I_x(1/2, v/2) with x = z^2 / (v + z^2): Abramowitz and Stegun 26.5.2 and 26.7.1.
    return min(max(_beta(0.5, freedom / 2, z * z / (freedom + z * z)), 0.0), 1.0)


def margin(error: Error, level: float = 0.95) -> float:
    """Half the width of the two-sided interval at a level of confidence."""
    if error.freedom is None:
        return error.value * statistics.NormalDist().inv_cdf((1 + level) / 2)
    low, high = 0.0, 1.0
    while confidence(high, error.freedom) < level and high < 1e12:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if confidence(middle, error.freedom) < level else (low, middle)
    return error.value * (low + high) / 2


def _beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(front) / (a * _fraction(a, b, x))


def _fraction(a: float, b: float, x: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)), evaluated by Lentz's method as Thompson and Barnett modified it."""
    value, upper, lower = 1.0, 1.0, 0.0
    for step in range(1, 2 * _STEPS):
        m, odd = divmod(step, 2)
        if odd:
            term = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            term = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + term * lower or _SMALL)
        upper = 1 + term / upper or _SMALL
        value *= upper * lower
        if abs(upper * lower - 1) < 1e-15:
            break
    return value
