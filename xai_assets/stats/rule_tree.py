"""A shallow tree that splits requests where a mean, or the difference of two groups' means, changes most.

Belongs here: choosing splits on the rows given. Does not belong here: what the target is, and which splits hold on
other rows (see `slices`).

A split's gain is h_L h_R / (h_L + h_R) · (D_L − D_R)². Without a second group D is the weighted mean and h the weight:
the reduction of the sum of squares that every regression tree maximises (Breiman, Friedman, Olshen and Stone, 1984).
With one, D is the difference of the two groups' means and 1/h = 1/n + 1/m: the split where the difference changes most
(Athey and Imbens, "Recursive partitioning for heterogeneous causal effects", PNAS 2016).

Numbers are split at every value, levels one against the rest; missing values go to either side, or make one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

import numpy as np

from xai_assets.records import Float64, Int64
from xai_assets.stats.rules import (
    Interval,
    LevelColumn,
    LevelSet,
    Mask,
    NumberColumn,
    Rule,
    SliceColumn,
    condition_on,
    round_between,
    with_condition,
)

ROWS, OTHER_ROWS, WEIGHT, OTHER_WEIGHT, SUM, OTHER_SUM = range(6)
_FIRST, _SECOND = (ROWS, WEIGHT, SUM), (OTHER_ROWS, OTHER_WEIGHT, OTHER_SUM)
GIVE = 0.01
"""Share of its gain that a cut may give up to be a number with fewer digits: a cut is an estimate anyway."""
TIE = 1e-9
"""A later column must gain more by this share: equal gains differ by rounding in another order of the rows."""


@dataclass(frozen=True)
class RuleNode:
    """One node: the rule that leads to it, and its two parts, if it has any."""

    rule: Rule
    parts: tuple["RuleNode", ...] = ()

    def nodes(self) -> Iterator["RuleNode"]:
        """This node and all below it."""
        yield self
        for part in self.parts:
            yield from part.nodes()

    def leaves(self) -> list["RuleNode"]:
        """The nodes without parts."""
        return [n for n in self.nodes() if not n.parts]


@dataclass(frozen=True)
class _Split:
    gain: float
    left: Rule
    right: Rule
    goes_left: Mask


@dataclass(frozen=True)
class _Growth:
    """What is the same in every node. sums: float64 [n, 6], what each row adds; orders: rows by rising value."""

    columns: tuple[SliceColumn, ...]
    orders: dict[str, Int64]
    sums: Float64
    min_rows: int
    min_other_rows: int
    give: float


def grow(
    columns: Sequence[SliceColumn],
    target: Float64,
    weights: Float64,
    second: Mask | None = None,
    *,
    max_depth: int = 3,
    min_rows: int,
    min_second_rows: int = 0,
    give: float = GIVE,
) -> RuleNode:
    """The tree over all rows given.

    Parameters
    ----------
    columns
        What rules may speak of, n rows each. Their order plays no part: equal gains go by name.
    target, weights
        float64 [n], finite; weights above 0. Only their ratios within a group count.
    second
        bool [n]: rows of the group whose mean is subtracted; None where there is no such group.
    max_depth
        Conditions in a rule at most (before those on one column are merged).
    min_rows, min_second_rows
        Fewest rows of each group on either side of a split.
    give
        Share of its gain that a cut between numbers may give up to have fewer digits.
    """
    other = np.zeros(len(target), dtype=np.bool_) if second is None else second
    growth = _Growth(
        columns=tuple(sorted(columns, key=lambda c: c.name)),
        orders={c.name: np.argsort(c.values, kind="stable") for c in map(_finite, columns) if c is not None},
        sums=_row_sums(target, weights, other),
        min_rows=min_rows,
        min_other_rows=min_second_rows,
        give=give,
    )
    return _grown(growth, (), np.ones(len(target), dtype=np.bool_), max_depth)


def _finite(column: SliceColumn) -> NumberColumn | None:
    """A column of numbers with NaN for every infinity, so that what is missing is sorted last."""
    if isinstance(column, LevelColumn):
        return None
    return NumberColumn(column.name, np.where(np.isfinite(column.values), column.values, np.nan))


def _row_sums(target: Float64, weights: Float64, other: Mask) -> Float64:
    """1, w and wy of each row in the columns of its group, float64 [n, 6]; weights of a group average 1."""
    sums = np.zeros((len(target), 6))
    for group, (row, weight, total) in ((~other, _FIRST), (other, _SECOND)):
        if group.any():
            scaled = weights[group] * (group.sum() / weights[group].sum())
            sums[group, row], sums[group, weight], sums[group, total] = 1.0, scaled, scaled * target[group]
    return sums


def _grown(growth: _Growth, rule: Rule, inside: Mask, depth: int) -> RuleNode:
    best: _Split | None = None
    if depth > 0 and growth.sums[inside, ROWS].sum() >= 2 * growth.min_rows:
        for column in growth.columns:
            found = _best_split(growth, rule, inside, column)
            if found is not None and (best is None or found.gain > best.gain * (1 + TIE)):
                best = found
    if best is None:
        return RuleNode(rule)
    left = _grown(growth, best.left, inside & best.goes_left, depth - 1)
    right = _grown(growth, best.right, inside & ~best.goes_left, depth - 1)
    return RuleNode(rule, (left, right))


def _best_split(growth: _Growth, rule: Rule, inside: Mask, column: SliceColumn) -> _Split | None:
    if isinstance(column, NumberColumn):
        return _number_split(growth, rule, inside, column)
    return _level_split(growth, rule, inside, column)


def _number_split(growth: _Growth, rule: Rule, inside: Mask, column: NumberColumn) -> _Split | None:
    order = growth.orders[column.name]
    order = order[inside[order]]
    x = column.values[order]
    known = int(np.isfinite(x).sum())
    running = growth.sums[order].cumsum(axis=0)
    if known == 0:
        return None
    total, missing = running[-1], running[-1] - running[known - 1]
    some_missing = known < len(x)
    at = np.flatnonzero(x[1:known] > x[: known - 1])
    below = running[at]
    candidates = [(_gains(growth, below, total), at, False)]
    if some_missing:
        candidates.append((_gains(growth, below + missing, total), at, True))
        present = running[known - 1 : known]
        candidates.append((_gains(growth, present, total), np.array([known - 1]), False))
    gains, places, missing_left = max(candidates, key=lambda c: c[0].max(initial=-inf))
    if gains.max(initial=-inf) <= 0.0:
        return None
    first, last = _nearly_best(gains, growth.give)
    low, high = int(places[first]), int(places[last]) + 1
    cut = round_between(float(x[low]), float(x[high])) if high < known else inf
    old = condition_on(rule, column)
    assert isinstance(old, Interval)
    left = old.below(cut, missing=some_missing and missing_left)
    right = old.from_cut(cut, missing=some_missing and not missing_left)
    return _Split(float(gains.max()), with_condition(rule, left), with_condition(rule, right), left.matches(column))


def _nearly_best(gains: Float64, give: float) -> tuple[int, int]:
    """First and last of the cuts next to the best one that give up at most this share of its gain."""
    best = int(gains.argmax())
    worse = np.flatnonzero(gains < (1.0 - give) * gains[best])
    after = int(np.searchsorted(worse, best))
    first = int(worse[after - 1]) + 1 if after > 0 else 0
    return first, int(worse[after]) - 1 if after < len(worse) else len(gains) - 1


def _level_split(growth: _Growth, rule: Rule, inside: Mask, column: LevelColumn) -> _Split | None:
    codes = column.codes[inside] + 1  # missing first
    sums = growth.sums[inside]
    cells = len(column.levels) + 1
    of_level = np.zeros((cells, sums.shape[1]))
    for k in range(sums.shape[1]):
        of_level[:, k] = np.bincount(codes, sums[:, k], cells)
    gains = _gains(growth, of_level, of_level.sum(axis=0))
    best = int(gains.argmax())
    if gains[best] <= 0.0:
        return None
    names = (None, *column.levels)
    old = condition_on(rule, column)
    assert isinstance(old, LevelSet)
    only, rest = old.only(names[best]), old.without(names[best])
    others = [names[i] for i in np.flatnonzero(of_level[:, ROWS] + of_level[:, OTHER_ROWS]) if i != best]
    if len(others) == 1:
        rest = old.only(others[0])  # "= true" is easier to read than "≠ false"
    return _Split(float(gains[best]), with_condition(rule, only), with_condition(rule, rest), only.matches(column))


def _gains(growth: _Growth, left: Float64, total: Float64) -> Float64:
    """Gain of splits by the sums of their left sides, float64 [k]; −∞ where a side has too few rows."""
    right = total - left
    enough = np.ones(len(left), dtype=np.bool_)
    for side in (left, right):
        enough &= (side[:, ROWS] >= growth.min_rows) & (side[:, OTHER_ROWS] >= growth.min_other_rows)
    left, right = left[enough], right[enough]
    (h_left, d_left), (h_right, d_right) = (
        _precision_and_mean(side, bool(total[OTHER_ROWS])) for side in (left, right)
    )
    gains = np.full(len(enough), -inf)
    gains[enough] = h_left * h_right / (h_left + h_right) * (d_left - d_right) ** 2
    return gains


def _precision_and_mean(sums: Float64, two_groups: bool) -> tuple[Float64, Float64]:
    mean, weight = sums[:, SUM] / sums[:, WEIGHT], sums[:, WEIGHT]
    if not two_groups:
        return weight, mean
    other_weight = sums[:, OTHER_WEIGHT]
    return 1.0 / (1.0 / weight + 1.0 / other_weight), mean - sums[:, OTHER_SUM] / other_weight
