"""One monitor's definitions, assembled.

Belongs here: which parts a monitor consists of. Does not belong here: the parts.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import dagster as dg

from xai_assets.assets import (
    attribution_histograms,
    attributions,
    candidate_model,
    concept_drift,
    divergence_set,
    divergence_slices,
    drift_alerts,
    drift_calibration,
    drift_scores,
    drift_slices,
    explanation_quality,
    explanation_shift,
    feature_statistics,
    label_calibration,
    label_scores,
    labels,
    recommendations,
    reference_profile,
    replay_log,
    version_effects,
)
from xai_assets.config import MonitorConfig
from xai_assets.orchestration import checks, jobs, retention, schedules, sensors
from xai_assets.records import MODEL_ROLES


def build_assets(config: MonitorConfig) -> list[dg.AssetsDefinition]:
    """All assets of a monitor, in the order of the flow. Label assets only where labels are configured,
    the comparison of versions only where an earlier one is."""
    assets = [replay_log.build(config), divergence_set.build(config)]
    assets += [attributions.build(config, role) for role in MODEL_ROLES]
    drift = (explanation_quality, reference_profile, attribution_histograms, feature_statistics)
    assets += [m.build(config) for m in (*drift, drift_calibration, drift_scores, divergence_slices, drift_slices)]
    assets.append(explanation_shift.build(config))
    if config.roles_with_previous:
        assets.append(version_effects.build(config))
    if config.labels is not None:
        assets.insert(1, labels.build(config))
        if config.label_delay_days is not None:
            assets += [m(config) for m in (label_scores.build_residuals, label_calibration.build, label_scores.build)]
            assets += [concept_drift.build_errors(config), concept_drift.build(config)]
    return [*assets, drift_alerts.build(config), recommendations.build(config), candidate_model.build(config)]


def build_definitions(config: MonitorConfig, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors of one monitor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        assets = build_assets(config)
        daily, retraining = jobs.build(config, assets)
        daily_tables = [k.path[-1] for a in assets if a.partitions_def is not None for k in a.keys]
        return dg.Definitions(
            assets=assets,
            asset_checks=checks.build(config, daily_tables),
            jobs=[daily, retraining],
            schedules=[schedules.build(config, daily), retention.build(config)],
            sensors=[sensors.build_stale_days(config, daily), sensors.build_retraining(config, retraining)],
            resources=resources,
        )
