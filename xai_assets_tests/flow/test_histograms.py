"""A day's histograms and statistics against plain recounts of what is stored, and what a bad day makes of them."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from xai_assets.demo.service import SHADOW_ONLY
from xai_assets.errors import ProvenanceError, StatisticsError
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.budget import explanation_budget
from xai_assets.flow.feature_statistics import write_day_statistics
from xai_assets.flow.histograms import Profile, day_blocks, write_day_histograms
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import build_profile, comparable_days, load_day_blocks, load_profile, write_profile
from xai_assets.flow.replay import ingest
from xai_assets.flow.scoring import Scorer
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.records import DIFFERENCE, INPUT, MODEL_ROLES, OUTPUT, OUTPUT_FEATURES, ROLES
from xai_assets.stats.cells import cell_numbers
from xai_assets.stats.divergence import summarize
from xai_assets_tests.conftest import day

Explained = Callable[..., Monitor]
TABLE = "attribution_histograms"
UNLOGGED = {"production_output": None, "experimental_output": None}


def explain(monitor: Monitor, number: int) -> None:
    """The stages before the histograms, for one more day."""
    ingest(monitor, day(number), "p")
    threshold = divergence_threshold(monitor.lake, monitor.config)
    budget = explanation_budget(monitor)
    write_divergence_set(monitor.lake, monitor.config, day(number), threshold, "p", budget=budget)
    for role in MODEL_ROLES:
        explain_day(monitor, role, day(number), "p")


def change_log(source: Path, number: int, *columns: pl.Expr) -> None:
    path = source / f"data/demo/lending/logs/{day(number)}.parquet"
    pl.read_parquet(path).with_columns(columns).write_parquet(path)


def restore(monitor: Monitor, table: str, *columns: pl.Expr) -> None:
    """Change columns of day 1's stored rows."""
    metadata = monitor.lake.metadata(table, "lending", day(1))
    frame = monitor.lake.read(table, "lending", day(1)).with_columns(columns)
    monitor.lake.write(table, "lending", day(1), frame, metadata)


def stored_profile(monitor: Monitor) -> Profile:
    """The profile of day 1 alone, written as the reference."""
    profile = build_profile(monitor, [day(1)], "identity")
    write_profile(monitor, profile, "identity", [day(1)], "inputs")
    return profile


def explained_log(monitor: Monitor, number: int) -> pl.DataFrame:
    """The explained requests' rows of the log, with their weight and whether they diverge."""
    chosen = monitor.lake.read("divergence_set", "lending", day(number))
    rows = monitor.lake.read("replay_log", "lending", day(number))
    return rows[chosen["row_index"].to_numpy().astype(np.int64)].with_columns(
        weight=1.0 / chosen["inclusion_probability"], is_divergent=chosen["is_divergent"]
    )


def test_outputs_are_counted_like_everything_else(explained: Explained) -> None:
    monitor = explained(explanation={"budget_rows_per_day": 200})
    profile = build_profile(monitor, [day(1)])
    assert tuple(e.feature for e in profile.edges[OUTPUT]) == OUTPUT_FEATURES
    rows = explained_log(monitor, 1)
    assert rows.height == 200
    assert rows["weight"].sum() == pytest.approx(monitor.lake.row_count("replay_log", "lending", day(1)))
    rows = rows.with_columns(output_difference=pl.col("experimental_output") - pl.col("production_output"))
    for population, some in (("all", rows), ("divergent", rows.filter(pl.col("is_divergent")))):
        block = profile.blocks[OUTPUT, population]
        assert some.height > 5
        for j, (name, edges) in enumerate(zip(OUTPUT_FEATURES, profile.edges[OUTPUT], strict=True)):
            x, w = some[name].to_numpy(), some["weight"].to_numpy()
            counted = np.bincount(cell_numbers(edges, x), weights=w, minlength=edges.cells)
            np.testing.assert_allclose(block.weight[0, j, : edges.cells], counted, rtol=1e-12)
            assert block.phi_sum[0, j].sum() == pytest.approx((w * x).sum())
            assert block.squared_sum[0, j] == pytest.approx((w * x**2).sum())


def test_a_segment_s_outputs_add_up_to_all(explained: Explained) -> None:
    monitor = explained()
    profile = build_profile(monitor, [day(1)])
    block = profile.blocks[OUTPUT, "all"]
    of_region = [i for i, s in enumerate(block.segments) if s.startswith("region=")]
    np.testing.assert_allclose(block.weight[of_region].sum(axis=0), block.weight[0])


def test_a_profile_comes_back_as_it_was_stored(explained: Explained) -> None:
    monitor = explained()
    profile, loaded = stored_profile(monitor), load_profile(monitor, "identity")
    assert (loaded.profile_hash, loaded.segments) == (profile.profile_hash, profile.segments)
    assert loaded.segment_values == profile.segment_values
    assert tuple(loaded.edges) == ROLES
    for role in ROLES:
        for a, b in zip(loaded.edges[role], profile.edges[role], strict=True):
            assert a.feature == b.feature
            assert a.cuts.tolist() == b.cuts.tolist()
        np.testing.assert_allclose(loaded.blocks[role, "all"].weight, profile.blocks[role, "all"].weight)
        np.testing.assert_allclose(loaded.blocks[role, "all"].squared_sum, profile.blocks[role, "all"].squared_sum)


def test_a_profile_of_an_earlier_version_is_refused(explained: Explained) -> None:
    monitor = explained()
    stored_profile(monitor)
    metadata = monitor.lake.metadata("reference_profile", "lending")
    frame = monitor.lake.read("reference_profile", "lending").filter(pl.col("role") != OUTPUT)
    names = json.dumps(monitor.config.feature_names)
    monitor.lake.write("reference_profile", "lending", None, frame, metadata | {"features": names})
    with pytest.raises(ProvenanceError, match="another version of the platform"):
        load_profile(monitor)


def test_a_feature_that_one_model_lacks_has_no_attribution_there(explained: Explained) -> None:
    monitor = explained()
    (feature,) = SHADOW_ONLY
    assert feature not in monitor.model("production").feature_names
    profile = build_profile(monitor, [day(1)])
    at = monitor.config.feature_names.index(feature)
    production, experimental, difference = (profile.blocks[r, "all"] for r in (*MODEL_ROLES, DIFFERENCE))
    assert profile.edges["production"][at].cuts.tolist() == [0.0, 0.0]
    assert production.abs_sum[0, at] == 0.0
    assert production.row_count[0, at, 1] == production.row_count[0, at].sum() > 0
    assert experimental.abs_sum[0, at] > 0
    np.testing.assert_array_equal(difference.weight[0, at], experimental.weight[0, at])
    np.testing.assert_array_equal(difference.phi_sum[0, at], experimental.phi_sum[0, at])
    (summary,) = [s for s in summarize(profile.blocks, "all") if s.feature == feature]
    assert summary.usage == "newly used"


def test_a_feature_that_appears_with_a_new_model_starts_a_new_reference(explained: Explained) -> None:
    """Production's next version uses what it did not; the shadow's does not any longer."""
    monitor = explained(columns=UNLOGGED)
    old = build_profile(monitor, [day(1)], Provenance(monitor).reference_identity)
    write_profile(monitor, old, Provenance(monitor).reference_identity, [day(1)], "inputs")
    write_day_histograms(monitor, day(1), old, "p")
    models = monitor.config.models
    swapped = replace(models, production=models.experimental, experimental=models.production)
    next_version = Monitor(replace(monitor.config, models=swapped), monitor.lake)
    identity = Provenance(next_version).reference_identity
    with pytest.raises(ProvenanceError, match=identity):
        load_profile(next_version, identity)
    assert Provenance(next_version).reference_hash() is None

    explain(next_version, 1)
    new = build_profile(next_version, [day(1)], identity)
    (summary,) = [s for s in summarize(new.blocks, "all") if s.feature == SHADOW_ONLY[0]]
    assert summary.usage == "no longer used"
    with pytest.raises(ProvenanceError) as refusal:
        load_day_blocks(next_version, day(1), new)
    assert new.profile_hash in str(refusal.value)
    assert old.profile_hash in str(refusal.value)


def test_histograms_over_other_cells_are_refused_for_the_day_and_left_out_of_windows(explained: Explained) -> None:
    monitor = explained()
    profile = stored_profile(monitor)
    explain(monitor, 2)
    write_day_histograms(monitor, day(1), profile, "p")
    write_day_histograms(monitor, day(2), profile, "p")
    both = [day(1), day(2)]
    assert comparable_days(monitor, [*both, day(3)], profile) == both
    metadata = monitor.lake.metadata(TABLE, "lending", day(1)) | {"profile_hash": "0123456789abcdef"}
    monitor.lake.write(TABLE, "lending", day(1), monitor.lake.read(TABLE, "lending", day(1)), metadata)
    assert comparable_days(monitor, both, profile) == [day(2)]
    assert load_day_blocks(monitor, day(2), profile)[INPUT, "all"].row_count.sum() > 0
    for ask in (lambda: load_day_blocks(monitor, day(1), profile), lambda: Scorer(monitor).scores(day(1))):
        with pytest.raises(ProvenanceError, match="0123456789abcdef") as refusal:
            ask()
        assert profile.profile_hash in str(refusal.value)


def test_segment_values_new_to_the_reference_are_other_and_counted(explained: Explained, source: Path) -> None:
    monitor = explained(drift={"top_segment_values": 1})
    profile = stored_profile(monitor)
    assert len(profile.segment_values["region"]) > 1
    named = [s for s in profile.segments if s.startswith("region=")]
    assert named[1:] == ["region=(other)", "region=(missing)"]
    first_rows = pl.int_range(pl.len()) < 5
    change_log(source, 2, pl.when(first_rows).then(pl.lit("atlantis")).otherwise("region").alias("region"))
    explain(monitor, 2)
    made = write_day_histograms(monitor, day(2), load_profile(monitor), "p")
    counted = {"region": {"values": 1, "requests": 5, "most_frequent": ["atlantis"]}}
    assert made.unseen_segment_values == counted
    footer = monitor.lake.metadata(TABLE, "lending", day(2))
    assert json.loads(footer["unseen_segment_values"]) == counted
    rows = explained_log(monitor, 2)
    block = made.blocks[OUTPUT, "all"]
    other = block.row_count[block.segments.index("region=(other)"), 0].sum()
    assert other == rows.filter(pl.col("region") != named[0].removeprefix("region=")).height


def test_of_a_column_with_too_many_values_none_is_called_unseen(
    explained: Explained, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xai_assets.flow.reference.MOST_SEGMENT_VALUES", 2)
    monitor = explained()
    profile = build_profile(monitor, [day(1)])
    assert "region" not in profile.segment_values
    change_log(source, 2, pl.lit("atlantis").alias("region"))
    explain(monitor, 2)
    assert write_day_histograms(monitor, day(2), profile, "p").unseen_segment_values == {}


def test_requests_without_an_attribution_are_in_the_null_cell_and_counted(explained: Explained) -> None:
    monitor = explained()
    profile = build_profile(monitor, [day(1)])
    lost = pl.when(pl.int_range(pl.len()) < 7).then(float("nan")).otherwise(pl.col("phi_annual_income"))
    restore(monitor, "production_attributions", lost.cast(pl.Float32).alias("phi_annual_income"))
    made = write_day_histograms(monitor, day(1), profile, "p")
    assert made.unexplained == {"production": 7, "experimental": 0}
    footer = monitor.lake.metadata(TABLE, "lending", day(1))
    assert json.loads(footer["unexplained_requests"]) == made.unexplained
    at = monitor.config.feature_names.index("annual_income")
    for role, missing in (("production", 7), ("experimental", 0), (DIFFERENCE, 7), (INPUT, 0)):
        null = profile.edges[role][at].inner_cells + 2
        assert made.blocks[role, "all"].row_count[0, at, null] == missing, role
    assert np.isfinite(made.blocks["production", "all"].phi_sum).all()


def test_weightless_rows_are_refused(explained: Explained) -> None:
    monitor = explained()
    profile = build_profile(monitor, [day(1)])
    restore(monitor, "divergence_set", pl.lit(float("inf")).alias("inclusion_probability"))
    with pytest.raises(StatisticsError, match=f"all weights of the explained requests of {day(1)} are zero"):
        write_day_histograms(monitor, day(1), profile, "p")
    assert not monitor.lake.exists(TABLE, "lending", day(1))
    with pytest.raises(StatisticsError, match="all weights of the reference's rows are zero"):
        build_profile(monitor, [day(1)])
    restore(monitor, "divergence_set", pl.lit(0.0).alias("inclusion_probability"))
    with pytest.raises(StatisticsError, match="negative or not finite"):
        day_blocks(monitor, day(1), profile.segments, profile.edges)


def test_a_constant_input_notices_any_other_value(explained: Explained, source: Path) -> None:
    monitor = explained()
    lake = monitor.lake
    constant = pl.lit(7.0, dtype=pl.Float32).alias("open_accounts")
    metadata = lake.metadata("replay_log", "lending", day(1))
    frame = lake.read("replay_log", "lending", day(1)).with_columns(constant)
    lake.write("replay_log", "lending", day(1), frame, metadata)
    profile = build_profile(monitor, [day(1)])
    at = monitor.config.feature_names.index("open_accounts")
    assert profile.edges[INPUT][at].cuts.tolist() == [7.0, 7.0]
    explain(monitor, 2)
    cells = write_day_histograms(monitor, day(2), profile, "p").blocks[INPUT, "all"].row_count[0, at]
    x = explained_log(monitor, 2)["open_accounts"]
    expected = [(x < 7).sum(), (x == 7).sum(), (x > 7).sum(), x.is_null().sum()]
    assert cells[:4].tolist() == expected
    assert min(expected[:3]) > 0


def test_statistics_of_a_day_are_those_of_its_requests(explained: Explained) -> None:
    monitor = explained(explanation={"budget_rows_per_day": 200})
    profile = stored_profile(monitor)
    made = write_day_histograms(monitor, day(1), profile, "p")
    frame = write_day_statistics(monitor, day(1), profile, "p")
    assert monitor.lake.read("feature_statistics", "lending", day(1)).equals(frame)
    rows = explained_log(monitor, 1)
    north = rows.filter(pl.col("region") == "north")
    for segment, some in (("overall", rows), ("region=north", north)):
        for role, feature in ((INPUT, "annual_income"), (INPUT, "employment_months"), (OUTPUT, "production_output")):
            found = frame.row(
                by_predicate=(pl.col("role") == role) & (pl.col("feature") == feature) & (pl.col("segment") == segment),
                named=True,
            )
            x, w = some[feature].cast(pl.Float64).fill_null(float("nan")).to_numpy(), some["weight"].to_numpy()
            there = ~np.isnan(x)
            assert found["row_count"] == some.height
            assert found["mean"] == pytest.approx(np.average(x[there], weights=w[there]), rel=1e-6)
            assert found["missing_share"] == pytest.approx(w[~there].sum() / w.sum(), abs=1e-12)
            assert x[there].min() <= found["percentile_50"] <= x[there].max()
    purpose = frame.filter(
        (pl.col("feature") == "purpose") & (pl.col("role") == INPUT) & (pl.col("segment") == "overall")
    )
    assert purpose["mean"].to_list() == purpose["percentile_50"].to_list() == [None]
    assert purpose["unseen_share"].to_list() == [0.0]
    assert set(frame["role"]) == set(ROLES)
    empty = [s for i, s in enumerate(profile.segments) if made.blocks[INPUT, "all"].row_count[i].sum() == 0]
    assert empty
    assert not set(empty) & set(frame["segment"])
    importance = frame.filter(
        (pl.col("role") == "production") & (pl.col("feature") == "annual_income") & (pl.col("segment") == "overall")
    )
    phi = monitor.lake.read("production_attributions", "lending", day(1))["phi_annual_income"].to_numpy()
    mean = np.average(np.abs(phi), weights=rows["weight"].to_numpy())
    assert importance["mean_absolute"].item() == pytest.approx(mean, rel=1e-6)
