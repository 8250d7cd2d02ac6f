"""What residuals do on days without any change: the reference's own cohorts as the measure of label scores.

Belongs here: windows of the reference's labelled requests against the rest of them, per role. Does not belong here: the
change of residuals itself (see `residuals`), dispersions and the threshold (see `calibration`).

A day's residuals resemble each other as its requests do: a group that all cancels, a price that rises for everybody.
So X² exceeds its degrees of freedom on days on which the relation to the truth is the same as ever.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import numpy.typing as npt

from xai_assets.records import WHOLE, Float64
from xai_assets.stats.calibration import Calibration, Family, calibrate_families, day_share
from xai_assets.stats.dispersion import Dispersion, ReferenceWindows
from xai_assets.stats.homogeneity import comparison_size
from xai_assets.stats.residuals import labels_of, residual_change

_CHUNK_VALUES = 1_000_000
_Stored = npt.NDArray[np.float32] | Float64


@dataclass(frozen=True)
class DailyResiduals:
    """Residual sums of one role over T successive reference cohorts; days without labels are zeros.

    Arrays [T, S, d+1, K], the last feature being `*`: n, Σ(y−p), Σ(y−p)².
    """

    label_count: _Stored
    residual_sum: _Stored
    residual_squared_sum: _Stored

    def n(self) -> Float64:
        """Labelled requests [T, S]."""
        return np.asarray(self.label_count[:, :, -1].sum(axis=-1), dtype=np.float64)

    def over(self, days: slice) -> "_Sums":
        """Sums [S, d+1, K] of several days."""
        return _Sums(*(np.asarray(a[days].sum(axis=0, dtype=np.float64)) for a in self._arrays()))

    def _arrays(self) -> tuple[_Stored, _Stored, _Stored]:
        return self.label_count, self.residual_sum, self.residual_squared_sum


@dataclass(frozen=True)
class _Sums:
    label_count: Float64
    residual_sum: Float64
    residual_squared_sum: Float64


def calibrate_labels(
    daily: Mapping[str, DailyResiduals],
    *,
    windows_days: Sequence[int],
    alarm_rate: float,
    min_labels: float,
    rng: np.random.Generator,
) -> Calibration:
    """Dispersions of residuals of all roles and windows, [S, d+1], and the one threshold over all of them.

    Parameters
    ----------
    daily
        By role, over the same T days and S segments; at least one role.
    windows_days
        Lengths of the windows.
    alarm_rate
        False alarms a day, in 0…1.
    min_labels
        Windows with fewer labels do not count.
    rng
        For the bootstrap.

    Notes
    -----
    As those of `stats.calibration.calibrate`. The rows of `*`, with their one degree of freedom, vary far more than
    those of features: each kind is pooled with its like.
    """
    n = next(iter(daily.values())).n()
    families: dict[str, Family] = {}
    for role, sums in daily.items():
        days, segments, features, _ = sums.label_count.shape
        for name, chosen in _kinds(role, features).items():
            judged = np.ones((segments, len(range(features)[chosen])), dtype=bool)
            families[name] = Family(days, judged, partial(residual_windows, sums, min_labels=min_labels, only=chosen))
    found = calibrate_families(families, n, windows_days, alarm_rate=alarm_rate, rng=rng)
    joined = {
        (role, window): _joined([found.dispersions[name, window] for name in _kinds(role, 2)])
        for role in daily
        for window in windows_days
        if (role, window) in found.dispersions
    }
    return Calibration(joined, found.threshold, found.day_share_reference, found.reference_days, found.maxima)


def _kinds(role: str, features: int) -> dict[str, slice]:
    """Families of one role: its features, and `*`, the last."""
    return {role: slice(0, features - 1), f"{role} {WHOLE}": slice(features - 1, features)}


def _joined(parts: Sequence[Dispersion]) -> Dispersion:
    names = [f.name for f in fields(Dispersion)]
    return Dispersion(**{name: np.concatenate([getattr(p, name) for p in parts], axis=-1) for name in names})


def residual_windows(
    daily: DailyResiduals, window_days: int, min_labels: float, only: slice = slice(None)
) -> ReferenceWindows:
    """Every window of `window_days` within the reference against the rest of it; arrays [T − window_days + 1, S, d+1].

    only: which of the d+1 features to keep.
    """
    n, total = daily.n(), daily.over(slice(None))
    windows = len(n) - window_days + 1
    step = max(1, _CHUNK_VALUES // max(total.label_count.size, 1))
    parts = []
    for start in range(0, windows, step):
        ends = range(start, min(start + step, windows))
        now = _stacked([daily.over(slice(i, i + window_days)) for i in ends])
        rest = _Sums(
            total.label_count - now.label_count,
            total.residual_sum - now.residual_sum,
            np.maximum(total.residual_squared_sum - now.residual_squared_sum, 0.0),
        )
        change = residual_change(rest, now)
        own = np.stack([day_share(n[i : i + window_days]) for i in ends])
        others = np.stack([day_share(np.delete(n, np.s_[i : i + window_days], axis=0)) for i in ends])
        labels, labels_of_rest = labels_of(now), labels_of(rest)
        size = comparison_size(labels, labels_of_rest, own, others)[..., None]
        enough = ((labels >= min_labels) & (labels_of_rest >= min_labels))[..., None]
        valid = enough & (change.freedom >= 1) & np.isfinite(change.statistic)
        ratio = change.statistic / np.maximum(change.freedom, 1.0)
        parts.append([np.broadcast_to(a, ratio.shape)[..., only] for a in (ratio, change.freedom, size, valid)])
    ratio, freedom, size, valid = (np.concatenate([p[k] for p in parts]) for k in range(4))
    return ReferenceWindows(ratio, freedom, size, valid.astype(bool), window_days)


def _stacked(sums: Sequence[_Sums]) -> _Sums:
    return _Sums(*(np.stack([getattr(s, f.name) for s in sums]) for f in fields(_Sums)))
