"""The code location loads in a fresh interpreter, quickly and without heavy libraries; its keys are pinned."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOW = [
    "attribution_histograms",
    "candidate_model",
    "concept_drift",
    "divergence_set",
    "divergence_slices",
    "drift_alerts",
    "drift_calibration",
    "drift_scores",
    "drift_slices",
    "error_stream",
    "experimental_attributions",
    "explanation_quality",
    "explanation_shift",
    "feature_statistics",
    "label_calibration",
    "label_scores",
    "labels",
    "production_attributions",
    "recommendations",
    "reference_profile",
    "replay_log",
    "residual_histograms",
]

LOAD = """
import json, sys, warnings
import dagster
warnings.filterwarnings("ignore", category=dagster.BetaWarning)  # Dagster warns about its own asset checks
from dagster._core.workspace.autodiscovery import loadable_targets_from_python_module
target, = loadable_targets_from_python_module("xai_assets.definitions", working_directory=".")
defs = target.target_definition
defs.get_repository_def().load_all_definitions()
HEAVY = ("xgboost", "shap", "numba", "sklearn", "pandas", "evidently", "matplotlib", "scipy.stats", "river")
heavy = [m for m in HEAVY if m in sys.modules]
print(json.dumps({
    "keys": sorted(k.to_user_string() for k in defs.resolve_asset_graph().get_all_asset_keys()),
    "jobs": sorted(j.name for j in defs.resolve_all_job_defs() if not j.name.startswith("__")),
    "sensors": sorted(s.name for s in defs.get_repository_def().sensor_defs),
    "schedules": sorted(s.name for s in defs.get_repository_def().schedule_defs),
    "heavy": heavy,
}))
"""


@pytest.fixture(scope="module")
def loaded() -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LOAD], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_asset_keys_are_the_known_ones(loaded: dict[str, list[str]]) -> None:
    assert loaded["keys"] == [f"lending/{table}" for table in FLOW]


def test_jobs_schedules_and_sensors_are_the_known_ones(loaded: dict[str, list[str]]) -> None:
    assert loaded["jobs"] == ["lending_daily", "lending_retention", "lending_retraining"]
    assert loaded["schedules"] == ["lending_retention_schedule", "lending_yesterday"]
    assert loaded["sensors"] == ["lending_retraining_sensor", "lending_stale_days"]


def test_loading_imports_no_heavy_library(loaded: dict[str, list[str]]) -> None:
    assert loaded["heavy"] == []
