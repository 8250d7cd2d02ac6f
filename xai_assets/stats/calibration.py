"""The reference days as the measure of what is normal: dispersions and the alarm threshold of one monitor.

Belongs here: comparing windows of the reference with the rest of it, role by role. Does not belong here: X² (see
`homogeneity`), dispersion and evidence (see `dispersion`), the threshold (see `threshold`), scores (see `scores`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from xai_assets.records import Float64
from xai_assets.stats.dispersion import (
    Dispersion,
    ReferenceWindows,
    dispersion,
    evidence,
    extrapolated,
    left_out_dispersion,
)
from xai_assets.stats.homogeneity import comparison_size, homogeneity
from xai_assets.stats.threshold import MIN_REFERENCE_DAYS, Threshold, westfall_young

_CHUNK_VALUES = 4_000_000


@dataclass(frozen=True)
class DailyCounts:
    """Histograms of one role over T successive reference days; days without requests are zeros.

    weight: Σw, float [T, S, d, K]; n: effective requests [T, S]; total, squares: Σw and Σw² [T, S], from which n of
    several days follows. judged: hypotheses that can raise an alarm, bool [S, d].
    """

    weight: npt.NDArray[np.float32]
    total: Float64
    squares: Float64
    judged: npt.NDArray[np.bool_]

    def n(self) -> Float64:
        return _effective(self.total, self.squares)


@dataclass(frozen=True)
class Family:
    """Hypotheses of one kind, to be calibrated over `days` successive reference days.

    judged: hypotheses that can raise an alarm, bool [S, d]; windows: by length in days, every window of that length
    within the reference against the rest of it, arrays [days − length + 1, S, d].
    """

    days: int
    judged: npt.NDArray[np.bool_]
    windows: Callable[[int], ReferenceWindows]


@dataclass(frozen=True)
class Calibration:
    """What a monitor's scores are held against.

    dispersions: by (role or family, window in days), arrays [S, d] in the order of the reference's segments and the
    role's features; day_share_reference: Σ n_t²/(Σ n_t)² of the reference's days per segment, [S]; reference_days: days
    with requests; maxima: largest evidence of each reference day.
    """

    dispersions: Mapping[tuple[str, int], Dispersion]
    threshold: Threshold
    day_share_reference: Float64
    reference_days: int
    maxima: Float64


def calibrate(
    counts: Mapping[str, DailyCounts],
    *,
    windows_days: Sequence[int],
    alarm_rate: float,
    min_effective_rows: float,
    rng: np.random.Generator,
    weekdays: npt.NDArray[np.int64] | None = None,
) -> Calibration:
    """Dispersions of all roles and windows, and the one threshold over all of them.

    Parameters
    ----------
    counts
        Daily histograms by role, over the same T days and S segments.
    windows_days
        Lengths of the windows.
    alarm_rate
        False alarms a day, in 0…1.
    min_effective_rows
        Windows with fewer effective requests do not count.
    rng
        For the bootstrap.
    weekdays
        Weekday of each day [T], where windows of less than a week are compared with the same weekdays only.

    Notes
    -----
    A window is measured where the reference holds windows worth two of it; longer ones are extrapolated, from a length
    in between too where only one is measured. With fewer than
    `MIN_REFERENCE_DAYS` the threshold is found anew each day (Benjamini–Hochberg); with one there is none.
    """
    measure = partial(reference_windows, min_effective_rows=min_effective_rows, weekdays=weekdays)
    families = {role: Family(len(d.weight), d.judged, partial(measure, d)) for role, d in counts.items()}
    n = next(iter(counts.values())).n() if counts else np.empty((0, 0))
    return calibrate_families(families, n, windows_days, alarm_rate=alarm_rate, rng=rng)


def calibrate_families(
    families: Mapping[str, Family],
    n: Float64,
    windows_days: Sequence[int],
    *,
    alarm_rate: float,
    rng: np.random.Generator,
) -> Calibration:
    """Dispersions of all families and windows, and the one threshold over all of them.

    Parameters
    ----------
    families
        By name, over the same T days; they share one threshold.
    n
        Effective requests (or labels) of each day, [T, S]; 0 on a day without any.
    windows_days
        Lengths of the windows.
    alarm_rate
        False alarms a day, in 0…1.
    rng
        For the bootstrap.

    Notes
    -----
    As those of `calibrate`.
    """
    found: dict[tuple[str, int], Dispersion] = {}
    maxima: dict[int, list[Float64]] = {}
    for name, family in families.items():
        measured: dict[int, Dispersion] = {}
        for window in (w for w in sorted(windows_days) if _fits(w, family.days)):
            windows = family.windows(window)
            measured[window] = _completed(dispersion(windows))
            largest = _largest(windows, family.judged)
            maxima.setdefault(window, []).append(np.concatenate((np.full(window - 1, np.nan), largest)))
        found |= {(name, w): d for w, d in measured.items()}
        longer = sorted(set(windows_days) - set(measured))
        if measured and longer:
            between = (family.days + 1) // 3
            if len(measured) == 1 and between > max(measured):
                measured[between] = _completed(dispersion(family.windows(between)))
            short, long = min(measured), max(measured)
            for window in longer:
                found[name, window] = extrapolated(measured[short], measured[long], long / short, window / long)
    days = int(np.count_nonzero(n[:, 0] > 0)) if n.size else 0
    per_window = {w: _fmax(series) for w, series in maxima.items()}
    threshold = _threshold(per_window, windows_days, alarm_rate, days, rng)
    if threshold.rule == "unknown" and any(np.isfinite(d.factor).any() for d in found.values()):
        threshold = replace(threshold, rule="benjamini_hochberg")
    per_day = _fmax(list(per_window.values()))
    return Calibration(found, threshold, day_share(n), days, per_day[np.isfinite(per_day)])


def _fits(window_days: int, reference_days: int) -> bool:
    """Whether the reference holds windows worth two: only then is there a mean and a spread."""
    return reference_days >= 3 * window_days - 1


def _threshold(
    maxima: Mapping[int, Float64], windows_days: Sequence[int], alarm_rate: float, days: int, rng: np.random.Generator
) -> Threshold:
    """One threshold per window, each with its part of the budget; a window that the reference is too short for takes
    that of the longest that it could be found for. Rule `unknown` where it could be found for none."""
    limits: list[tuple[int, float]] = []
    for window in sorted(windows_days):
        known = maxima.get(window, np.empty(0))
        known = known[np.isfinite(known)]
        if len(known) >= MIN_REFERENCE_DAYS:
            limits.append((window, westfall_young(known, alarm_rate / len(windows_days), rng, window)))
        elif limits:
            limits.append((window, limits[-1][1]))
    if not limits:
        return Threshold(float("nan"), "unknown", alarm_rate, days)
    return Threshold(limits[0][1], "westfall_young", alarm_rate, days, tuple(limits))


def reference_windows(
    daily: DailyCounts, window_days: int, min_effective_rows: float, weekdays: npt.NDArray[np.int64] | None = None
) -> ReferenceWindows:
    """Every window of `window_days` within the reference against the rest of it; arrays [T − window_days + 1, S, d]."""
    n = daily.n()
    total, squares, rows_squared = (_window_sums(a, window_days) for a in (daily.total, daily.squares, n**2))
    current_n = _effective(total, squares)
    of_rest = _rest(daily, window_days, weekdays)
    guide = daily.weight.sum(axis=0, dtype=np.float64)
    parts = []
    step = max(1, _CHUNK_VALUES // max(guide.size, 1))
    for start in range(0, len(total), step):
        ends = range(start, min(start + step, len(total)))
        current = np.stack([daily.weight[i : i + window_days].sum(axis=0, dtype=np.float64) for i in ends])
        rest = [of_rest(i) for i in ends]
        reference, m, share = (np.stack([r[k] for r in rest]) for k in range(3))
        at = slice(ends.start, ends.stop)
        x2, freedom = homogeneity(
            reference,
            current,
            n_effective_reference=m[..., None],
            n_effective=current_n[at][..., None],
            cells_from=guide,
        )
        own_share = _divide(rows_squared[at], _window_sums(n, window_days)[at] ** 2)
        size = comparison_size(current_n[at], m, own_share, share)[..., None]
        enough = (current_n[at] >= min_effective_rows) & (m >= min_effective_rows)
        valid = enough[..., None] & (freedom >= 1) & np.isfinite(x2)
        parts.append((x2 / np.maximum(freedom, 1.0), freedom, np.broadcast_to(size, x2.shape), valid))
    ratio, freedom, size, valid = (np.concatenate([p[k] for p in parts]) for k in range(4))
    return ReferenceWindows(ratio, freedom, size, valid, window_days)


_Rest = Callable[[int], tuple[Float64, Float64, Float64]]


def _rest(daily: DailyCounts, window_days: int, weekdays: npt.NDArray[np.int64] | None) -> _Rest:
    """For the window that starts on a day: the rest of the reference as weights [S, d, K], n and day share [S]."""
    n = daily.n()
    everything = np.ones(len(n), dtype=bool)
    sums = {b"": daily.weight.sum(axis=0, dtype=np.float64)}

    def of(start: int) -> tuple[Float64, Float64, Float64]:
        window = slice(start, start + window_days)
        days = everything if weekdays is None else same_weekdays(weekdays, weekdays[window])
        key = b"" if days.all() else days.tobytes()
        if key not in sums:
            sums[key] = daily.weight[days].sum(axis=0, dtype=np.float64)
        others = days.copy()
        others[window] = False
        weight = np.maximum(sums[key] - daily.weight[window].sum(axis=0, dtype=np.float64), 0.0)
        m = _effective(daily.total[others].sum(axis=0), daily.squares[others].sum(axis=0))
        return weight, m, day_share(n[others])

    return of


def same_weekdays(weekdays: npt.NDArray[np.int64], of_window: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which days have a weekday that the window has, too; all of them for a window of a week or more."""
    return np.isin(weekdays, of_window)


def _window_sums(daily: Float64, window_days: int) -> Float64:
    upto = np.concatenate((np.zeros((1, *daily.shape[1:])), np.cumsum(daily, axis=0)))
    return np.asarray(upto[window_days:] - upto[:-window_days])


def _largest(windows: ReferenceWindows, judged: npt.NDArray[np.bool_]) -> Float64:
    """Largest evidence of each window against the dispersion of the others, [T]; NaN where none can be judged."""
    u = evidence(windows.ratio, windows.freedom, windows.size, left_out_dispersion(windows))
    u = np.where(windows.valid & judged & np.isfinite(u), u, -np.inf).reshape(len(u), -1)
    largest = u.max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(largest), largest, np.nan)


def _completed(found: Dispersion) -> Dispersion:
    """Segments too small to have been measured take the dispersion of `overall`, the first, known less well."""
    arrays = {f.name: np.array(getattr(found, f.name)) for f in fields(found)}
    unknown = ~np.isfinite(arrays["factor"])
    for name, values in arrays.items():
        source = arrays["freedom_window"] if name == "freedom_reference" else values
        arrays[name] = np.where(unknown, source[:1], values)
    return Dispersion(**arrays)


def day_share(n: Float64) -> Float64:
    """κ = Σ n_t²/(Σ n_t)² over the days of axis 0; 0 where there is nothing."""
    return _divide((n**2).sum(axis=0), n.sum(axis=0) ** 2)


def _effective(total: Float64, squares: Float64) -> Float64:
    return _divide(total**2, squares)


def _divide(a: Float64, b: Float64) -> Float64:
    return np.asarray(np.divide(a, b, out=np.zeros(np.shape(a)), where=b > 0))


def _fmax(series: Sequence[Float64]) -> Float64:
    return np.fmax.reduce(series) if series else np.empty(0)
