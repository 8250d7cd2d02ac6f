"""The calibration of labels in real runs: waits for the reference's labels, is made once, follows late ones."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.label_calibration import load_label_calibration
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import load_profile
from xai_assets.lake.store import Lake
from xai_assets_tests.conftest import day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
TABLES = [
    *("labels", "replay_log", "divergence_set", "production_attributions", "experimental_attributions"),
    *("reference_profile", "attribution_histograms", "drift_calibration", "drift_scores"),
    *("residual_histograms", "label_calibration", "label_scores", "drift_alerts"),
]
LAST = 10
CHANGES = {
    "reference": {"start_date": day(1), "end_date": day(2)},
    "drift": {"windows_days": [1, 3], "alarm_budget": "1 per 20 days"},
    "labels": {"complete_after_days": 7},
}


def test_it_waits_without_holding_up_alerts_and_then_holds_for_good(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    """Reference: days 1 and 2, whose labels are complete on days 8 and 9."""
    config = lending(**CHANGES)
    deployment = deploy(config)
    lake = deployment.lake
    deployment.run(day(1), day(8), tables=TABLES)
    assert not lake.exists("label_calibration", "lending")
    assert lake.row_count("label_scores", "lending", day(8)) == 0
    assert lake.days("drift_alerts", "lending") == [day(i) for i in range(1, 9)]

    deployment.run(day(9), day(LAST), tables=TABLES)
    monitor = Monitor(config, lake)
    profile = load_profile(monitor)
    found = load_label_calibration(monitor, profile)
    assert found.reference_days == 2
    assert found.threshold.rule == "benjamini_hochberg"
    assert found.threshold.alarm_rate == pytest.approx(1 / 40), "drift scores have the other half of the budget"
    drift_threshold = lake.metadata("drift_calibration", "lending")["threshold"]
    assert f'"alarm_rate": {1 / 40}' in drift_threshold
    rows = lake.read("label_calibration", "lending")
    features = {*config.feature_names, "*"}
    assert rows.group_by("role", "window_days").agg(pl.col("feature").n_unique()).height == 4
    assert set(rows["feature"]) == features
    assert rows.filter(pl.col("segment") == "overall")["factor"].min() >= 1  # type: ignore[operator]
    scores = lake.read("label_scores", "lending", day(LAST))
    judged = scores.filter(pl.col("severity") != "insufficient")
    assert set(judged["feature"]) == features
    assert judged["evidence"].null_count() == judged["residual_shift"].null_count()
    assert set(scores["reference_hash"]) == {profile.profile_hash}
    assert set(scores["severity"]) <= {"insufficient", "none"}, "nothing is wrong with this service"
    assert lake.row_count("label_scores", "lending", day(9)) == 0, "its cohort is part of the reference"

    before = lake.metadata("label_calibration", "lending")
    deployment.run(day(9), day(LAST), tables=TABLES)
    assert lake.metadata("label_calibration", "lending") == before
    assert Provenance(monitor).expected("label_scores", day(LAST)) == Provenance(monitor).stored(
        "label_scores", day(LAST)
    )

    path = source / f"data/demo/lending/labels/{day(8)}.parquet"
    labels = pl.read_parquet(path)
    labels.with_columns(label=1 - pl.col("label")).write_parquet(path)
    deployment.run(day(8), day(LAST), tables=TABLES)
    after = lake.metadata("label_calibration", "lending")
    assert after["provenance"] != before["provenance"], "a reference day's labels are other ones"
    assert after["calibration_hash"] != before["calibration_hash"]
    assert not lake.read("label_scores", "lending", day(LAST)).equals(scores)

    stored = tuple(lake.metadata(t, "lending")["provenance"] for t in ("drift_calibration", "label_calibration"))
    assert identities(config, lake) == stored
    budget = lending(**CHANGES | {"drift": {"windows_days": [1, 3], "alarm_budget": "1 per 10 days"}})
    assert not set(identities(budget, lake)).intersection(stored), "another budget is another calibration"
    residuals = Provenance(Monitor(budget, lake)).expected("residual_histograms", day(LAST))
    assert residuals == Provenance(monitor).stored("residual_histograms", day(LAST)), "but no other residuals"
    whole_budget, nothing = identities(lending(**CHANGES | {"labels": {"complete_after_days": None}}), lake)
    assert whole_budget != stored[0], "without label scores drift scores have all of it"
    assert nothing is None


def identities(config: MonitorConfig, lake: Lake) -> tuple[str | None, str | None]:
    provenance = Provenance(Monitor(config, lake))
    return provenance.calibration_identity(), provenance.label_calibration_identity()
