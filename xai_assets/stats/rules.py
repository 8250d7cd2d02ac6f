"""Rules that describe a set of requests: conditions on columns, as masks, as sentences and as plain data.

Belongs here: what a condition means for numbers, levels and missing values; merging conditions on one column; cuts
that a person can read. Does not belong here: finding rules (see `rule_tree`), judging them (see `slices`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import floor, inf, isinf, log10
from typing import Any

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64, Int64

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class NumberColumn:
    """Numbers of n rows. values: float64 [n]; NaN is missing, and so is an infinity."""

    name: str
    values: Float64

    def taken(self, rows: Mask) -> "NumberColumn":
        """Only these rows."""
        return replace(self, values=self.values[rows])


@dataclass(frozen=True)
class LevelColumn:
    """Levels of n rows. codes: int64 [n], position in `levels`; −1 is missing."""

    name: str
    codes: Int64
    levels: tuple[str, ...]

    def taken(self, rows: Mask) -> "LevelColumn":
        """Only these rows."""
        return replace(self, codes=self.codes[rows])


SliceColumn = NumberColumn | LevelColumn


@dataclass(frozen=True)
class Interval:
    """low ≤ x < high, and missing values too where `missing`. low ≥ high: no number at all.

    As it is made without bounds it says nothing: every number and every missing value qualifies.
    """

    column: str
    low: float = -inf
    high: float = inf
    missing: bool = True

    def matches(self, column: SliceColumn) -> Mask:
        """bool [n]: the rows that qualify."""
        assert isinstance(column, NumberColumn)
        x = column.values
        known = np.isfinite(x)
        return np.asarray(np.where(known, (x >= self.low) & (x < self.high), self.missing))

    def below(self, cut: float, *, missing: bool) -> "Interval":
        """The part under `cut`; `missing`: whether missing values are in this part."""
        return replace(self, high=min(self.high, cut), missing=self.missing and missing)

    def from_cut(self, cut: float, *, missing: bool) -> "Interval":
        """The part from `cut` on; an infinite cut leaves no number."""
        return replace(self, low=max(self.low, cut), missing=self.missing and missing)

    @property
    def sentence(self) -> str:
        if self.low >= self.high:
            return f"{self.column} is missing"
        if isinf(self.low) and isinf(self.high):
            return f"{self.column} is present"
        if isinf(self.low):
            text = f"{self.column} < {number_text(self.high)}"
        elif isinf(self.high):
            text = f"{self.column} ≥ {number_text(self.low)}"
        else:
            text = f"{number_text(self.low)} ≤ {self.column} < {number_text(self.high)}"
        return f"({text} or missing)" if self.missing else text

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON holds it; a bound that is not there has no key."""
        found: dict[str, Any] = {"column": self.column}
        if self.low >= self.high:
            return found | {"missing": True}
        bounds = {"at_least": self.low, "below": self.high}
        return found | {k: v for k, v in bounds.items() if not isinf(v)} | {"missing": self.missing}


@dataclass(frozen=True)
class LevelSet:
    """One of `levels`, or with `excluded` any but these; missing values too where `missing`."""

    column: str
    levels: tuple[str, ...] = ()
    excluded: bool = True
    missing: bool = True

    def matches(self, column: SliceColumn) -> Mask:
        """bool [n]: the rows that qualify."""
        assert isinstance(column, LevelColumn)
        wanted = np.array([(level in self.levels) != self.excluded for level in column.levels] + [self.missing])
        return np.asarray(wanted[column.codes])  # −1, missing, is the last one

    def only(self, level: str | None) -> "LevelSet":
        """The part with this level; None stands for missing."""
        return LevelSet(self.column, () if level is None else (level,), excluded=False, missing=level is None)

    def without(self, level: str | None) -> "LevelSet":
        """The part with any other level; None stands for missing."""
        if level is None:
            return replace(self, missing=False)
        return replace(self, levels=tuple(sorted((*self.levels, level))))

    @property
    def sentence(self) -> str:
        listed = self.levels[0] if len(self.levels) == 1 else f"({', '.join(self.levels)})"
        many = len(self.levels) > 1
        if not self.levels:
            return f"{self.column} is {'present' if self.excluded else 'missing'}"
        if not self.excluded:
            return f"{self.column} {'in' if many else '='} {listed}"
        if not self.missing:
            return f"{self.column} is present and not {'in ' if many else ''}{listed}"
        return f"{self.column} {'not in' if many else '≠'} {listed}"

    @property
    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        found: dict[str, Any] = {"column": self.column}
        if self.levels:
            found["not_in" if self.excluded else "in"] = list(self.levels)
        return found | {"missing": self.missing}


Condition = Interval | LevelSet
Rule = tuple[Condition, ...]
"""Conditions that hold together, one per column, in the order of the columns' names. () is every request."""


def condition_on(rule: Rule, column: SliceColumn) -> Condition:
    """The rule's condition on a column; one that says nothing where it has none."""
    for condition in rule:
        if condition.column == column.name:
            return condition
    return Interval(column.name) if isinstance(column, NumberColumn) else LevelSet(column.name)


def with_condition(rule: Rule, condition: Condition) -> Rule:
    """The rule with this condition in the place of the one on the same column."""
    others = [c for c in rule if c.column != condition.column]
    return tuple(sorted((*others, condition), key=lambda c: c.column))


def rule_mask(rule: Rule, columns: Sequence[SliceColumn]) -> Mask:
    """bool [n]: the rows for which every condition holds.

    Raises
    ------
    StatisticsError
        There is no column at all, or a condition is on a column that is not there.
    """
    named: Mapping[str, SliceColumn] = {c.name: c for c in columns}
    missing = [c.column for c in rule if c.column not in named]
    if missing or not columns:
        raise StatisticsError(f"a rule's column is not there: {', '.join(missing)}", found=", ".join(named) or "none")
    found = np.ones(rows_of(columns[0]), dtype=np.bool_)
    for condition in rule:
        found &= condition.matches(named[condition.column])
    return found


def rows_of(column: SliceColumn) -> int:
    """Number of rows of a column."""
    return len(column.values) if isinstance(column, NumberColumn) else len(column.codes)


def rule_sentence(rule: Rule) -> str:
    """The rule in words, without units.

    >>> rule_sentence((Interval("annual_income", high=30_000.0, missing=False), LevelSet("channel").only("broker")))
    'annual_income < 30,000 and channel = broker'
    """
    return " and ".join(c.sentence for c in rule) or "every request"


def number_text(value: float) -> str:
    """A number with thousands separators, and no digit more than it has.

    >>> number_text(1234567.0), number_text(0.25)
    ('1,234,567', '0.25')
    """
    return f"{value:,.15g}"


def round_between(low: float, high: float) -> float:
    """The number with the fewest digits that tells `low` from `high`: low < t ≤ high; of several the middlemost.

    `x < t` is true of low and false of high, as for any other cut between the two.

    >>> round_between(29_873.12, 30_021.5), round_between(0.1, 0.2), round_between(12.0, 950.0)
    (30000.0, 0.2, 500.0)
    """
    if not low < high:
        raise StatisticsError("there is nothing between two numbers", expected=f"more than {low}", found=str(high))
    first = floor(log10(max(abs(low), abs(high)))) + 1
    for exponent in range(first, first - 18, -1):
        step = 10.0**exponent
        if step == 0.0:
            break
        lowest, highest = floor(low / step) + 1, floor(high / step)
        if lowest <= highest:
            middle = min(max(round((low / 2 + high / 2) / step), lowest), highest)
            cut = float(f"{middle}e{exponent}")
            if low < cut <= high:
                return cut
    return high
