"""The daily job on real files: what is stored, what is recomputed, what blocks, what waits."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.provenance import DAILY_TABLES
from xai_assets.orchestration.jobs import RANGE_END, RANGE_START, daily_job_name
from xai_assets_tests.conftest import DAYS, REFERENCE_DAYS, REQUESTS, day
from xai_assets_tests.orchestration.conftest import FLOW, Deployment, checks, log

pytestmark = pytest.mark.slow
TABLES = tuple(t for t in DAILY_TABLES if t != "version_effects")  # which needs an earlier version of a model
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]


def test_a_range_runs_every_stage_once_and_a_second_run_recomputes_nothing(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending())
    result = deployment.run(day(1), day(DAYS))
    assert result.success
    for table in TABLES:
        assert deployment.lake.days(table, "lending") == [day(i) for i in range(1, DAYS + 1)], table
    outcome = checks(result)
    assert outcome["production_attributions", "additivity"]
    assert outcome["replay_log", "source_present"]
    assert outcome["replay_log", "replay_matches_log"]
    assert all(outcome[t, "schema"] for t in TABLES)
    stored = deployment.metadata("replay_log", day(3))
    assert stored["status"] == "complete"
    assert abs(stored["dagster/partition_row_count"] - REQUESTS) < REQUESTS / 2
    assert deployment.metadata("divergence_set", day(3))["requests"] == stored["dagster/partition_row_count"]
    assert "mean |φ|" in deployment.metadata("production_attributions", day(3))["top_features"]

    before = {t: deployment.lake.metadata(t, "lending", day(9)) for t in TABLES}
    again = deployment.run(day(1), day(DAYS))
    assert again.success
    assert {t: deployment.lake.metadata(t, "lending", day(9)) for t in TABLES} == before
    assert deployment.metadata("production_attributions", day(3))["unchanged"]


def test_sums_of_what_was_explained_agree_from_stage_to_stage(deploy: Deploy, lending: Configure) -> None:
    """Histograms against a plain recount of the stored attributions."""
    deployment = deploy(lending())
    deployment.run(day(1), day(REFERENCE_DAYS + 1), tables=FLOW)
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
    result = deployment.run(day(1), tables=FLOW)
    assert result.success
    assert deployment.lake.days("production_attributions", "lending") == [day(1)]
    for table in ("attribution_histograms", "drift_scores", "drift_alerts", "recommendations"):
        assert deployment.lake.days(table, "lending") == []
        assert deployment.metadata(table, day(1)) == {}
    deployment.run(day(2), day(REFERENCE_DAYS), tables=FLOW)
    assert deployment.lake.exists("reference_profile", "lending")
    assert deployment.lake.days("drift_scores", "lending") == [day(i) for i in range(2, REFERENCE_DAYS + 1)]


def test_days_in_any_order_give_the_same_bytes(deploy: Deploy, lending: Configure, tmp_path: Path) -> None:
    deployment = deploy(lending())
    deployment.run(day(1), day(DAYS), tables=FLOW)
    tables = ("drift_scores", "drift_alerts", "recommendations", "label_scores", "concept_drift")
    at_once = {(t, i): deployment.lake.read(t, "lending", day(i)) for t in tables for i in (8, DAYS)}
    shutil.rmtree(tmp_path / "lake")
    deployment.run(day(1), day(REFERENCE_DAYS), tables=FLOW)
    for number in range(DAYS, REFERENCE_DAYS, -1):
        deployment.run(day(number), tables=FLOW)
    deployment.run(day(1), day(DAYS), tables=FLOW)
    for (table, number), frame in at_once.items():
        assert deployment.lake.read(table, "lending", day(number)).equals(frame), (table, number)


def test_the_first_days_alone_have_alerts_though_their_labels_are_not_complete(
    deploy: Deploy, lending: Configure
) -> None:
    deployment = deploy(lending())
    deployment.run(day(1), day(REFERENCE_DAYS), tables=FLOW)
    deployment.run(day(1), day(REFERENCE_DAYS), tables=FLOW)
    assert deployment.lake.days("drift_alerts", "lending") == [day(i) for i in range(1, REFERENCE_DAYS + 1)]
    assert deployment.lake.days("recommendations", "lending") == [day(i) for i in range(1, REFERENCE_DAYS + 1)]


def test_a_day_that_was_never_run_holds_up_no_later_day(deploy: Deploy, lending: Configure, source: Path) -> None:
    """The schedule skips a day without a file; a week later labels of that day would be complete."""
    log(source, 5).unlink()
    deployment = deploy(lending(reference={"start_date": day(1), "end_date": day(3)}))
    deployment.run(day(1), day(4), tables=FLOW)
    deployment.run(day(6), day(11), tables=FLOW)
    deployment.run(day(12), tables=FLOW)
    assert deployment.lake.exists("recommendations", "lending", day(12))


def test_part_of_the_flow_can_be_run_as_a_backfill_from_the_ui_does(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending())
    job = deployment.defs.resolve_job_def(daily_job_name(deployment.config))
    for tables in (["replay_log", "divergence_set"], ["production_attributions", "experimental_attributions"]):
        keys = [dg.AssetKey(["lending", t]) for t in tables]
        tags = {RANGE_START: str(day(1)), RANGE_END: str(day(2))}
        assert job.execute_in_process(instance=deployment.instance, tags=tags, asset_selection=keys).success
    assert deployment.lake.days("experimental_attributions", "lending") == [day(1), day(2)]


def test_a_day_without_a_file_is_missing_not_no_drift(deploy: Deploy, lending: Configure, source: Path) -> None:
    log(source, 8).unlink()
    deployment = deploy(lending())
    result = deployment.run(day(1), day(DAYS), tables=FLOW)
    assert result.success
    assert checks(result)["replay_log", "source_present"] is False
    assert deployment.metadata("replay_log", day(8))["status"] == "missing"
    scores = deployment.lake.read("drift_scores", "lending", day(8))
    assert set(scores.filter(pl.col("window_days") == 1)["severity"]) <= {"insufficient"}


@pytest.mark.parametrize("rows", [0, 1])
def test_days_of_no_and_of_one_row_run_through(deploy: Deploy, lending: Configure, source: Path, rows: int) -> None:
    pl.read_parquet(log(source, 9)).head(rows).write_parquet(log(source, 9))
    deployment = deploy(lending())
    assert deployment.run(day(1), day(DAYS), tables=FLOW).success
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


def test_one_bad_day_of_a_range_holds_up_no_other(deploy: Deploy, lending: Configure, source: Path) -> None:
    log(source, 2).write_bytes(log(source, 2).read_bytes()[:2000])
    infinite = pl.read_parquet(log(source, 4)).with_columns(loan_amount=pl.lit(float("inf")))
    infinite.write_parquet(log(source, 4))
    deployment = deploy(lending())
    result = deployment.run(day(1), day(DAYS), tables=FLOW)
    assert result.success
    outcome = checks(result)
    assert outcome["replay_log", "source_present"] is False
    assert outcome["replay_log", "quarantine_share"] is False
    assert (
        "truncated" in deployment.metadata("replay_log", day(2))["refused"]
        or "Parquet" in deployment.metadata("replay_log", day(2))["refused"]
    )
    explained = deployment.lake.days("production_attributions", "lending")
    assert explained == [day(i) for i in range(1, DAYS + 1) if i not in (2, 4)]
    assert deployment.lake.row_count("quarantine", "lending", day(4)) == infinite.height
    assert not deployment.lake.exists("reference_profile", "lending"), "day 2 is part of the reference and unread"
    shutil.copy(log(source, 3), log(source, 2))  # another day's rows: all quarantined, so refused too
    deployment.run(day(1), day(DAYS), tables=FLOW)
    assert deployment.lake.exists("recommendations", "lending", day(DAYS))


def test_a_file_of_all_days_that_grows_recomputes_only_the_new_day(
    deploy: Deploy, lending: Configure, source: Path
) -> None:
    parts = [pl.read_parquet(log(source, i)) for i in range(1, DAYS + 1)]
    whole = source / "data/demo/lending/whole.parquet"
    pl.concat(parts[:-1]).write_parquet(whole)
    deployment = deploy(lending(source={"path": "data/demo/lending/whole.parquet"}))
    deployment.run(day(1), day(DAYS), tables=FLOW)
    assert deployment.metadata("replay_log", day(3))["rows_of_other_days"] > 0
    before = deployment.lake.metadata("production_attributions", "lending", day(3))
    pl.concat(parts).write_parquet(whole)
    deployment.run(day(1), day(DAYS), tables=FLOW)
    assert deployment.lake.metadata("production_attributions", "lending", day(3)) == before
    assert deployment.metadata("production_attributions", day(3))["unchanged"]
    assert deployment.lake.row_count("production_attributions", "lending", day(DAYS)) == parts[-1].height


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
    deployment.run(day(1), day(REFERENCE_DAYS + 1), tables=FLOW)
    wanted = day(REFERENCE_DAYS + 1)
    requests = deployment.lake.row_count("replay_log", "lending", wanted)
    assert deployment.lake.row_count("divergence_set", "lending", wanted) == 200 < requests
    rows: Any = deployment.lake.read("attribution_histograms", "lending", wanted).filter(
        (pl.col("role") == "production") & (pl.col("segment") == "overall") & (pl.col("bin") == -1)
    )
    totals = dict(rows.group_by("population").agg(pl.col("weight").first()).iter_rows())
    assert totals["all"] == pytest.approx(requests)
    assert totals["divergent"] == pytest.approx(deployment.metadata("divergence_set", wanted)["divergent"])


def test_a_monitor_without_segments_goes_the_whole_way(deploy: Deploy, lending: Configure) -> None:
    """No context is the default, and what the starter writes."""
    deployment = deploy(lending(context=[], derived_context=[]))
    assert deployment.run(day(1), day(DAYS), tables=FLOW).success
    scores = deployment.lake.read("drift_scores", "lending", day(DAYS))
    assert set(scores["segment"]) == {"overall"}
    assert scores.filter(pl.col("severity") != "insufficient").height > 0
