"""How good explanations are: stability under small changes, and faithfulness to the model.

Belongs here: what is perturbed, in which order features are removed, and the measures themselves; numbers in, numbers
out. Does not belong here: models and explainers (see `flow.service_levels`), targets (see `decide.service_levels`).

Stability: Alvarez-Melis and Jaakkola, "On the Robustness of Interpretability Methods", 2018 (arXiv:1806.08049).
Faithfulness: deletion and insertion of Petsiuk, Das and Saenko, "RISE", BMVC 2018 (arXiv:1806.07421), with features in
the place of pixels, the change of the margin in the place of the class probability, and a random order to compare with.
"""

import numpy as np
import numpy.typing as npt

from xai_assets.errors import StatisticsError
from xai_assets.records import Float32, Float64, Int64

MEASURES = {
    "coverage": ("share", "requests with a finite explanation ÷ requests"),
    "error_rate": ("share", "chosen requests without a finite explanation ÷ chosen requests"),
    "median_ms": ("ms", "time to explain one request alone, median"),
    "p95_ms": ("ms", "time to explain one request alone, 95th percentile"),
    "seconds_per_1000": ("s", "time of the explainer in the day's batches, per 1,000 requests"),
    "bytes": ("bytes", "size of the stored partition of attributions"),
    "additivity_error": ("relative", "largest |base + Σφ − margin| ÷ max(1, largest |margin|)"),
    "stability": ("cosine", "mean cosine similarity of φ between a request and its perturbed neighbours"),
    "lipschitz_median": ("margin/σ", "local Lipschitz estimate of φ in standardised units, median over requests"),
    "lipschitz_max": ("margin/σ", "local Lipschitz estimate of φ in standardised units, largest"),
    "deletion_ratio": ("ratio", "margin change while features are removed by falling |φ| ÷ in a random order"),
    "insertion_ratio": ("ratio", "margin change while features are put back by falling |φ| ÷ in a random order"),
}
"""Measures with unit and definition, in the order in which they are shown."""
NEIGHBOURS = 4
JITTER_SD = 0.05
NORMAL_IQR = 1.349
MOST_STEPS = 16
"""Points of a deletion or insertion curve: features go in groups where there are more."""


def spread(background: Float32, numeric: npt.NDArray[np.bool_]) -> Float64:
    """Scale of each numeric feature, float64 [d], NaN left out; 0 for any other feature.

    The interquartile range in units of a normal distribution's standard deviation, so that a few extreme values do not
    make a small change of the others large; the standard deviation where half of the values are equal.
    background: float32 [m, d]. numeric: bool [d].
    """
    found = np.zeros(background.shape[1])
    for j in np.flatnonzero(numeric):
        values = background[:, j].astype(np.float64)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = np.quantile(values, (0.25, 0.75))
            found[j] = (high - low) / NORMAL_IQR if high > low else values.std()
    return found


def typical(background: Float32, numeric: npt.NDArray[np.bool_]) -> Float32:
    """What stands for "feature absent", float32 [d]: the mean of numeric features, the most frequent code of others.

    NaN where the background holds nothing else. Of equally frequent codes the lowest is taken.
    """
    found = np.full(background.shape[1], np.nan, np.float32)
    for j in range(background.shape[1]):
        values = background[np.isfinite(background[:, j]), j].astype(np.float64)
        if values.size and numeric[j]:
            found[j] = values.mean()
        elif values.size:
            codes, counts = np.unique(values, return_counts=True)
            found[j] = codes[counts.argmax()]
    return found


def neighbours(X: Float32, sd: Float64, rng: np.random.Generator, count: int = NEIGHBOURS) -> Float32:
    """`count` perturbed copies of each row, float32 [n, count, d].

    Each value gets normal noise of `JITTER_SD` × its feature's standard deviation `sd` (float64 [d]); a feature with
    sd 0 (constant or not numeric) and a missing value stay as they are.
    """
    noise = rng.standard_normal((len(X), count, X.shape[1])) * (JITTER_SD * sd)
    largest = np.finfo(np.float32).max
    return np.clip(X[:, None, :] + noise, -largest, largest).astype(np.float32)


def cosine_similarity(phi: Float32, phi_near: Float32) -> Float64:
    """Cosine of the angle between each request's φ [n, d] and those of its neighbours [n, k, d]: float64 [n, k].

    1: the same reasons in the same proportions; 0: nothing in common. Two vectors of zeros are alike (1), one of
    zeros and another are not (0). A value that is not finite makes the pair NaN.
    """
    a, b = phi.astype(np.float64)[:, None, :], phi_near.astype(np.float64)
    lengths = np.linalg.norm(a, axis=2) * np.linalg.norm(b, axis=2)
    both_zero = ~a.any(axis=2) & ~b.any(axis=2)
    cosine = np.clip((a * b).sum(axis=2) / np.where(lengths == 0, 1.0, lengths), -1.0, 1.0)
    return np.where(both_zero, 1.0, cosine)


def local_lipschitz(X: Float32, X_near: Float32, phi: Float32, phi_near: Float32, sd: Float64) -> Float64:
    """max over neighbours x′ of ‖φ(x) − φ(x′)‖ / ‖x − x′‖, x in units of each feature's standard deviation.

    X, phi: [n, d]; X_near, phi_near: [n, k, d]; sd: [d]. float64 [n], margin units per standard deviation; NaN for a
    request of which no neighbour differs.
    """
    moved = (X_near.astype(np.float64) - X[:, None, :]) / np.where(sd > 0, sd, np.inf)
    distance = np.linalg.norm(np.nan_to_num(moved, nan=0.0), axis=2)
    change = np.linalg.norm(phi_near.astype(np.float64) - phi[:, None, :], axis=2)
    slope = np.full(distance.shape, -np.inf)
    np.divide(change, distance, out=slope, where=distance > 0)
    worst = slope.max(axis=1, initial=-np.inf)
    return np.where(np.isneginf(worst), np.nan, worst)


def removal_steps(features: int) -> Int64:
    """How many features are removed at each point of a curve: 0 … `features`, at most `MOST_STEPS` + 1 points.

    >>> removal_steps(3).tolist()
    [0, 1, 2, 3]
    """
    points = min(features, MOST_STEPS) + 1
    return np.unique(np.linspace(0, features, points).round().astype(np.int64))


def by_importance(phi: Float32) -> Int64:
    """Feature numbers by falling |φ| for each row, int64 [n, d]; of equal ones the first comes first."""
    return np.argsort(-np.abs(phi), axis=1, kind="stable")


def random_order(rows: int, features: int, rng: np.random.Generator) -> Int64:
    """A random order of the features for each row, int64 [rows, features]."""
    return rng.permuted(np.tile(np.arange(features), (rows, 1)), axis=1)


def exchanged(start: Float32, end: Float32, order: Int64, steps: Int64) -> Float32:
    """Rows on their way from `start` to `end`, float32 [n, steps, d]: at step s the features order[:, :s] are of `end`.

    start, end: [n, d], or [d] for the same in every row. order: int64 [n, d]. Deletion goes from a request to
    `typical`, insertion the other way.
    """
    rank = np.argsort(order, axis=1)
    changed = rank[:, None, :] < steps[None, :, None]
    wide = (np.atleast_2d(m)[:, None, :] for m in (end, start))
    return np.where(changed, *wide).astype(np.float32, copy=False)


def area(change: Float64, steps: Int64) -> float:
    """Mean area under curves of change over the share of features removed, by the trapezoid rule.

    change: float64 [n, steps], margin units. Returns margin units.
    """
    if len(steps) < 2 or len(change) == 0:
        return float("nan")
    share = steps / steps[-1]
    return float((np.diff(share) * (change[:, 1:] + change[:, :-1]) / 2).sum(axis=1).mean())


def faithfulness(margins: Float64, margins_random: Float64, steps: Int64) -> tuple[float, float]:
    """Deletion and insertion ratio: how much sooner the margin moves than in a random order of features.

    Deletion goes from the whole request to the one with every feature absent, |f(x) − f(x without the first s)|;
    insertion puts the features back, the most important first, |f(absent) − f(absent with the first s)|. Each ratio is
    the mean area under its curves over that of a random order: 1 means no better than chance, more is better.

    Parameters
    ----------
    margins, margins_random
        Margins while removing by falling |φ| and in a random order, for both directions: float64 [2, n, steps],
        0 deletion, 1 insertion, along the number of features removed or put back.
    steps
        int64 [steps], see `removal_steps`.

    Returns
    -------
    (deletion ratio, insertion ratio); NaN where the margin does not move at all.
    """
    if margins.shape != margins_random.shape or margins.shape[2:] != (len(steps),):
        raise StatisticsError(
            "curves and steps differ in shape",
            expected=f"[2, n, {len(steps)}]",
            found=f"{margins.shape}, {margins_random.shape}",
        )
    ratios = []
    for chosen, random in zip(margins, margins_random, strict=True):
        by_phi, by_chance = (area(np.abs(m - m[:, :1]), steps) for m in (chosen, random))
        ratios.append(by_phi / by_chance if by_chance > 0 else float("nan"))
    return ratios[0], ratios[1]
