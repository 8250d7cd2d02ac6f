"""From evidence to alarms: the threshold that keeps an alarm budget.

Belongs here: the quantile of the largest evidence of the reference days, and the fall-back for few of them.
Does not belong here: evidence (see `dispersion`), severities (see `xai_assets.decide.severity`).

Over many features, segments and windows chance reaches far. The largest evidence of each reference day says how far,
whatever their number and dependence (Westfall and Young 1993).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64


@dataclass(frozen=True)
class Threshold:
    """Evidence from which a score is an alarm.

    value: u for the shortest window; NaN where the rule finds it anew each day; rule: `westfall_young`,
    `benjamini_hochberg`, or `unknown` (nothing can be judged); alarm_rate: false alarms a day the budget allows; days:
    reference days it rests on; by_window: (length in days, u) of each window.
    """

    value: float
    rule: str
    alarm_rate: float
    days: int
    by_window: tuple[tuple[int, float], ...] = ()

    def at(self, window_days: npt.ArrayLike) -> Float64:
        """The threshold of each of these windows, [...]."""
        lengths = np.asarray(window_days)
        limits = np.full(lengths.shape, self.value)
        for length, value in self.by_window:
            limits[lengths == length] = value
        return limits


MIN_REFERENCE_DAYS = 14
"""With fewer days the largest evidence of each says too little: Benjamini–Hochberg takes over."""
BLOCK_DAYS = 7
"""Days that are drawn together: what a week has in common stays together."""
BOOTSTRAP_DRAWS = 2_000
UPPER_SHARE = 0.9
"""The bootstrapped quantile that is taken: with four weeks of reference a plain estimate would be below the right
threshold for every second monitor."""
_LEAST_SCALE = 1.0 / np.log(10.0)
"""Scale of the largest of many −log10 p where p are exact."""


def westfall_young(maxima: Float64, alarm_rate: float, rng: np.random.Generator, window_days: int = 1) -> float:
    """Evidence that the largest of a day exceeds on a share `alarm_rate` of days without drift.

    Parameters
    ----------
    maxima
        Largest evidence over all features, segments and roles of the windows that end on successive days, [T].
    alarm_rate
        False alarms a day, in 0…1: the budget of windows of this length.
    window_days
        Length of the windows. Those of a month overlap so much that half a year holds six: blocks of that length are
        drawn, and the bound is as far up as so few allow.

    Notes
    -----
    The larger of two: the empirical quantile of the maxima, and the `UPPER_SHARE` quantile over a bootstrap of blocks
    of days of the quantile of a Gumbel distribution fitted by moments, the law of the largest of many −log10 p, with a
    scale not below that of exact p-values. The maximum of T days alone would be exceeded once in T + 1 days on
    average, but by one monitor twice as often as by another; the fit uses all days.

    Raises
    ------
    StatisticsError
        Where the rate is not in 0…1 or a maximum is missing.

    Source: Westfall and Young (1993); Gumbel (1958); circular blocks as in Politis and Romano (1992).
    """
    if not 0 < alarm_rate < 1:
        raise StatisticsError("an alarm budget is wrong", expected="between 0 and 1 a day", found=f"{alarm_rate:g}")
    values = np.asarray(maxima, dtype=np.float64)
    if values.ndim != 1 or not len(values) or not np.all(np.isfinite(values)):
        raise StatisticsError("maxima of the reference days are wrong", expected="one finite number per day")
    empirical = float(np.quantile(values, 1.0 - alarm_rate, method="higher"))
    block = max(BLOCK_DAYS, window_days)
    starts = rng.integers(0, len(values), size=(BOOTSTRAP_DRAWS, -(-len(values) // block), 1))
    drawn = ((starts + np.arange(block)) % len(values)).reshape(BOOTSTRAP_DRAWS, -1)[:, : len(values)]
    fitted = float(np.quantile(_gumbel_quantile(values[drawn], 1.0 - alarm_rate), UPPER_SHARE))
    return max(empirical, fitted)


def _gumbel_quantile(samples: Float64, share: float) -> Float64:
    """Quantile of a Gumbel distribution fitted by moments to the last axis."""
    scale = np.maximum(samples.std(axis=-1, ddof=1) * np.sqrt(6.0) / np.pi, _LEAST_SCALE)
    return np.asarray(samples.mean(axis=-1) - np.euler_gamma * scale - scale * np.log(-np.log(share)))


def benjamini_hochberg(evidences: Float64, rate: float) -> float:
    """Evidence from which the false discovery rate over all of `evidences` is kept.

    Where nothing drifts, a day has an alarm with a chance of at most `rate`. Where nothing reaches it, the evidence
    that one alone would need. NaN are not counted; infinite where there are no others.

    >>> round(benjamini_hochberg(np.array([4.0, 3.0, 0.1, 0.2]), 0.04), 4)
    3.0

    Source: Benjamini and Hochberg (1995).
    """
    u = np.sort(evidences[np.isfinite(evidences)])[::-1]
    if not len(u):
        return float("inf")
    limits = -np.log10(rate * np.arange(1, len(u) + 1) / len(u))
    passed = np.flatnonzero(u >= limits)
    return float(u[passed[-1]] if len(passed) else limits[0])
