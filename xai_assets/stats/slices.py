"""Slices: rules that say where two models differ, and where the drift of an attribution concentrates.

Belongs here: the target of the tree, which of its splits and leaves hold on held-out rows, and the figures of a slice.
Does not belong here: growing the tree (`rule_tree`), what a rule means (`rules`), choosing rows (see `flow.slices`).

A tree always finds something. So rules come from one part of the rows and are judged on the other, which took no part
in finding them: a split is undone unless the held-out rows show it too and it matters, and a slice is confirmed only by
a one-sided Welch test against everybody else, at a level divided by the number of nodes that could have been reported
(Bonferroni), together with a size of effect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from xai_assets.records import Float64, Int64
from xai_assets.stats.drift import effective_rows, psi_corrected
from xai_assets.stats.rule_tree import RuleNode, grow
from xai_assets.stats.rules import Mask, Rule, SliceColumn, rule_mask, rule_sentence

MIN_ROWS = 200
"""Fewer rows (of either group) are `insufficient`: no rule is looked for."""
MAX_DEPTH = 3
LEAF_ROWS, LEAF_SHARE = 50, 0.01
"""A slice holds at least so many of the rows it was found in, and at least this share of them."""
LEVEL = 0.01
"""Probability that anything is confirmed where nothing is there, at most."""
LIFT = 1.5
"""A divergence slice is confirmed from this ratio of its mean |Δ| to that of the rest on."""
MATERIAL = 1.25
"""A split by |Δ| is kept where the larger of the two parts' means is this many times the smaller, at least."""
QUIET_SHARE, CONCENTRATION = 0.25, 2.0
"""Drift concentrates in a part where the rest has at most a quarter of its corrected PSI; or, where the rest is below
the floor from which drift is noted, at most half of it."""
MOST_SHARE = 0.8
"""A rule that holds for more of the requests than this names everybody rather than a slice."""


@dataclass(frozen=True)
class DivergenceSlice:
    """Where the outputs of two models differ more than elsewhere. Output units; shares and counts of requests.

    Figures without `_fit` are of the held-out rows, those with it of the rows in which the rule was found.
    """

    rule: Rule
    support_share: float
    mean_abs_delta: float
    mean_abs_delta_rest: float
    lift: float
    flip_share: float
    flip_share_rest: float
    mean_abs_delta_fit: float
    lift_fit: float
    p_value: float
    row_count: int
    row_count_fit: int
    confirmed: bool

    @property
    def sentence(self) -> str:
        return rule_sentence(self.rule)


@dataclass(frozen=True)
class DriftSlice:
    """Where the drift of one attribution concentrates: corrected PSI, nats, within the rule and outside of it.

    Figures without `_fit` are of the held-out rows, those with it of the rows in which the rule was found.
    """

    rule: Rule
    support_share: float
    support_share_reference: float
    psi_corrected_nats: float
    psi_rest_nats: float
    psi_corrected_fit_nats: float
    p_value: float
    row_count: int
    row_count_fit: int
    row_count_reference: int
    confirmed: bool

    @property
    def sentence(self) -> str:
        return rule_sentence(self.rule)


def plain_rule(rule: Rule) -> list[Mapping[str, object]]:
    """The conditions as JSON holds them."""
    return [c.plain for c in rule]


# --- where the models differ -----------------------------------------------------------------------------------------


def divergence_slices(
    columns: Sequence[SliceColumn], delta: Float64, flipped: Mask, weights: Float64, held_out: Mask
) -> tuple[DivergenceSlice, ...]:
    """Slices in which |Δ| is larger than elsewhere, the largest held-out mean first.

    Parameters
    ----------
    columns
        Features and context of n requests.
    delta
        float64 [n], difference of the outputs, output units. A request where it is not finite is left out.
    flipped
        bool [n]: the two outputs fall on different sides of the decision threshold.
    weights
        float64 [n], 1 / inclusion probability, above 0.
    held_out
        bool [n]: the requests that confirm; the others are those in which rules are found.

    Returns
    -------
    The tree's leaves with a lift of at least `LIFT` in the rows they were found in, `confirmed` or not; none where
    either part holds fewer than `MIN_ROWS` / 2 requests.
    """
    size = np.abs(delta)
    fit, held = (np.isfinite(size) & part for part in (~held_out, held_out))
    if min(fit.sum(), held.sum()) < MIN_ROWS / 2 or not columns:
        return ()
    tree = grow(_taken(columns, fit), size[fit], weights[fit], max_depth=MAX_DEPTH, min_rows=leaf_rows(int(fit.sum())))
    means = _Means(size, weights, np.zeros(len(size), dtype=np.bool_))
    search = _DivergenceSearch(means, flipped, fit, held, tests=_tests(tree))
    found = [search.slice(rule, rule_mask(rule, columns)) for rule in _rules(tree, columns, search)]
    return tuple(sorted(found, key=lambda s: (-s.mean_abs_delta, s.sentence)))


def leaf_rows(rows: int) -> int:
    """Fewest rows of a slice among `rows`."""
    return max(LEAF_ROWS, int(np.ceil(LEAF_SHARE * rows)))


@dataclass(frozen=True)
class _DivergenceSearch:
    """Judges parts by their mean |Δ|."""

    means: "_Means"
    flipped: Mask
    fit: Mask
    held: Mask
    tests: int

    def holds(self, a: Mask, b: Mask) -> bool:
        low, high = sorted((self.means.of(self.held & a), self.means.of(self.held & b)), key=lambda e: e.mean)
        return high.mean >= MATERIAL * low.mean and welch_p(high, low) <= LEVEL / self.tests

    def stands_out(self, inside: Mask) -> bool:
        return self._mean(inside) >= LIFT * self._mean(~inside)

    def is_alike(self, inside: Mask, more: Mask, outside: Mask) -> bool:
        alike = self._mean(more) * MATERIAL >= self._mean(inside)
        return alike and self._mean(more) >= LIFT * self._mean(outside)

    def _mean(self, rows: Mask) -> float:
        return self.means.of(self.fit & rows).mean

    def slice(self, rule: Rule, inside: Mask) -> DivergenceSlice:
        weights = self.means.weights
        mine, rest = self.held & inside, self.held & ~inside
        of_mine, of_rest = self.means.of(mine), self.means.of(rest)
        lift, p_value = _ratio(of_mine.mean, of_rest.mean), welch_p(of_mine, of_rest)
        support = _ratio(weights[mine].sum(), weights[self.held].sum())
        return DivergenceSlice(
            rule=rule,
            support_share=support,
            mean_abs_delta=of_mine.mean,
            mean_abs_delta_rest=of_rest.mean,
            lift=lift,
            flip_share=_ratio(weights[mine & self.flipped].sum(), weights[mine].sum()),
            flip_share_rest=_ratio(weights[rest & self.flipped].sum(), weights[rest].sum()),
            mean_abs_delta_fit=self._mean(inside),
            lift_fit=_ratio(self._mean(inside), self._mean(~inside)),
            p_value=p_value,
            row_count=int(mine.sum()),
            row_count_fit=int((self.fit & inside).sum()),
            confirmed=lift >= LIFT and support <= MOST_SHARE and p_value <= LEVEL / self.tests,
        )


# --- where an attribution's drift concentrates -----------------------------------------------------------------------


def drift_slices(
    columns: Sequence[SliceColumn],
    cells: Int64,
    weights: Float64,
    is_reference: Mask,
    held_out: Mask,
    *,
    noted_nats: float,
    searches: int = 1,
) -> tuple[DriftSlice, ...]:
    """Slices in which an attribution's histogram moved far more than elsewhere, the largest held-out PSI first.

    Each request counts ln(p/q) of its cell, p and q being the cell's shares in window and reference (½ request added
    to each used cell). Its mean in the window less that in the reference is the two's symmetric divergence; the same
    difference inside a rule is what the tree splits by. A rule within which the attribution is as it was scores
    nothing, however many more requests fall into it now.

    Parameters
    ----------
    columns
        Features and context of n requests, reference and window together.
    cells
        int64 [n]: cell of each request's attribution, over the reference profile's borders.
    weights
        float64 [n], 1 / inclusion probability, above 0.
    is_reference, held_out
        bool [n].
    noted_nats
        Corrected PSI from which a slice counts as drifted.
    searches
        How many attributions are searched together; the level is divided by it too.

    Returns
    -------
    Leaves of the tree in which the attribution moved more than in the rest, `confirmed` or not; none where one of the
    four parts holds fewer than `MIN_ROWS` / 2 requests.
    """
    fit, held = ~held_out, held_out
    parts = [int((part & group).sum()) for part in (fit, held) for group in (is_reference, ~is_reference)]
    if min(parts) < MIN_ROWS / 2 or not columns:
        return ()
    target = log_ratios(cells, weights, is_reference, fit)
    tree = grow(
        _taken(columns, fit),
        target[fit],
        weights[fit],
        is_reference[fit],
        max_depth=MAX_DEPTH,
        min_rows=leaf_rows(parts[1]),
        min_second_rows=leaf_rows(parts[0]),
    )
    means = _Means(target, weights, is_reference)
    search = _DriftSearch(means, cells, fit, held, noted_nats, tests=searches * _tests(tree))
    found = [search.slice(rule, rule_mask(rule, columns)) for rule in _rules(tree, columns, search)]
    return tuple(sorted(found, key=lambda s: (-s.psi_corrected_nats, s.sentence)))


def log_ratios(cells: Int64, weights: Float64, is_reference: Mask, fit: Mask) -> Float64:
    """ln(p/q) of each request's cell, float64 [n]; shares from the rows in `fit`, 0 in a cell that holds none."""
    count = int(cells.max(initial=0)) + 1
    shares = []
    used = np.bincount(cells[fit], minlength=count) > 0
    for group in (~is_reference & fit, is_reference & fit):
        counts = np.bincount(cells[group], weights[group], count)
        n = float(effective_rows(weights[group], weights[group] ** 2))
        smoothed = np.where(used, counts / counts.sum() * n + 0.5, 0.0)
        shares.append(smoothed / smoothed.sum())
    ratio = np.divide(shares[0], shares[1], out=np.ones(count), where=used)
    return np.asarray(np.log(ratio)[cells])


@dataclass(frozen=True)
class _DriftSearch:
    """Judges parts by their corrected PSI, and by the difference of the groups' mean ln(p/q)."""

    means: "_Means"
    cells: Int64
    fit: Mask
    held: Mask
    noted_nats: float
    tests: int

    def holds(self, a: Mask, b: Mask) -> bool:
        psi = [self._psi(self.held & part) for part in (a, b)]
        high, low = (a, b) if psi[0] >= psi[1] else (b, a)
        difference = welch_p(self.means.of(self.held & high), self.means.of(self.held & low))
        return self._concentrates(max(psi), min(psi)) and difference <= LEVEL / self.tests

    def stands_out(self, inside: Mask) -> bool:
        return self.means.of(self.fit & inside).mean > self.means.of(self.fit & ~inside).mean

    def is_alike(self, inside: Mask, more: Mask, outside: Mask) -> bool:  # noqa: ARG002 - sizes of PSI do not compare
        return self._concentrates(self._psi(self.fit & more), self._psi(self.fit & outside))

    def _concentrates(self, psi: float, psi_rest: float) -> bool:
        share = 1.0 / CONCENTRATION if psi_rest < self.noted_nats else QUIET_SHARE
        return psi >= self.noted_nats and psi_rest <= share * psi

    def _psi(self, rows: Mask) -> float:
        """Corrected PSI of the window's rows against the reference's, nats; NaN where one of them has none."""
        reference, weights = self.means.second, self.means.weights
        groups = [(self.cells[g], weights[g]) for g in (rows & reference, rows & ~reference)]
        cells = max((int(c.max(initial=0)) + 1 for c, _ in groups), default=1)
        old, new = (np.bincount(c, w, cells) for c, w in groups)
        m, n = (float(effective_rows(w, w**2)) for _, w in groups)
        return float(psi_corrected(old, new, n_effective_reference=m, n_effective=n))

    def slice(self, rule: Rule, inside: Mask) -> DriftSlice:
        reference, weights = self.means.second, self.means.weights
        mine, rest = self.held & inside, self.held & ~inside
        psi, psi_rest = self._psi(mine), self._psi(rest)
        p_value = welch_p(self.means.of(mine), self.means.of(rest))
        support = _ratio(weights[mine & ~reference].sum(), weights[self.held & ~reference].sum())
        return DriftSlice(
            rule=rule,
            support_share=support,
            support_share_reference=_ratio(weights[mine & reference].sum(), weights[self.held & reference].sum()),
            psi_corrected_nats=psi,
            psi_rest_nats=psi_rest,
            psi_corrected_fit_nats=self._psi(self.fit & inside),
            p_value=p_value,
            row_count=int((mine & ~reference).sum()),
            row_count_fit=int((self.fit & inside & ~reference).sum()),
            row_count_reference=int((mine & reference).sum()),
            confirmed=self._concentrates(psi, psi_rest) and support <= MOST_SHARE and p_value <= LEVEL / self.tests,
        )


# --- what both share -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """A mean, or a difference of two: value, variance, and degrees of freedom of the variance."""

    mean: float
    variance: float
    freedom: float


@dataclass(frozen=True)
class _Means:
    """Weighted means over any rows; of two groups the difference, where `second` names one."""

    target: Float64
    weights: Float64
    second: Mask

    def of(self, rows: Mask) -> Estimate:
        first = _weighted_mean(self.target[rows & ~self.second], self.weights[rows & ~self.second])
        if not self.second.any():
            return first
        other = _weighted_mean(self.target[rows & self.second], self.weights[rows & self.second])
        return _difference(first, other)


def _weighted_mean(values: Float64, weights: Float64) -> Estimate:
    """Mean Σwx/Σw; its variance Σw²(x−m)²/(Σw)² · n/(n−1); n − 1 degrees of freedom, n = (Σw)²/Σw²."""
    n = float(effective_rows(weights, weights**2))
    if n <= 1.0:
        return Estimate(float("nan"), float("nan"), float("nan"))
    total = weights.sum()
    mean = float((weights * values).sum() / total)
    variance = float((weights**2 * (values - mean) ** 2).sum() / total**2) * n / (n - 1.0)
    return Estimate(mean, variance, n - 1.0)


def _difference(a: Estimate, b: Estimate) -> Estimate:
    """a − b of independent estimates, degrees of freedom after Welch and Satterthwaite."""
    variance = a.variance + b.variance
    parts = sum(e.variance**2 / e.freedom for e in (a, b))
    return Estimate(a.mean - b.mean, variance, variance**2 / parts if parts > 0 else a.freedom + b.freedom)


def welch_p(a: Estimate, b: Estimate) -> float:
    """One-sided p-value that the mean behind `a` is not above that behind `b` (Welch 1947); 1 where one is unknown."""
    from scipy.special import stdtr

    found = _difference(a, b)
    if not np.isfinite([found.mean, found.variance]).all():
        return 1.0
    if found.variance <= 0.0:
        return 0.0 if found.mean > 0 else 1.0
    return float(stdtr(found.freedom, -found.mean / np.sqrt(found.variance)))


class _Search(Protocol):
    """What rules are judged by. Masks are bool [n] over all rows; each method takes its own part of them."""

    def holds(self, a: Mask, b: Mask) -> bool:
        """Whether the held-out rows show a difference between the two sides of a split, and one that matters."""

    def stands_out(self, inside: Mask) -> bool:
        """Whether a leaf is above the rest in the rows it was found in."""

    def is_alike(self, inside: Mask, more: Mask, outside: Mask) -> bool:
        """Whether, in the rows in which rules are found, `more` rows stand out as those inside do."""


def _rules(tree: RuleNode, columns: Sequence[SliceColumn], search: _Search) -> list[Rule]:
    """Rules of the leaves that stand out once the splits that do not hold are undone, each as short as it can be."""
    leaves = [leaf.rule for leaf in _kept(tree, columns, search).leaves() if leaf.rule]
    high = [rule for rule in leaves if search.stands_out(rule_mask(rule, columns))]
    return list(dict.fromkeys(_shortened(rule, columns, search) for rule in high))


def _kept(node: RuleNode, columns: Sequence[SliceColumn], search: _Search) -> RuleNode:
    """The tree without the splits that held-out rows do not show, from the bottom up."""
    parts = tuple(_kept(part, columns, search) for part in node.parts)
    if not parts:
        return node
    shown = any(part.parts for part in parts) or search.holds(*(rule_mask(part.rule, columns) for part in parts))
    return RuleNode(node.rule, parts if shown else ())


def _shortened(rule: Rule, columns: Sequence[SliceColumn], search: _Search) -> Rule:
    """The rule without conditions that only cut a slice in pieces: a tree that splits first by something that plays no
    part finds the same slice once on either side of it."""
    inside = rule_mask(rule, columns)
    for condition in rule if len(rule) > 1 else ():
        shorter = tuple(c for c in rule if c is not condition)
        wider = rule_mask(shorter, columns)
        if search.is_alike(inside, wider & ~inside, ~wider):
            return _shortened(shorter, columns, search)
    return rule


def _tests(tree: RuleNode) -> int:
    """How many rules could be reported: a node's own, or a shorter one in its place."""
    return max(len(list(tree.nodes())) - 1, 1)


def _taken(columns: Sequence[SliceColumn], rows: Mask) -> list[SliceColumn]:
    return [c.taken(rows) for c in columns]


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else float("nan")
