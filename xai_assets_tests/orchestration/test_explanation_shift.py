"""The asset and its check in real runs: healthy days, a planted fault, days that are judged already."""

import re
from collections.abc import Callable

import dagster as dg
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets_tests.conftest import REFERENCE_DAYS, day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
LAST = REFERENCE_DAYS + 1


def check(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    found = result.get_asset_check_evaluations()
    (evaluation,) = (e for e in found if e.check_name == "explanation_shift")
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    return evaluation


def test_a_planted_fault_fails_the_check_alone_and_judged_days_are_left_alone(
    deploy: Deploy, lending: Configure
) -> None:
    """Annual income in thousands on the last day, in the source file itself."""
    config = lending(drift={"windows_days": [1]})
    path = config.base_dir / f"data/demo/lending/logs/{day(LAST)}.parquet"
    pl.read_parquet(path).with_columns(pl.col("annual_income") / 1_000).write_parquet(path)
    deployment = deploy(config)
    result = deployment.run(day(1), day(LAST))
    assert result.success
    evaluation = check(result)
    assert not evaluation.passed
    assert evaluation.metadata["day"].value == str(day(LAST))
    assert re.fullmatch(r"[1-9] of \d windows shifted", str(evaluation.description))
    assert "- production, 1 d: AUC" in str(evaluation.metadata["shifted"].value), "a list in Markdown"

    lake = deployment.lake
    assert lake.days("explanation_shift", "lending") == [day(i) for i in range(1, LAST + 1)]
    stored = lake.read("explanation_shift", "lending", day(LAST))
    production = stored.row(by_predicate=pl.col("role") == "production", named=True)
    assert production["features"][0] == "annual_income"
    assert production["coefficients"][0] > 0, "a tiny income raises the risk"
    assert "explanation_shift" not in lake.read("drift_alerts", "lending", day(LAST))["cause"].to_list()
    healthy = deployment.metadata("explanation_shift", day(LAST - 1))
    assert 0.4 < healthy["auc_production_1d"] < 0.6
    assert deployment.metadata("explanation_shift", day(LAST))["auc_production_1d"] > 0.6
    assert "windows of 1 day" in healthy["verdicts"]

    assert not check(deployment.run(day(LAST - 1), day(LAST))).passed, "the check is there in every run"
    assert deployment.metadata("explanation_shift", day(LAST))["unchanged"]
    assert lake.read("explanation_shift", "lending", day(LAST)).equals(stored)
