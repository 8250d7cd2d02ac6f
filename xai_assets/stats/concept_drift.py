"""Did a model's error change for good? ADWIN and Page–Hinkley over blocks of labelled requests in time order.

Belongs here: errors of single requests, blocks of them, their standard scores, the changes found and what stands
of them. Does not belong here: which labels are complete, tables (see `flow.concept_drift`), alarms on single features
(see `stats.residuals`, which says where; this says when).

The loss. Of a classifier the Brier loss (y − p)², of a regression |y − y'|. Brier rather than misclassification: it
needs no threshold, sees probabilities that went wrong without crossing one, and does not sink to the base rate where
one class is rare.

What the detectors see. The mean error of a block of n labels has the variance σ_day² + σ_label²/n: requests of one
day share more than chance. Both parts come from the reference days (one-way analysis of variance), and

    score = (error − μ_reference) / √(deff · (σ_day² + σ_label²/n))

so blocks of busy and of quiet days are alike. Where days matter more than blocks, blocks of a day are joined until
their design effect deff = 1 + (k−1)·r/(r+k), r = σ_day²/(σ_label²/N), is at most 1.5 (k values of a day of N
labels; at the limit one value a day), and what is left of it is divided out.

Measured on 200 stationary streams per case of 300 days, the first 28 of them the reference: share of streams with any
change found, rise or fall, afterwards (ADWIN, Page–Hinkley):

    independent, 5,000 labels a day                       0 and 0
    day effects as large as the noise of a day's mean     0.5 % and 2 %
    three times as large, or a weekly pattern             0 and 0
    within the day a wave of four times that noise        0 and 6 %
    30 or 60 skewed losses a day                          0 and 0
    day effects that follow each other (AR, 0.5), twice   0 and 21 %

At the end of the 300 days a rise still stood in none of them, but in 5 % of the last case by Page–Hinkley. That case
is a limit of any such detector: a wave over weeks is a change while it lasts. Found after, median in days (ADWIN and
Page–Hinkley; 0.05 variance of a label): 5,000 labels a day, error 0.20 → 0.22: 2 and 1; 300 labels, 0.20 → 0.25:
7 and 2; 60 labels, 0.20 → 0.30: 17 and 3; day effects of 0.01 around 0.20 and a rise to 0.23: 45 and 5.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64, Int64

ADWIN, PAGE_HINKLEY = "adwin", "page_hinkley"
DETECTORS = (ADWIN, PAGE_HINKLEY)
STABLE, RISING, FALLING, INSUFFICIENT = "stable", "rising", "falling", "insufficient"

MOST_BLOCKS, LEAST_LABELS = 50, 20
"""Blocks of a day at most, and labels of a block at least (a smaller day is one block)."""
LEAST_VALUES, LEAST_REFERENCE_DAYS = 20, 3
"""Values before anything is judged; reference days with labels before noise can be told from days."""
MOST_DESIGN_EFFECT = 1.5
STANDING_SHARE = 0.5
"""A change is over once the mean since then has come back by this share of it or more."""

ADWIN_DELTA = 0.002
"""ADWIN's δ: the confidence of each comparison. A window whose mean did not change is cut at one check with a
probability of about δ at most (Bifet and Gavaldà 2007); river's default."""
ADWIN_RANGE = 4.0
"""Scores from −4 to 4 around their level become 0…1, which ADWIN's bound is made for; further ones are taken as ±4."""
PAGE_HINKLEY_DELTA = 0.5
"""Page–Hinkley's δ: the change of the mean that is tolerated, in standard deviations of one value."""
PAGE_HINKLEY_THRESHOLD = 15.0
"""Page–Hinkley's λ: accumulated deviation beyond δ that is a change, in standard deviations of one value."""
LEAST_INSTANCES = 10
"""Values after a start, or a change, before either detector may find one."""


@dataclass(frozen=True)
class ErrorBlocks:
    """Consecutive blocks of labelled requests: day (ordinal) int64 [n], label_count and error_mean float64 [n]."""

    day: Int64
    label_count: Float64
    error_mean: Float64


@dataclass(frozen=True)
class ErrorScale:
    """What errors were in the reference: their mean, and the variance of one label's error and of a day's level."""

    mean: float
    label_variance: float
    day_variance: float


@dataclass(frozen=True)
class ErrorValues:
    """What a detector is shown, in order. Arrays [n]: ordinals of the first and last day of a value, its labels, its
    mean error and its standard score. `reference`: how many leading values are the reference's."""

    first_day: Int64
    last_day: Int64
    label_count: Float64
    error_mean: Float64
    score: Float64
    reference: int

    def error(self, first: int, end: int) -> float:
        """Mean error over all labels of the values first … end − 1, NaN where there are none."""
        labels = self.label_count[first:end]
        return float(labels @ self.error_mean[first:end] / labels.sum()) if end > first else float("nan")


@dataclass(frozen=True)
class Change:
    """A change that a detector found: the value at which, the first value after it, the mean errors on both sides."""

    found_at: int
    began_at: int
    error_before: float
    error_after: float

    @property
    def rises(self) -> bool:
        return self.error_after > self.error_before

    def stands_at(self, error: float) -> bool:
        """Whether more than half of the change is still there where the mean error since is `error`."""
        size = self.error_after - self.error_before
        return (error - self.error_before) * size > STANDING_SHARE * size**2


@dataclass(frozen=True)
class ErrorState:
    """What stands after some values: the state, the change behind it, the errors before it and since."""

    state: str
    change: Change | None
    error_before: float
    error_after: float


def request_errors(labels: Float64, outputs: Float64, *, is_classifier: bool) -> Float64:
    """Loss of each request, float64 [n]: (y − p)² of a classifier, |y − y'| of a regression, in output units.

    Raises
    ------
    StatisticsError
        Labels or outputs that are not finite, or, of a classifier, outside 0…1.

    >>> request_errors(np.array([1.0, 0.0]), np.array([0.8, 0.5]), is_classifier=True).round(2)
    array([0.04, 0.25])
    """
    both = np.concatenate((labels, outputs))
    fit = np.isfinite(both) & ((both >= 0) & (both <= 1) if is_classifier else True)
    if not fit.all():
        raise StatisticsError(
            "errors cannot be measured",
            expected="labels and outputs from 0 to 1" if is_classifier else "finite labels and outputs",
            found=f"{int((~fit).sum())} others, such as {both[~fit][0]}",
        )
    residual = np.asarray(labels - outputs, dtype=np.float64)
    return np.asarray(residual**2 if is_classifier else np.abs(residual))


def block_numbers(requests: int) -> Int64:
    """The block of each of n requests in order: as many near-equal blocks as have 20 labels each, at most 50.

    >>> np.bincount(block_numbers(45)).tolist(), len(np.unique(block_numbers(10**5)))
    ([23, 22], 50)
    """
    blocks = min(max(requests // LEAST_LABELS, 1), MOST_BLOCKS)
    return np.arange(requests, dtype=np.int64) * blocks // max(requests, 1)


def error_values(blocks: ErrorBlocks, reference_end: int) -> ErrorValues | None:
    """Blocks as values for a detector; those up to the day `reference_end` (ordinal) set the scale.

    What a value is depends on the reference and on earlier blocks only, so a longer stream begins with the same values.
    Blocks below 20 labels are joined with those that follow, over days. None where the reference has fewer than three
    days of labels or its errors do not vary.
    """
    joined = _join_small(blocks)
    scale = reference_scale(joined[joined[:, 1] <= reference_end])
    if scale is None:
        return None
    parts = [np.empty((0, 5)), *(_values_of_day(rows, scale) for rows in _by_day(joined))]
    rows = np.concatenate(parts)
    days = rows[:, :2].astype(np.int64)
    reference = int((days[:, 1] <= reference_end).sum())
    return ErrorValues(days[:, 0], days[:, 1], rows[:, 2], rows[:, 3], rows[:, 4], reference)


def reference_scale(rows: Float64) -> ErrorScale | None:
    """Mean and variance components of blocks [n, 4] (first day, day, labels, mean error), weighted by their labels.

    σ_label² is the variance within days, σ_day² = max(0, (MS_between − σ_label²) / n₀) with the n₀ of unequal days
    (one-way random effects, Searle, Casella and McCulloch 1992, 3.6). With one block a day there is nothing within
    days: all variance is then taken as σ_label².
    """
    _, at = np.unique(rows[:, 1], return_inverse=True)
    labels, error = rows[:, 2], rows[:, 3]
    of_day = np.bincount(at, labels)
    if len(of_day) < LEAST_REFERENCE_DAYS:
        return None
    day_error = np.bincount(at, labels * error) / of_day
    total, degrees = labels.sum(), len(of_day) - 1
    mean = float(labels @ error / total)
    between = float(of_day @ (day_error - mean) ** 2 / degrees)
    within = float(labels @ (error - day_error[at]) ** 2 / max(len(rows) - len(of_day), 1))
    if max(between, within) <= np.finfo(float).eps * max(mean**2, np.finfo(float).tiny):
        return None
    if within <= np.finfo(float).eps * between:
        return ErrorScale(mean, between, 0.0)
    size = float(total - of_day @ of_day / total) / degrees
    return ErrorScale(mean, within, max(0.0, (between - within) / size))


def _join_small(blocks: ErrorBlocks) -> Float64:
    """Rows first day, last day, labels, mean error; each of 20 labels or more. An unfinished last one is left out."""
    rows, first, labels, errors = [], -1, 0.0, 0.0
    for day, count, mean in zip(blocks.day, blocks.label_count, blocks.error_mean, strict=True):
        first = int(day) if labels == 0 else first
        labels, errors = labels + count, errors + count * mean
        if labels >= LEAST_LABELS:
            rows.append((first, int(day), labels, errors / labels))
            labels, errors = 0.0, 0.0
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def _by_day(rows: Float64) -> list[Float64]:
    """Rows of one day together; they come in order."""
    return [part for part in np.split(rows, np.flatnonzero(np.diff(rows[:, 1])) + 1) if len(part)]


def _values_of_day(rows: Float64, scale: ErrorScale) -> Float64:
    """Values of one day: rows first day, last day, labels, mean error, score."""
    labels = rows[:, 2]
    total = labels.sum()
    ratio = scale.day_variance * total / scale.label_variance
    k = len(rows)
    excess = ratio - (MOST_DESIGN_EFFECT - 1)
    if excess > 0:
        k = min(k, max(1, int(MOST_DESIGN_EFFECT * ratio / excess)))
    group = np.minimum(((np.cumsum(labels) - labels / 2) / total * k).astype(np.int64), k - 1)
    starts = np.flatnonzero(np.diff(group, prepend=-1))
    count = np.add.reduceat(labels, starts)
    error = np.add.reduceat(labels * rows[:, 3], starts) / count
    deff = 1 + (len(starts) - 1) * ratio / (ratio + len(starts))
    score = (error - scale.mean) / np.sqrt(deff * (scale.day_variance + scale.label_variance / count))
    return np.column_stack((rows[starts, 0], rows[starts, 1], count, error, score))


def find_changes(values: ErrorValues, detector: str) -> tuple[Change, ...]:
    """Every change that a detector finds, in order; it starts afresh after each. Of a longer stream, the first ones.

    Where a change began is where two means fit the scores since the last start best (least squares). Page–Hinkley
    names no beginning, and the window that river's ADWIN keeps is one bucket shorter than it was, not what came after
    the change: measured, it began 41 days too early.
    """
    found = {ADWIN: _adwin, PAGE_HINKLEY: _page_hinkley}[detector]()
    changes: list[Change] = []
    start = level = 0
    centre = 0.0  # of the scores since the last change, so that ADWIN's range stays around them
    for i, score in enumerate(values.score):
        if not found(float(score - centre)):
            continue
        began = start + best_split(values.score[start : i + 1])
        changes.append(Change(i, began, values.error(level, began), values.error(began, i + 1)))
        start, level, centre = i + 1, began, values.score[began : i + 1].mean()
    return tuple(changes)


Watch = Callable[[float], bool]
"""Takes the next score; says whether there was a change."""


def _adwin() -> Watch:
    from river import drift

    detector = drift.ADWIN(delta=ADWIN_DELTA, clock=1, grace_period=LEAST_INSTANCES)

    def found(score: float) -> bool:
        detector.update(min(max(0.5 + score / (2 * ADWIN_RANGE), 0.0), 1.0))
        return bool(detector.drift_detected)

    return found


def _page_hinkley() -> Watch:
    from river import drift

    # alpha 1: river's default of 0.9999 fades the sum, which in a long quiet stream undoes what δ tolerates; of 40
    # stationary streams of 300 days × 50 values every one then raised an alarm.
    settings = {"delta": PAGE_HINKLEY_DELTA, "threshold": PAGE_HINKLEY_THRESHOLD, "alpha": 1.0}
    detector = drift.PageHinkley(min_instances=LEAST_INSTANCES, mode="both", **settings)

    def found(score: float) -> bool:
        detector.update(score)
        return bool(detector.drift_detected)

    return found


def best_split(values: Float64) -> int:
    """Position of the first value of the second of two parts whose means fit best (least squares); n ≥ 2.

    >>> best_split(np.array([0.1, -0.2, 0.0, 2.1, 1.9]))
    3
    """
    left = np.arange(1, len(values))
    sums = np.cumsum(values)
    gap = sums[:-1] / left - (sums[-1] - sums[:-1]) / left[::-1]
    return int(np.argmax(left * left[::-1] * gap**2)) + 1


def state_after(values: ErrorValues, changes: Sequence[Change], count: int) -> ErrorState:
    """What stands after the first `count` values, of the changes found among them and after the reference.

    The last change whose effect is still there: the mean error since it differs from that before it by more than half
    of what it did when it was found. So an excursion, or a false alarm, wears off by itself. A rise in several steps
    is told as one, from the first step that stood when the next was found.
    """
    if count < LEAST_VALUES:
        return ErrorState(INSUFFICIENT, None, float("nan"), float("nan"))
    known = [c for c in changes if values.reference <= c.found_at < count]
    while known and not known[-1].stands_at(values.error(known[-1].began_at, count)):
        known.pop()
    if not known:
        return ErrorState(STABLE, None, values.error(0, values.reference), values.error(values.reference, count))
    now, first = values.error(known[-1].began_at, count), known.pop()
    while known and known[-1].rises == first.rises and known[-1].stands_at(first.error_before):
        first = known.pop()
    return ErrorState(RISING if first.rises else FALLING, first, first.error_before, now)
