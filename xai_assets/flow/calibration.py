"""The calibration of a monitor: made from the stored histograms of its reference days, stored, loaded.

Belongs here: which days and roles go in, the rows of `drift_calibration`. Does not belong here: the statistics (see
`stats.calibration`), grading a score (see `decide.severity`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import date, timedelta

import numpy as np
import polars as pl

from xai_assets.config import DriftConfig
from xai_assets.decide.severity import JUDGED_POPULATION
from xai_assets.errors import ProvenanceError
from xai_assets.flow.histograms import Profile, day_blocks
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import load_day_blocks, load_profile
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.tables import DRIFT_CALIBRATION
from xai_assets.records import MODEL_ROLES, ROLES, VALUE_ROLES, Float64, HistogramBlock
from xai_assets.stats.calibration import Calibration, DailyCounts, calibrate
from xai_assets.stats.dispersion import Dispersion
from xai_assets.stats.threshold import Threshold

TABLE = "drift_calibration"
SEED = 20_240_101
_ARRAYS = ("factor", "standard_error", "size", "freedom_window", "freedom_reference")


def calibrate_days(
    daily: Mapping[date, Blocks] | Iterable[tuple[date, Blocks]],
    profile: Profile,
    drift: DriftConfig,
    *,
    alarm_rate: float | None = None,
) -> Calibration:
    """Calibrate on the reference days' histograms, given over the cells and segments of `profile`, in any order.

    alarm_rate: false alarms a day that these scores may raise; None: the whole of `drift.alarm_budget`.
    Days between the first and the last that are not given count as days without requests. Memory is at its
    peak two to four times the judged population's weights, which are 4 bytes per day × role × segment × feature × cell.
    """
    items = daily.items() if isinstance(daily, Mapping) else daily
    days, counts = _gather(items, profile, drift)
    budget = drift.alarm_budget
    weekdays = np.array([d.weekday() for d in days], dtype=np.int64) if drift.match_weekday else None
    return calibrate(
        counts,
        windows_days=drift.windows_days,
        alarm_rate=budget.alarms / budget.per_days if alarm_rate is None else alarm_rate,
        min_effective_rows=drift.min_effective_rows,
        rng=np.random.default_rng(SEED),
        weekdays=weekdays,
    )


def _gather(
    items: Iterable[tuple[date, Blocks]], profile: Profile, drift: DriftConfig
) -> tuple[list[date], dict[str, DailyCounts]]:
    """Per role the weights of every day from the first to the last."""
    taken: dict[date, dict[str, tuple[np.ndarray, Float64, Float64]]] = {}
    for day, blocks in items:
        taken[day] = {role: _of_day(blocks[role, JUDGED_POPULATION]) for role in ROLES}
    if not taken:
        return [], {}
    first = min(taken)
    days = [first + timedelta(days=i) for i in range((max(taken) - first).days + 1)]
    judged = _judged(profile, drift)
    return days, {role: _counts(role, days, taken, judged[role]) for role in ROLES}


def _of_day(block: HistogramBlock) -> tuple[np.ndarray, Float64, Float64]:
    weight = block.weight.astype(np.float32)
    if not block.features:
        return weight, np.zeros(len(block.segments)), np.zeros(len(block.segments))
    return weight, block.weight[:, 0].sum(axis=1), block.weight_squared[:, 0].sum(axis=1)


def _counts(
    role: str,
    days: list[date],
    taken: Mapping[date, Mapping[str, tuple[np.ndarray, Float64, Float64]]],
    judged: np.ndarray,
) -> DailyCounts:
    shape = next(iter(taken.values()))[role][0].shape
    weight = np.zeros((len(days), *shape), dtype=np.float32)
    total, squares = np.zeros((len(days), shape[0])), np.zeros((len(days), shape[0]))
    for i, day in enumerate(days):
        if day in taken:
            weight[i], total[i], squares[i] = taken[day][role]
    return DailyCounts(weight, total, squares, judged)


def _judged(profile: Profile, drift: DriftConfig) -> dict[str, np.ndarray]:
    """Hypotheses that can raise an alarm, bool [S, d] by role: features that carry weight in the reference."""
    shares = {r: _importance_share(profile.blocks[r, JUDGED_POPULATION]) for r in ROLES if r not in VALUE_ROLES}
    shares["input"] = np.fmax(*(shares[r] for r in MODEL_ROLES))
    everything = {r: np.ones(profile.blocks[r, JUDGED_POPULATION].abs_sum.shape, dtype=bool) for r in ROLES}
    return everything | {r: share >= drift.min_importance_share for r, share in shares.items()}


def _importance_share(block: HistogramBlock) -> Float64:
    total = block.abs_sum.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(block.abs_sum, total, out=np.zeros_like(block.abs_sum), where=total > 0))


@dataclass(frozen=True)
class CalibrationState:
    """Where the calibration stands; `provenance` is None while reference days are still to come."""

    provenance: str | None
    sentence: str
    threshold: float = float("nan")
    rule: str = ""
    reference_days: int = 0


def ensure_calibration(monitor: Monitor, *, force: bool = False) -> CalibrationState:
    """Calibrate where it is due: the reference profile and the histograms of all its days are there.

    Due: no calibration of the present reference and drift configuration is stored, or `force`.
    """
    provenance = Provenance(monitor)
    identity = provenance.calibration_identity()
    if identity is None:
        return CalibrationState(None, "waiting for the reference profile")
    if provenance.footer("drift_calibration", None).get("provenance") == identity and not force:
        return calibration_state(identity, load_calibration(monitor), "kept")
    profile, days = load_profile(monitor), profile_days(monitor)
    kept = [d for d in days if provenance.comparable("attribution_histograms", d) is not None]
    fresh = [d for d in days if d not in kept and not provenance.is_refused(d)]
    waiting = [d for d in fresh if any(not provenance.stored(f"{r}_attributions", d) for r in MODEL_ROLES)]
    if waiting:
        text = f"waiting for the histograms of {len(waiting)} of {len(days)} reference days, the first is {waiting[0]}"
        return CalibrationState(None, text)
    held, rate = _days_of(monitor, kept, fresh, profile), monitor.config.alarm_rate_per_family
    calibration = calibrate_days(held, profile, monitor.config.drift, alarm_rate=rate)
    write_calibration(monitor, TABLE, calibration, axes_of(profile), identity)
    return calibration_state(identity, calibration, "made")


def profile_days(monitor: Monitor) -> list[date]:
    """The days the stored reference profile was made from."""
    footer = monitor.lake.metadata("reference_profile", monitor.name)
    return [date.fromisoformat(d) for d in json.loads(footer["days"])]


def stored_days(monitor: Monitor, days: Iterable[date], profile: Profile) -> Iterator[tuple[date, Blocks]]:
    """Stored histograms of the judged population, one day at a time."""
    for day in days:
        blocks = load_day_blocks(monitor, day, profile)
        yield day, {key: block for key, block in blocks.items() if key[1] == JUDGED_POPULATION}


def _days_of(
    monitor: Monitor, kept: Iterable[date], fresh: Iterable[date], profile: Profile
) -> Iterator[tuple[date, Blocks]]:
    """Stored histograms of the reference days, and those that a later run is going to store, counted now."""
    yield from stored_days(monitor, kept, profile)
    for day in fresh:
        yield day, day_blocks(monitor, day, profile.segments, profile.edges)


def calibration_state(identity: str, calibration: Calibration, verb: str) -> CalibrationState:
    """What is stored now, as a sentence."""
    threshold = calibration.threshold
    how = {
        "westfall_young": f"alarms from evidence {_limits(threshold)} (Westfall–Young over {threshold.days} days)",
        "benjamini_hochberg": "few reference days, or few with enough requests: F evidence and Benjamini–Hochberg",
        "unknown": "nothing can be judged: two reference days with enough requests are needed",
    }[threshold.rule]
    sentence = f"{verb} from {calibration.reference_days} reference days: {how}"
    return CalibrationState(identity, sentence, threshold.value, threshold.rule, calibration.reference_days)


def _limits(threshold: Threshold) -> str:
    return ", ".join(f"{u:.2f} in {days} day{'s' if days > 1 else ''}" for days, u in threshold.by_window)


@dataclass(frozen=True)
class Axes:
    """What the arrays of a calibration are over: segments, and each role's features."""

    profile_hash: str
    segments: tuple[str, ...]
    features: Mapping[str, tuple[str, ...]]


def axes_of(profile: Profile) -> Axes:
    """Those of drift scores."""
    features = {role: tuple(e.feature for e in profile.edges[role]) for role in ROLES}
    return Axes(profile.profile_hash, tuple(profile.segments), features)


def write_calibration(monitor: Monitor, table: str, calibration: Calibration, axes: Axes, provenance: str) -> None:
    """Store a calibration whole in the one partition of `table`; its footer holds the threshold."""
    parts = [pl.DataFrame(schema=DRIFT_CALIBRATION.schema)]
    for (role, window), found in calibration.dispersions.items():
        features = list(axes.features[role])
        frame = pl.DataFrame(
            {
                "role": [role] * found.factor.size,
                "segment": np.repeat(np.array(axes.segments, dtype=object), len(features)).tolist(),
                "feature": features * len(axes.segments),
                "window_days": [window] * found.factor.size,
                **{name: getattr(found, name).reshape(-1) for name in _ARRAYS},
            }
        )
        parts.append(frame.select(pl.col(c).cast(t) for c, t in DRIFT_CALIBRATION.schema.items()))
    metadata = {
        "provenance": provenance,
        "profile_hash": axes.profile_hash,
        "calibration_hash": calibration_hash(calibration),
        "threshold": json.dumps(asdict(calibration.threshold)),
        "day_share_reference": json.dumps(calibration.day_share_reference.tolist()),
        "reference_days": str(calibration.reference_days),
        "maxima": json.dumps(calibration.maxima.tolist()),
    }
    monitor.lake.write(table, monitor.name, None, pl.concat(parts), metadata)


def load_calibration(monitor: Monitor, profile: Profile | None = None) -> Calibration:
    """The stored calibration.

    Raises LakeError where there is none, ProvenanceError (with both hashes) where it belongs to another reference.
    """
    return read_calibration(monitor, TABLE, axes_of(load_profile(monitor) if profile is None else profile))


def read_calibration(monitor: Monitor, table: str, axes: Axes) -> Calibration:
    """The calibration in `table`. Raises as `load_calibration`."""
    footer = monitor.lake.metadata(table, monitor.name)
    if footer["profile_hash"] != axes.profile_hash:
        raise ProvenanceError(
            f"the calibration of '{monitor.name}' belongs to another reference",
            expected=axes.profile_hash,
            found=footer["profile_hash"],
            next_step=f"materialize {monitor.name}/{table} again",
        )
    frame = monitor.lake.read(table, monitor.name)
    shape = {role: (len(axes.segments), len(names)) for role, names in axes.features.items()}
    dispersions = {
        (str(role), int(window)): Dispersion(**{n: rows[n].to_numpy().reshape(shape[str(role)]) for n in _ARRAYS})
        for (role, window), rows in frame.partition_by("role", "window_days", as_dict=True, maintain_order=True).items()
    }
    return Calibration(
        dispersions=dispersions,
        threshold=_parsed(footer["threshold"]),
        day_share_reference=np.array(json.loads(footer["day_share_reference"]), dtype=np.float64),
        reference_days=int(footer["reference_days"]),
        maxima=np.array(json.loads(footer["maxima"]), dtype=np.float64),
    )


def _parsed(text: str) -> Threshold:
    found = Threshold(**json.loads(text))
    return replace(found, by_window=tuple((int(w), float(u)) for w, u in found.by_window))


def calibration_hash(calibration: Calibration) -> str:
    """Identity of what a score was held against, 16 hex digits."""
    digest = hashlib.sha256(json.dumps(asdict(calibration.threshold)).encode())
    digest.update(np.ascontiguousarray(calibration.day_share_reference).tobytes())
    for key, found in sorted(calibration.dispersions.items()):
        digest.update(repr(key).encode())
        for name in _ARRAYS:
            digest.update(np.ascontiguousarray(getattr(found, name)).tobytes())
    return digest.hexdigest()[:16]
