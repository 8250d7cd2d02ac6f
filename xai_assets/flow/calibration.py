"""The calibration of a monitor: made from the stored histograms of its reference days, stored, loaded.

Belongs here: which days and roles go in, the rows of `drift_calibration`. Does not belong here: the statistics (see
`stats.calibration`), grading a score (see `decide.severity`).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta

import numpy as np
import polars as pl

from xai_assets.config import DriftConfig
from xai_assets.decide.severity import JUDGED_POPULATION
from xai_assets.errors import ProvenanceError
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import load_day_blocks, load_profile
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.tables import DRIFT_CALIBRATION
from xai_assets.records import MODEL_ROLES, ROLES, VALUE_ROLES, Float64, HistogramBlock
from xai_assets.stats.calibration import Calibration, DailyCounts, calibrate
from xai_assets.stats.dispersion import Dispersion
from xai_assets.stats.threshold import Threshold

SEED = 20_240_101
_ARRAYS = ("factor", "standard_error", "size", "freedom_window", "freedom_reference")


def calibrate_days(
    daily: Mapping[date, Blocks] | Iterable[tuple[date, Blocks]], profile: Profile, drift: DriftConfig
) -> Calibration:
    """Calibrate on the reference days' histograms, given over the cells and segments of `profile`, in any order.

    Days between the first and the last that are not given count as days without requests. Memory is that of the
    judged population's weights, 4 bytes per day × role × segment × feature × cell.
    """
    items = daily.items() if isinstance(daily, Mapping) else daily
    days, counts = _gather(items, profile, drift)
    budget = drift.alarm_budget
    weekdays = np.array([d.weekday() for d in days], dtype=np.int64) if drift.match_weekday else None
    return calibrate(
        counts,
        windows_days=drift.windows_days,
        alarm_rate=budget.alarms / budget.per_days,
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
        return _state(identity, load_calibration(monitor), "kept")
    profile, days = load_profile(monitor), profile_days(monitor)
    waiting = [d for d in days if provenance.comparable("attribution_histograms", d) is None]
    if waiting:
        text = f"waiting for the histograms of {len(waiting)} of {len(days)} reference days, the first is {waiting[0]}"
        return CalibrationState(None, text)
    calibration = calibrate_days(stored_days(monitor, days, profile), profile, monitor.config.drift)
    write_calibration(monitor, calibration, profile, identity)
    return _state(identity, calibration, "made")


def profile_days(monitor: Monitor) -> list[date]:
    """The days the stored reference profile was made from."""
    footer = monitor.lake.metadata("reference_profile", monitor.name)
    return [date.fromisoformat(d) for d in json.loads(footer["days"])]


def stored_days(monitor: Monitor, days: Iterable[date], profile: Profile) -> Iterator[tuple[date, Blocks]]:
    """Stored histograms of the judged population, one day at a time."""
    for day in days:
        blocks = load_day_blocks(monitor, day, profile)
        yield day, {key: block for key, block in blocks.items() if key[1] == JUDGED_POPULATION}


def _state(identity: str, calibration: Calibration, verb: str) -> CalibrationState:
    threshold = calibration.threshold
    how = {
        "westfall_young": f"alarms from evidence {threshold.value:.2f} (Westfall–Young over {threshold.days} days)",
        "benjamini_hochberg": "few reference days: alarms by F evidence and Benjamini–Hochberg",
        "unknown": "one reference day: nothing can be judged",
    }[threshold.rule]
    sentence = f"{verb} from {calibration.reference_days} reference days: {how}"
    return CalibrationState(identity, sentence, threshold.value, threshold.rule, calibration.reference_days)


def write_calibration(monitor: Monitor, calibration: Calibration, profile: Profile, provenance: str) -> None:
    """Store the calibration whole in one partition; its footer holds the threshold."""
    parts = [pl.DataFrame(schema=DRIFT_CALIBRATION.schema)]
    for (role, window), found in calibration.dispersions.items():
        features = [e.feature for e in profile.edges[role]]
        frame = pl.DataFrame(
            {
                "role": [role] * found.factor.size,
                "segment": np.repeat(np.array(profile.segments, dtype=object), len(features)).tolist(),
                "feature": features * len(profile.segments),
                "window_days": [window] * found.factor.size,
                **{name: getattr(found, name).reshape(-1) for name in _ARRAYS},
            }
        )
        parts.append(frame.select(pl.col(c).cast(t) for c, t in DRIFT_CALIBRATION.schema.items()))
    metadata = {
        "provenance": provenance,
        "profile_hash": profile.profile_hash,
        "calibration_hash": calibration_hash(calibration),
        "threshold": json.dumps(asdict(calibration.threshold)),
        "day_share_reference": json.dumps(calibration.day_share_reference.tolist()),
        "reference_days": str(calibration.reference_days),
        "maxima": json.dumps(calibration.maxima.tolist()),
    }
    monitor.lake.write("drift_calibration", monitor.name, None, pl.concat(parts), metadata)


def load_calibration(monitor: Monitor, profile: Profile | None = None) -> Calibration:
    """The stored calibration.

    Raises LakeError where there is none, ProvenanceError (with both hashes) where it belongs to another reference.
    """
    profile = load_profile(monitor) if profile is None else profile
    footer = monitor.lake.metadata("drift_calibration", monitor.name)
    if footer["profile_hash"] != profile.profile_hash:
        raise ProvenanceError(
            f"the calibration of '{monitor.name}' belongs to another reference",
            expected=profile.profile_hash,
            found=footer["profile_hash"],
            next_step=f"materialize {monitor.name}/drift_calibration again",
        )
    frame = monitor.lake.read("drift_calibration", monitor.name)
    shape = {role: (len(profile.segments), len(profile.edges[role])) for role in ROLES}
    dispersions = {
        (str(role), int(window)): Dispersion(**{n: rows[n].to_numpy().reshape(shape[str(role)]) for n in _ARRAYS})
        for (role, window), rows in frame.partition_by("role", "window_days", as_dict=True, maintain_order=True).items()
    }
    return Calibration(
        dispersions=dispersions,
        threshold=Threshold(**json.loads(footer["threshold"])),
        day_share_reference=np.array(json.loads(footer["day_share_reference"]), dtype=np.float64),
        reference_days=int(footer["reference_days"]),
        maxima=np.array(json.loads(footer["maxima"]), dtype=np.float64),
    )


def calibration_hash(calibration: Calibration) -> str:
    """Identity of what a score was held against, 16 hex digits."""
    digest = hashlib.sha256(json.dumps(asdict(calibration.threshold)).encode())
    for key in sorted(calibration.dispersions):
        digest.update(repr(key).encode() + np.ascontiguousarray(calibration.dispersions[key].factor).tobytes())
    return digest.hexdigest()[:16]
