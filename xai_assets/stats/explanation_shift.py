"""One number for the whole explanation: can a classifier tell a window's attributions from the reference's?

Belongs here: the cross-fitted classifier two-sample test, its weighted AUC and its permutation p-value; arrays in, a
record out. Does not belong here: which requests are compared (`flow.explanation_shift`), tables.

The test: Lopez-Paz and Oquab, "Revisiting Classifier Two-Sample Tests", ICLR 2017 (arXiv:1610.06545). On attributions:
Mougan et al., "Explanation Shift", 2023 (arXiv:2303.08081). The classifier is logistic regression, so what it sees is a
shift of means along some direction of φ; a change of φ's spread or correlation alone, which leaves every mean where it
was, is not seen. (A changed correlation of *inputs* is, wherever the model makes an interaction of them.)

Why the p-value is not taken from the cross-fitted AUC itself: each fold trains the classifiers of the others, so every
pair of folds enters that AUC twice. Permuting held-out labels as if folds were independent understates its spread by √2
(a nominal 5 % rejects 11 to 12 % of the time, measured with 1, 3 and 10 features). The p-value therefore goes through
the folds in sequence: fold k is scored by a classifier of the folds before it alone. Given these, labels of fold k are
exchangeable under the null hypothesis, and permuting them needs no classifier to be fitted again.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from xai_assets.errors import StatisticsError
from xai_assets.records import Float64

MIN_ROWS = 30
"""Fewer rows than this on a side are not compared: a fold would hold a handful of them."""
_RIDGE = 1.0
_MOST_STEPS = 50
_STEP_TOLERANCE = 1e-6
_CHUNK_VALUES = 1_000_000
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ExplanationShift:
    """How well a window's attributions are told from the reference's.

    auc: probability that a request of the window scores above one of the reference, 0–1; 0.5 where nothing differs.
    p_value: one-sided (AUC above ½), 1/(permutations + 1) … 1; NaN without permutations. It takes requests as
    independent of one another; those of one day are not, so it is over-confident and must not decide alone.
    coefficients: of the logistic regression by feature, log-odds per standard deviation of φ, mean over the folds; 0
    for a constant column. rows_reference, rows_current: compared; rows_left_out: with NaN or inf, of both sides.
    """

    auc: float
    p_value: float
    features: tuple[str, ...]
    coefficients: tuple[float, ...]
    rows_reference: int
    rows_current: int
    rows_left_out: int

    @property
    def ranked(self) -> tuple[tuple[str, float], ...]:
        """(feature, coefficient), the largest absolute coefficient first; ties in the order of the features."""
        pairs = zip(self.features, self.coefficients, strict=True)
        return tuple(sorted(pairs, key=lambda pair: -abs(pair[1])))


def explanation_shift(
    reference: npt.ArrayLike,
    current: npt.ArrayLike,
    features: tuple[str, ...],
    *,
    folds: int = 5,
    permutations: int = 199,
    rng: np.random.Generator,
    reference_weights: npt.ArrayLike | None = None,
    current_weights: npt.ArrayLike | None = None,
) -> ExplanationShift:
    """Cross-fitted classifier two-sample test of attributions.

    Parameters
    ----------
    reference, current
        Attributions [m, d] and [n, d], any unit; at least `MIN_ROWS` finite rows each.
    features
        Names of the d columns.
    folds
        Parts of the rows, stratified by side; at least 3 where there are permutations, else 2.
    permutations
        Permuted labelings behind the p-value; 0 for none (p_value is NaN).
    rng
        Draws folds and permutations. The order of rows does not matter; the same state gives the same result.
    reference_weights, current_weights
        Requests that each row stands for (1/π), positive; [m] and [n]. Each side is scaled to mean 1. The p-value is
        exact where both sides' weights are distributed alike, else approximate.

    Raises
    ------
    StatisticsError
        Shapes, weights, folds or permutations are not as above, or a side has too few finite rows.
    """
    _check_plan(folds, permutations)
    sides = [
        _side("reference", reference, reference_weights, len(features)),
        _side("current", current, current_weights, len(features)),
    ]
    X = np.concatenate([values for values, _, _ in sides])
    w = np.concatenate([weights for _, weights, _ in sides])
    y = np.repeat([False, True], [len(values) for values, _, _ in sides])
    Z, used = _standardised(X, w)
    fold = _assign(y, folds, rng)
    betas, aucs = [], []
    for k in range(folds):
        beta = fit_logistic(Z[fold != k], y[fold != k], w[fold != k])
        betas.append(beta[1:])
        aucs.append(weighted_auc(Z[fold == k] @ beta[1:], y[fold == k], w[fold == k]))
    coefficients = np.zeros(len(features))
    coefficients[used] = np.mean(betas, axis=0)
    return ExplanationShift(
        auc=float(np.mean(aucs)),
        p_value=_sequential_p(Z, y, w, fold, permutations, rng) if permutations else float("nan"),
        features=tuple(features),
        coefficients=tuple(coefficients.tolist()),
        rows_reference=len(sides[0][0]),
        rows_current=len(sides[1][0]),
        rows_left_out=sides[0][2] + sides[1][2],
    )


def weighted_auc(scores: Float64, is_current: Bool, weights: Float64) -> float:
    """Weighted share of pairs in which the current row scores above the reference row, ties half: 0–1.

    scores, is_current, weights: [n]; both sides present.

    >>> weighted_auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True]), np.ones(4))
    0.875
    """
    return float(_aucs(is_current[None, :], _weight_below(scores, weights), weights)[0])


def fit_logistic(X: Float64, y: Bool, weights: Float64) -> Float64:
    """Weighted logistic regression with an L2 penalty ½‖β‖² on all but the intercept, float64 [d + 1], intercept first.

    Newton's method with halved steps on Σ w log-loss + ½‖β‖², strictly convex: the minimum that scikit-learn's
    `LogisticRegression(C=1)` has, in a third of its time and without importing it.
    X: [n, d] standardised; y: [n]; weights: [n].
    """
    A = np.column_stack([np.ones(len(X)), X])
    penalty = np.r_[0.0, np.full(X.shape[1], _RIDGE)]
    # the intercept's curvature vanishes where every row is far from the border; this keeps the step defined
    ridge = np.diag(np.r_[1e-9 * weights.sum(), penalty[1:]])
    beta, margin = np.zeros(A.shape[1]), np.zeros(len(X))
    loss = _loss(margin, beta, y, weights, penalty)
    for _ in range(_MOST_STEPS):
        p = expit(margin)
        gradient = A.T @ (weights * (p - y)) + penalty * beta
        hessian = A.T @ (A * (weights * p * (1 - p))[:, None]) + ridge
        step = np.linalg.solve(hessian, gradient)
        towards, t = A @ step, 1.0
        while (after := _loss(margin - t * towards, beta - t * step, y, weights, penalty)) > loss and t > 1e-6:
            t /= 2
        beta, margin, loss = beta - t * step, margin - t * towards, after
        if np.abs(step).max() < _STEP_TOLERANCE:
            break
    return beta


def _loss(margin: Float64, beta: Float64, y: Bool, weights: Float64, penalty: Float64) -> float:
    return float(weights @ (np.logaddexp(0.0, margin) - y * margin) + 0.5 * (penalty * beta) @ beta)


def _check_plan(folds: int, permutations: int) -> None:
    least = 3 if permutations else 2
    if not least <= folds <= MIN_ROWS // 2 or permutations < 0:
        raise StatisticsError(
            "the plan of an explanation shift test does not work",
            expected=f"{least} to {MIN_ROWS // 2} folds and no negative number of permutations",
            found=f"{folds} folds, {permutations} permutations",
        )


def _side(name: str, values: npt.ArrayLike, weights: npt.ArrayLike | None, d: int) -> tuple[Float64, Float64, int]:
    """One side's finite rows in an order of their own, their weights scaled to mean 1, and how many were left out."""
    X = np.asarray(values, dtype=np.float64)
    w = np.ones(len(X)) if weights is None else np.asarray(weights, dtype=np.float64)
    if X.ndim != 2 or X.shape[1] != d or d == 0 or w.shape != (len(X),):
        raise StatisticsError(
            f"attributions of the {name} do not fit",
            expected=f"[rows, {d}] with at least one feature, and a weight per row",
            found=f"{X.shape}, weights {w.shape}",
        )
    if not (np.isfinite(w) & (w > 0)).all():
        raise StatisticsError(f"weights of the {name} must be positive and finite")
    finite = np.isfinite(X).all(axis=1)
    X, w, left_out = X[finite], w[finite], int(np.count_nonzero(~finite))
    if len(X) < MIN_ROWS:
        raise StatisticsError(
            f"too few rows of the {name} to tell two samples apart",
            expected=f"at least {MIN_ROWS} with finite attributions",
            found=f"{len(X)}, and {left_out} that are not finite",
        )
    order = _canonical_order(np.column_stack([X, w]))
    return X[order], (w / w.mean())[order], left_out


def _canonical_order(rows: Float64) -> npt.NDArray[np.intp]:
    """Positions that sort rows by their bytes: whatever order they came in, they leave in the same one."""
    rows = np.ascontiguousarray(rows)
    return rows.view(np.dtype((np.void, rows.shape[1] * rows.itemsize))).ravel().argsort(kind="stable")


def _standardised(X: Float64, w: Float64) -> tuple[Float64, Bool]:
    """Columns that vary, with weighted mean 0 and standard deviation 1 over both sides; which columns these are.

    Sides are not told apart here, so it gives nothing of the labels away.
    """
    varies = np.ptp(X, axis=0) > 0
    Z = X[:, varies]
    Z = Z / np.abs(Z).max(axis=0)  # squares of what float32 can hold are fine, but of float64 they need not be
    Z = Z - np.average(Z, axis=0, weights=w)
    sd = np.sqrt(np.average(Z**2, axis=0, weights=w))
    return Z / sd, varies


def _assign(y: Bool, folds: int, rng: np.random.Generator) -> npt.NDArray[np.intp]:
    """Fold of each row, 0 … folds − 1, each side spread evenly over the folds."""
    fold = np.empty(len(y), dtype=np.intp)
    for side in (False, True):
        rows = np.flatnonzero(y == side)
        fold[rng.permutation(rows)] = np.arange(len(rows)) % folds
    return fold


def _sequential_p(
    Z: Float64, y: Bool, w: Float64, fold: npt.NDArray[np.intp], permutations: int, rng: np.random.Generator
) -> float:
    """(1 + permuted statistics that reach the observed one) ÷ (1 + permutations).

    Statistic: Σ over k ≥ 1 of √k (AUC of fold k under the classifier of folds 0 … k−1). Of a small shift the fold's AUC
    over ½ grows with √k, the rows it was trained on, so these weights give every pair of folds the same say.
    """
    observed, permuted = 0.0, np.zeros(permutations)
    for k in range(1, int(fold.max()) + 1):
        earlier, own = fold < k, fold == k
        scores = Z[own] @ fit_logistic(Z[earlier], y[earlier], w[earlier])[1:]
        observed += np.sqrt(k) * weighted_auc(scores, y[own], w[own])
        permuted += np.sqrt(k) * _permuted_aucs(scores, y[own], w[own], permutations, rng)
    # sums over the same pairs in another order differ in the last digits
    reached = np.count_nonzero(permuted >= observed - 1e-9)
    return float((1 + reached) / (1 + permutations))


def _permuted_aucs(scores: Float64, y: Bool, w: Float64, permutations: int, rng: np.random.Generator) -> Float64:
    """AUCs under permuted labels, float64 [permutations]; memory is bounded."""
    below = _weight_below(scores, w)
    size = max(1, _CHUNK_VALUES // len(y))
    parts = []
    for first in range(0, permutations, size):
        count = min(size, permutations - first)
        parts.append(_aucs(rng.permuted(np.tile(y, (count, 1)), axis=1), below, w))
    return np.concatenate(parts)


def _weight_below(scores: Float64, weights: Float64) -> Float64:
    """Weight of the rows that score below each row, of its ties (itself too) half: float64 [n]."""
    _, rank = np.unique(scores, return_inverse=True)
    at_rank = np.bincount(rank, weights)
    return np.asarray((np.cumsum(at_rank) - 0.5 * at_rank)[rank])


def _aucs(labels: Bool, below: Float64, weights: Float64) -> Float64:
    """Weighted AUC of the same scores under several labelings [p, n]: float64 [p].

    Current rows win over everything below them, less what they win over each other: of every pair one wins or both
    half, and each half over itself, together ½ (Σ w)² of the current rows. So no labeling has to be sorted.
    """
    sums = labels.astype(np.float64) @ np.column_stack([weights * below, weights])
    wins, current = sums[:, 0] - 0.5 * sums[:, 1] ** 2, sums[:, 1]
    return np.asarray(wins / (current * (weights.sum() - current)))
