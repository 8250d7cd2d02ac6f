"""The daily job on real files: what is stored, what is recomputed, what blocks, what waits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.provenance import DAILY_TABLES
from xai_assets_tests.conftest import DAYS, REFERENCE_DAYS, REQUESTS, day
from xai_assets_tests.orchestration.conftest import Deployment, checks

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]


def settle(deployment: Deployment, ticks: int = 4) -> None:
    """Let the file sensor run what it finds until it finds nothing more."""
    for _ in range(ticks):
        requests = deployment.sensor("stale_days").run_requests
        if not requests:
            return
        for request in requests:
            deployment.follow(request)
    pytest.fail(f"still stale after {ticks} ticks")


def log(source: Path, number: int) -> Path:
    return source / f"data/demo/lending/logs/{day(number)}.parquet"


def test_a_range_runs_every_stage_once_and_a_second_run_recomputes_nothing(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending())
    result = deployment.run(day(1), day(DAYS))
    assert result.success
    for table in DAILY_TABLES:
        first = 8 if table in ("residual_histograms", "label_scores") else 1  # labels are complete after 7 days
        assert deployment.lake.days(table, "lending") == [day(i) for i in range(first, DAYS + 1)], table
    outcome = checks(result)
    assert outcome["production_attributions", "additivity"]
    assert outcome["replay_log", "source_present"]
    assert outcome["replay_log", "replay_matches_log"]
    assert all(outcome[t, "schema"] for t in DAILY_TABLES)
    stored = deployment.metadata("replay_log", day(3))
    assert stored["status"] == "complete"
    assert abs(stored["dagster/partition_row_count"] - REQUESTS) < REQUESTS / 2
    assert deployment.metadata("divergence_set", day(3))["requests"] == stored["dagster/partition_row_count"]
    assert "mean |φ|" in deployment.metadata("production_attributions", day(3))["top_features"]

    before = {t: deployment.lake.metadata(t, "lending", day(9)) for t in DAILY_TABLES}
    again = deployment.run(day(1), day(DAYS))
    assert again.success
    assert {t: deployment.lake.metadata(t, "lending", day(9)) for t in DAILY_TABLES} == before
    assert deployment.metadata("production_attributions", day(3))["unchanged"]


def test_sums_of_what_was_explained_agree_from_stage_to_stage(deploy: Deploy, lending: Configure) -> None:
    """Histograms against a plain recount of the stored attributions."""
    deployment = deploy(lending())
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    lake, wanted = deployment.lake, day(REFERENCE_DAYS + 1)
    phi = lake.read("production_attributions", "lending", wanted)
    log_rows = lake.read("replay_log", "lending", wanted)
    chosen = lake.read("divergence_set", "lending", wanted)
    assert phi["request_id"].to_list() == chosen["request_id"].to_list()
    margin = phi["base_value"] + phi.select(pl.sum_horizontal(pl.selectors.starts_with("phi_")))["phi_annual_income"]
    assert (margin - phi["margin"]).abs().max() < 1e-4  # type: ignore[operator]
    rows = lake.read("attribution_histograms", "lending", wanted)
    moments = rows.filter((pl.col("role") == "production") & (pl.col("population") == "all") & (pl.col("bin") == -1))
    broker = moments.filter((pl.col("segment") == "channel=broker") & (pl.col("feature") == "annual_income"))
    picked = log_rows["channel"].gather(chosen["row_index"]) == "broker"
    assert broker["row_count"].item() == picked.sum()
    assert broker["abs_sum"].item() == pytest.approx(phi.filter(picked)["phi_annual_income"].abs().sum(), rel=1e-5)
    whole = moments.filter(pl.col("segment") == "overall")["weight"].to_list()
    per_channel = moments.filter(pl.col("segment").str.starts_with("channel="))
    assert whole[0] == pytest.approx(per_channel.filter(pl.col("feature") == "annual_income")["weight"].sum())


def test_before_the_reference_is_complete_later_stages_wait(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending())
    result = deployment.run(day(1))
    assert result.success
    assert deployment.lake.days("production_attributions", "lending") == [day(1)]
    for table in ("attribution_histograms", "drift_scores", "drift_alerts", "recommendations"):
        assert deployment.lake.days(table, "lending") == []
        assert deployment.metadata(table, day(1)) == {}
    deployment.run(day(2), day(REFERENCE_DAYS))
    assert deployment.lake.exists("reference_profile", "lending")
    assert deployment.lake.days("drift_scores", "lending") == [day(i) for i in range(2, REFERENCE_DAYS + 1)]


def test_days_in_any_order_give_the_same_bytes(deploy: Deploy, lending: Configure, tmp_path: Path) -> None:
    deployment = deploy(lending())
    deployment.run(day(1), day(DAYS))
    tables = ("drift_scores", "drift_alerts", "recommendations", "label_scores")
    at_once = {(t, i): deployment.lake.read(t, "lending", day(i)) for t in tables for i in (8, DAYS)}
    shutil.rmtree(tmp_path / "lake")
    deployment.run(day(1), day(REFERENCE_DAYS))
    for number in (*range(DAYS, REFERENCE_DAYS, -1), *range(1, DAYS + 1)):
        deployment.run(day(number))
    for (table, number), frame in at_once.items():
        assert deployment.lake.read(table, "lending", day(number)).equals(frame), (table, number)


def test_a_day_without_a_file_is_missing_not_no_drift(deploy: Deploy, lending: Configure, source: Path) -> None:
    log(source, 8).unlink()
    deployment = deploy(lending())
    result = deployment.run(day(1), day(DAYS))
    assert result.success
    assert checks(result)["replay_log", "source_present"] is False
    assert deployment.metadata("replay_log", day(8))["status"] == "missing"
    scores = deployment.lake.read("drift_scores", "lending", day(8))
    assert set(scores.filter(pl.col("window_days") == 1)["severity"]) <= {"insufficient"}


def test_a_late_file_makes_its_day_and_the_windows_over_it_stale(
    deploy: Deploy, lending: Configure, source: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "late.parquet"
    log(source, 8).rename(kept)
    deployment = deploy(lending())
    deployment.run(day(1), day(DAYS))
    idle = deployment.sensor("stale_days")
    assert idle.run_requests == []
    assert "up to date" in idle.skip_message
    kept.rename(log(source, 8))
    tick = deployment.sensor("stale_days")
    request = tick.run_requests[0]
    assert request.tags["dagster/asset_partition_range_start"] == str(day(8))
    untouched = deployment.lake.metadata("production_attributions", "lending", day(9))
    deployment.follow(request)
    assert deployment.metadata("replay_log", day(8))["status"] == "complete"
    assert deployment.lake.row_count("production_attributions", "lending", day(8)) > 0
    assert deployment.lake.metadata("production_attributions", "lending", day(9)) == untouched
    settle(deployment)
    seven = deployment.lake.read("drift_scores", "lending", day(DAYS)).filter(
        (pl.col("window_days") == 7) & (pl.col("segment") == "overall") & (pl.col("role") == "production")
    )
    rows = sum(deployment.lake.row_count("divergence_set", "lending", day(i)) for i in range(DAYS - 6, DAYS + 1))
    assert set(seven.filter((pl.col("population") == "all") & (pl.col("feature") != "*"))["row_count"]) == {rows}


@pytest.mark.parametrize("rows", [0, 1])
def test_days_of_no_and_of_one_row_run_through(deploy: Deploy, lending: Configure, source: Path, rows: int) -> None:
    pl.read_parquet(log(source, 9)).head(rows).write_parquet(log(source, 9))
    deployment = deploy(lending())
    assert deployment.run(day(1), day(DAYS)).success
    assert deployment.metadata("replay_log", day(9))["status"] == ("complete" if rows else "empty")
    assert deployment.lake.row_count("experimental_attributions", "lending", day(9)) == rows
    scores = deployment.lake.read("drift_scores", "lending", day(9)).filter(pl.col("window_days") == 1)
    assert set(scores["severity"]) <= {"insufficient"}


def test_unusable_rows_over_the_limit_block_what_follows(deploy: Deploy, lending: Configure, source: Path) -> None:
    frame = pl.read_parquet(log(source, 2))
    broken = frame.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 0)
        .then(float("inf"))
        .otherwise(pl.col("loan_amount"))
        .alias("loan_amount")
    )
    broken.write_parquet(log(source, 2))
    deployment = deploy(lending())
    result = deployment.run(day(2), raise_on_error=False)
    assert not result.success
    assert checks(result)["replay_log", "quarantine_share"] is False
    assert deployment.lake.row_count("quarantine", "lending", day(2)) == (frame.height + 1) // 2
    assert deployment.lake.days("divergence_set", "lending") == []


def test_attributions_that_do_not_add_up_block_what_follows(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(explanation={"additivity_tolerance": 1e-12}))
    result = deployment.run(day(1), day(REFERENCE_DAYS), raise_on_error=False)
    assert not result.success
    assert checks(result)["production_attributions", "additivity"] is False
    assert not deployment.lake.exists("reference_profile", "lending")


def test_logged_outputs_of_another_pipeline_are_reported(deploy: Deploy, lending: Configure, source: Path) -> None:
    frame = pl.read_parquet(log(source, 3))
    frame.with_columns(pl.col("production_output") + 0.01).write_parquet(log(source, 3))
    deployment = deploy(lending())
    result = deployment.run(day(3))
    assert checks(result)["replay_log", "replay_matches_log"] is False
    report = deployment.report(day(3))
    assert report["replay_max_difference"] == pytest.approx(0.01, abs=1e-6)
    assert report["replay_mismatch_rows"] == report["replay_checked_rows"] > 0


def test_another_model_at_the_same_path_makes_days_stale(deploy: Deploy, lending: Configure, source: Path) -> None:
    deployment = deploy(lending(columns={"production_output": None, "experimental_output": None}))
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    models = source / "data/demo/lending/models"
    profile = deployment.lake.metadata("reference_profile", "lending")["profile_hash"]
    shutil.copy(models / "experimental.ubj", models / "production.ubj")
    tick = deployment.sensor("stale_days")
    assert tick.run_requests[0].tags["dagster/asset_partition_range_start"] == str(day(1))
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    assert deployment.lake.metadata("reference_profile", "lending")["profile_hash"] != profile
    delta = deployment.lake.read("divergence_set", "lending", day(2))["delta"]
    assert delta.abs().max() == 0.0


def test_a_pickle_as_model_is_refused_and_nothing_is_written(deploy: Deploy, lending: Configure, source: Path) -> None:
    import pickle

    (source / "data/demo/lending/models/production.ubj").write_bytes(pickle.dumps({"weights": [1, 2, 3]}))
    deployment = deploy(lending())
    with pytest.raises(Exception, match="pickle") as refusal:
        deployment.run(day(1))
    assert "Nothing was written" in str(refusal.value)
    assert deployment.lake.days("replay_log", "lending") == []


def test_sampled_days_estimate_the_whole(deploy: Deploy, lending: Configure) -> None:
    """Over the budget: weights of the histograms add up to all requests, divergent ones exactly."""
    deployment = deploy(lending(explanation={"budget_rows_per_day": 200}))
    deployment.run(day(1), day(REFERENCE_DAYS + 1))
    wanted = day(REFERENCE_DAYS + 1)
    requests = deployment.lake.row_count("replay_log", "lending", wanted)
    assert deployment.lake.row_count("divergence_set", "lending", wanted) == 200 < requests
    rows: Any = deployment.lake.read("attribution_histograms", "lending", wanted).filter(
        (pl.col("role") == "production") & (pl.col("segment") == "overall") & (pl.col("bin") == -1)
    )
    totals = dict(rows.group_by("population").agg(pl.col("weight").first()).iter_rows())
    assert totals["all"] == pytest.approx(requests)
    assert totals["divergent"] == pytest.approx(deployment.metadata("divergence_set", wanted)["divergent"])
