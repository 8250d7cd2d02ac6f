"""What the days of the reference themselves do: how far X² exceeds its degrees of freedom when nothing is wrong.

Belongs here: the dispersion of windows of the reference, evidence against it. Does not belong here: X² itself (see
`homogeneity`), the threshold on the evidence (see `threshold`).

Requests of one day resemble each other, so X² of a day against the others exceeds its degrees of freedom although
nothing is wrong. By how much is measured on the reference days (Rao and Scott 1981, 1984), each left out in turn, and
for windows of several days on windows of the reference, so that slow movements count as what they are. Evidence is the
tail probability of X² under an F distribution whose degrees of freedom come from how well the dispersion is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from xai_assets.records import Float64

MAX_EVIDENCE = 300.0
"""Evidence is cut here: smaller probabilities have no representation in float64."""
_Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Dispersion:
    """How much X²/f of a window without drift exceeds 1, per hypothesis. All arrays float64 [...].

    factor: ĉ ≥ 1, NaN where it could not be measured; standard_error: of ĉ; size: mean `comparison_size` at which it
    was measured; freedom_window, freedom_reference: degrees of freedom of the F distribution.
    """

    factor: Float64
    standard_error: Float64
    size: Float64
    freedom_window: Float64
    freedom_reference: Float64

    def at(self, size: Float64) -> Float64:
        """ĉ for a window of another size: where whole days differ it grows with the size; a smaller window is allowed
        that of the reference."""
        larger = np.maximum(size / self.size - 1.0, 0.0)
        return np.asarray(self.factor + (self.factor - 1.0 + self.standard_error) * larger)


@dataclass(frozen=True)
class ReferenceWindows:
    """Windows of the reference that end on successive days, each compared with the rest of it. Arrays [T, ...].

    ratio: X²/f; freedom: f; size: `comparison_size`; valid: windows that count. `days`: length of a window, so that T
    of them are worth T/days.
    """

    ratio: Float64
    freedom: Float64
    size: Float64
    valid: _Mask
    days: int


def dispersion(windows: ReferenceWindows) -> Dispersion:
    """Dispersion from the reference's own windows, [...].

    ĉ is the mean of X²/f. X² of a day moves along few directions: its degrees of freedom are 2ĉ²/s² with s² the
    variance of X²/f over the windows (Satterthwaite 1946), at most f; ĉ is known with (number of windows) times as
    many. NaN where the windows are worth less than two.
    """
    return _from_sums([s.sum(axis=0) for s in _summands(windows)], windows.days)


def left_out_dispersion(windows: ReferenceWindows) -> Dispersion:
    """The same as each window would see it, [T, ...]: from the windows that share no day with it."""
    ends = np.arange(len(windows.ratio))
    first, after = np.maximum(ends - windows.days + 1, 0), np.minimum(ends + windows.days, len(ends))
    sums = []
    for s in _summands(windows):
        upto = np.concatenate((np.zeros((1, *s.shape[1:])), np.cumsum(s, axis=0)))
        sums.append(upto[-1] - (upto[after] - upto[first]))
    return _from_sums(sums, windows.days)


def _summands(windows: ReferenceWindows) -> list[Float64]:
    """What is added up per window: 1, X²/f, its square relative to the dispersion at its size, f, size."""
    valid = windows.valid
    count = valid.sum(axis=0)
    ratio, freedom, size = (np.where(valid, a, 0.0) for a in (windows.ratio, windows.freedom, windows.size))
    mean, typical = (_divide(a.sum(axis=0), count) for a in (ratio, size))
    excess = np.maximum(mean - 1.0, 0.0)
    relative = ratio / np.nan_to_num(1.0 + excess * np.maximum(size / np.maximum(typical, 1e-300), 1.0), nan=1.0)
    return [valid.astype(np.float64), ratio, relative, relative**2, freedom, size]


def _from_sums(sums: Sequence[Float64], window_days: int) -> Dispersion:
    count = sums[0]
    worth = count / window_days
    mean, relative, square, typical, size = (_divide(s, count) for s in sums[1:])
    spread = np.maximum(square - relative**2, 0.0) * _divide(count, count - 1.0)
    # Where nothing varies at all, as the difference of two equal models, one direction is taken to.
    variation = np.nan_to_num(_pooled(_divide(spread, relative**2)), nan=2.0)
    factor = np.maximum(mean, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom_window = np.clip(2.0 / variation, 1.0, np.maximum(typical, 1.0))
    return Dispersion(
        factor=np.where(worth >= 2, factor, np.nan),
        standard_error=factor * np.sqrt(_divide(variation, worth)),
        size=size,
        freedom_window=freedom_window,
        freedom_reference=worth * freedom_window,
    )


def _pooled(variation: Float64) -> Float64:
    """s²/ĉ² of few windows is uncertain: at least the mean over all hypotheses (the last two axes)."""
    known = np.isfinite(variation)
    axes = (variation.ndim - 2, variation.ndim - 1)
    count = known.sum(axis=axes, keepdims=True)
    mean = _divide(np.where(known, variation, 0.0).sum(axis=axes, keepdims=True), count)
    return np.fmax(variation, mean)


def _divide(a: Float64, b: Float64) -> Float64:
    return np.asarray(np.divide(a, b, out=np.full(np.shape(a), np.nan), where=b > 0))


def extrapolated(shortest: Dispersion, longest: Dispersion, ratio_of_days: float, window_days: float) -> Dispersion:
    """Dispersion of windows too long to be measured on the reference, from the longest that could be.

    Parameters
    ----------
    shortest, longest
        Dispersions of the shortest and of the longest measured windows.
    ratio_of_days
        Length of the longest measured window over that of the shortest.
    window_days
        Length wanted over that of the longest measured window.

    Notes
    -----
    Where days follow each other slowly, ĉ grows with the window as a power of its length; the power is that between
    the two measured lengths, within 0…1 (independent days, one common level), and 1 where only one length could be
    measured. It is known accordingly less.
    """
    growth = np.ones_like(longest.factor)
    if ratio_of_days > 1:
        with np.errstate(invalid="ignore"):
            growth = np.clip(np.log(longest.factor / shortest.factor) / np.log(ratio_of_days), 0.0, 1.0)
    by = window_days ** np.nan_to_num(growth, nan=1.0)
    return Dispersion(
        factor=longest.factor * by,
        standard_error=longest.standard_error * by,
        size=longest.size,
        freedom_window=longest.freedom_window,
        freedom_reference=np.maximum(longest.freedom_reference / window_days, longest.freedom_window),
    )


def evidence(ratio: Float64, freedom: Float64, size: Float64, of: Dispersion) -> Float64:
    """u = −log10 of the probability that a window without drift exceeds X²/f; 0…`MAX_EVIDENCE`.

    ratio, freedom, size: X²/f, f and `comparison_size` of the window, [...]. NaN where the dispersion is not known.
    """
    freedom_window = np.minimum(of.freedom_window, np.maximum(freedom, 1.0))
    with np.errstate(invalid="ignore"):
        chance = special.fdtrc(freedom_window, of.freedom_reference, np.maximum(ratio / of.at(size), 0.0))
    return np.asarray(-np.log10(np.clip(chance, 10.0**-MAX_EVIDENCE, 1.0)))
