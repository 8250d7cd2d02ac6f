"""The calibration of a monitor's label scores: made from the residuals of its reference days, stored, loaded.

Belongs here: which days go in, when they are all there, the rows of `label_calibration`. Does not belong here: the
statistics (see `stats.label_calibration`), grading a score (see `decide.severity`).
"""

from collections.abc import Sequence
from datetime import date

import numpy as np

from xai_assets.config import MonitorConfig
from xai_assets.flow.calibration import (
    SEED,
    Axes,
    CalibrationState,
    calibration_state,
    read_calibration,
    write_calibration,
)
from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import load_profile
from xai_assets.flow.residuals import Tables, frame_to_tables
from xai_assets.records import INPUT, MODEL_ROLES, WHOLE
from xai_assets.stats.calibration import Calibration
from xai_assets.stats.label_calibration import DailyResiduals, calibrate_labels
from xai_assets.stats.residuals import ResidualTable

TABLE = "label_calibration"


def calibrate_cohorts(cohorts: Sequence[Tables], config: MonitorConfig) -> Calibration:
    """Calibrate on the residuals of the reference's days, one after the other; days without labels are zeros.

    Windows are compared with the whole reference, whatever `drift.match_weekday` says. Memory is 52 bytes per day ×
    role × segment × feature × cell.
    """
    daily = {role: _daily([tables[role] for tables in cohorts]) for role in MODEL_ROLES}
    return calibrate_labels(
        daily,
        windows_days=config.drift.windows_days,
        alarm_rate=config.alarm_rate_per_family,
        min_labels=config.drift.min_effective_rows,
        rng=np.random.default_rng(SEED),
    )


def _daily(tables: Sequence[ResidualTable]) -> DailyResiduals:
    names = ("label_count", "residual_sum", "residual_squared_sum")
    return DailyResiduals(*(np.stack([getattr(t, n).astype(np.float32) for t in tables]) for n in names))


def ensure_label_calibration(monitor: Monitor, *, force: bool = False) -> CalibrationState:
    """Calibrate where it is due: the residuals of all reference days are there, and are not those that the stored
    calibration was made of, or `force`."""
    provenance = Provenance(monitor)
    identity = provenance.label_calibration_identity()
    if identity is None:
        return CalibrationState(None, _waiting(provenance))
    profile = load_profile(monitor)
    if provenance.footer(TABLE, None).get("provenance") == identity and not force:
        return calibration_state(identity, load_label_calibration(monitor, profile), "kept")
    days = provenance.residual_reference_days()
    calibration = calibrate_cohorts([_stored(monitor, d, profile) for d in days], monitor.config)
    write_calibration(monitor, TABLE, calibration, axes_of_labels(profile), identity)
    return calibration_state(identity, calibration, "made")


def _waiting(provenance: Provenance) -> str:
    if provenance.reference_hash() is None:
        return "waiting for the reference profile"
    days = provenance.residual_reference_days()
    missing = [d for d in days if provenance.comparable("residual_histograms", d) is None]
    return f"waiting for the labels of {len(missing)} of {len(days)} reference days, the first complete on {missing[0]}"


def _stored(monitor: Monitor, day: date, profile: Profile) -> Tables:
    return frame_to_tables(monitor.lake.read("residual_histograms", monitor.name, day), profile)


def axes_of_labels(profile: Profile) -> Axes:
    """Those of label scores: per model role the features and `*`."""
    features = (*(e.feature for e in profile.edges[INPUT]), WHOLE)
    return Axes(profile.profile_hash, tuple(profile.segments), dict.fromkeys(MODEL_ROLES, features))


def load_label_calibration(monitor: Monitor, profile: Profile) -> Calibration:
    """The stored calibration of labels; raises as `flow.calibration.load_calibration`."""
    return read_calibration(monitor, TABLE, axes_of_labels(profile))
