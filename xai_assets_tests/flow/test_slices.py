"""Slices of a really explained small service with a fault planted into one channel, without Dagster."""

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.errors import ProvenanceError
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import ensure_profile, load_profile
from xai_assets.flow.replay import ingest
from xai_assets.flow.slice_rows import (
    SampleRows,
    attributions_of,
    draw_day,
    join_samples,
    odd_keys,
    positions_by_day,
    reference_sample,
    slice_columns,
)
from xai_assets.flow.slices import Drifting, Slicer, held_out_rows, worst_drifts
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import DIVERGENCE_SLICES, DRIFT_SCORES, DRIFT_SLICES
from xai_assets.records import MODEL_ROLES, FeatureSpec
from xai_assets.stats.rules import LevelColumn, NumberColumn
from xai_assets_tests.conftest import day, lending_attributes

FIRST, REFERENCE, FAULTY, LAST = 1, 2, 3, 4
"""Two clean days, the reference, and two on which the web channel logs incomes in thousands."""


@pytest.fixture(scope="module")
def explained(healthy_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    root = tmp_path_factory.mktemp("broken") / "project"
    shutil.copytree(healthy_source, root)
    thousandth = pl.when(pl.col("channel") == "web").then(0.001).otherwise(1.0)
    for number in range(FAULTY, LAST + 1):
        path = root / f"data/demo/lending/logs/{day(number)}.parquet"
        pl.read_parquet(path).with_columns(pl.col("annual_income") * thousandth).write_parquet(path)
    attributes = lending_attributes(
        reference={"start_date": day(FIRST), "end_date": day(REFERENCE)}, end_date=day(LAST)
    )
    monitor = Monitor(MonitorConfig.from_mapping("lending", attributes, root), Lake(str(root / "lake")))
    threshold = divergence_threshold(monitor.lake, monitor.config)
    for number in range(FIRST, LAST + 1):
        ingest(monitor, day(number), expected(monitor, "replay_log", number))
        provenance = expected(monitor, "divergence_set", number)
        write_divergence_set(monitor.lake, monitor.config, day(number), threshold, provenance, budget=None)
        for role in MODEL_ROLES:
            explain_day(monitor, role, day(number), expected(monitor, f"{role}_attributions", number))
    ensure_profile(monitor)
    return monitor


@pytest.fixture
def monitor(explained: Monitor, tmp_path: Path) -> Monitor:
    """A copy of the lake that a test may write into."""
    shutil.copytree(explained.lake.root, tmp_path / "lake")
    return Monitor(explained.config, Lake(str(tmp_path / "lake")))


def expected(monitor: Monitor, table: str, number: int) -> str:
    found = Provenance(monitor).expected(table, day(number))
    assert found is not None
    return found


def scores(*rows: tuple[str, str, str, int, float, str]) -> pl.DataFrame:
    """Rows of drift_scores: role, segment, feature, window, PSI, severity."""
    names = ("role", "segment", "feature", "window_days", "psi_corrected_nats", "severity")
    frame = pl.DataFrame([dict(zip(names, r, strict=True)) | {"population": "all"} for r in rows])
    return frame.select(
        pl.col(c).cast(t) if c in frame.columns else pl.lit(None).cast(t).alias(c)
        for c, t in DRIFT_SCORES.schema.items()
    )


def store_scores(monitor: Monitor, number: int, *rows: tuple[str, str, str, int, float, str]) -> None:
    metadata = {"provenance": f"scores {number}", "profile_hash": load_profile(monitor).profile_hash}
    frame = scores(*rows) if rows else pl.DataFrame(schema=DRIFT_SCORES.schema)
    monitor.lake.write("drift_scores", monitor.name, day(number), frame, metadata)


BROKEN = ("production", "overall", "annual_income", 1, 1.0, "critical")


# --- drawing ---------------------------------------------------------------------------------------------------------


def test_a_days_sample_is_rows_of_the_day_whatever_its_size(explained: Monitor) -> None:
    whole, part = (draw_day(explained, day(FAULTY), n) for n in (10_000, 300))
    log = explained.lake.read("replay_log", explained.name, day(FAULTY))
    assert whole.facts.height == log.height
    assert part.facts.equals(whole.facts.head(300)), "the smallest keys"
    assert whole.facts["key"].is_sorted()
    by_id = log.join(part.facts.select("request_id", "delta", "flipped"), on="request_id", maintain_order="right")
    assert part.values.equals(by_id.select(part.values.columns))
    delta = by_id["experimental_output"] - by_id["production_output"]
    assert np.allclose(delta, by_id["delta"])
    flips = (by_id["experimental_output"] >= 0.5) != (by_id["production_output"] >= 0.5)
    assert flips.to_list() == by_id["flipped"].to_list()
    assert 0.4 < odd_keys(whole.facts["key"]).mean() < 0.6


def test_attributions_of_the_drawn_are_theirs(explained: Monitor) -> None:
    drawn = [draw_day(explained, day(n), 200) for n in (FIRST, FAULTY)]
    sample = join_samples(drawn, 300)
    assert sample.facts.height == 300
    assert set(sample.facts["day"]) == {day(FIRST), day(FAULTY)}
    features = ["annual_income", "purpose"]
    found = attributions_of(explained, sample, "production", features)
    days = [day(FIRST), day(FAULTY)]
    stored = explained.lake.read_days("production_attributions", explained.name, days)
    keys = {"left_on": ["day", "request_id"], "right_on": ["date", "request_id"]}
    wanted = sample.facts.join(stored, **keys, how="left", maintain_order="left")
    assert np.array_equal(found, wanted.select("phi_annual_income", "phi_purpose").to_numpy())


def test_tables_of_other_requests_are_refused(monitor: Monitor) -> None:
    sample = draw_day(monitor, day(FAULTY), 50)
    other = monitor.lake.read("production_attributions", monitor.name, day(FAULTY)).reverse()
    monitor.lake.write("production_attributions", monitor.name, day(FAULTY), other, {})
    with pytest.raises(ProvenanceError, match="does not hold the requests of divergence_set"):
        attributions_of(monitor, sample, "production", ["annual_income"])
    log = monitor.lake.read("replay_log", monitor.name, day(FAULTY)).reverse()
    monitor.lake.write("replay_log", monitor.name, day(FAULTY), log, {})
    with pytest.raises(ProvenanceError, match="replay_log"):
        draw_day(monitor, day(FAULTY), 50)


def test_columns_of_rules_follow_the_kinds_of_features() -> None:
    values = pl.DataFrame(
        {"age": [30.0, None], "home": ["own", None], "guarantor": [True, False], "channel": [None, "web"]},
        schema_overrides={"age": pl.Float32},
    )
    kinds = {"age": "numeric", "home": "categorical", "guarantor": "boolean"}
    age, home, guarantor, channel = slice_columns(values, [FeatureSpec(*k) for k in kinds.items()], ["channel", "home"])
    assert isinstance(age, NumberColumn)
    assert np.array_equal(age.values, [30.0, np.nan], equal_nan=True)
    for column, name, codes, levels in (
        (home, "home", [0, -1], ("own",)),
        (guarantor, "guarantor", [1, 0], ("false", "true")),
        (channel, "channel", [-1, 0], ("web",)),
    ):
        assert isinstance(column, LevelColumn)
        assert (column.name, column.codes.tolist(), column.levels) == (name, codes, levels)


def test_every_second_day_is_held_out_where_there_are_enough() -> None:
    def facts(*rows_of_day: int) -> pl.DataFrame:
        days = [date(2025, 1, 1 + i) for i, n in enumerate(rows_of_day) for _ in range(n)]
        return pl.DataFrame({"day": days, "key": pl.Series(range(len(days)), dtype=pl.UInt64)})

    assert positions_by_day(facts(1, 1, 1)).tolist() == [2, 1, 0]
    held_out, by = held_out_rows(facts(100, 100, 100))
    assert (by, held_out.tolist()) == ("days", [False] * 100 + [True] * 100 + [False] * 100)
    for rows in ((300,), (99, 300)):
        held_out, by = held_out_rows(facts(*rows))
        assert (by, held_out.sum()) == ("rows", sum(rows) // 2)


# --- which attributions ----------------------------------------------------------------------------------------------


def test_the_worst_drifts_come_first_and_in_their_best_window() -> None:
    found = worst_drifts(
        scores(
            ("production", "overall", "fresh", 1, 1.0, "critical"),
            ("production", "overall", "fresh", 7, 0.2, "noted"),
            ("experimental", "overall", "old", 1, 0.50, "warning"),
            ("experimental", "channel=web", "old", 7, 0.45, "warning"),
            ("experimental", "overall", "slow", 28, 0.60, "warning"),
            ("production", "overall", "calm", 1, 9.0, "none"),
            ("production", "overall", "unsure", 1, 9.0, "insufficient"),
            ("difference", "overall", "other_role", 1, 9.0, "critical"),
            ("input", "overall", "other_role", 1, 9.0, "critical"),
            ("production", "overall", "*", 1, 9.0, "critical"),
        )
    )
    assert found == [
        Drifting("production", "fresh", 1),
        Drifting("experimental", "slow", 7),
        Drifting("experimental", "old", 7),
    ]
    many = [("production", "overall", f"f{i}", 1, 1.0 - i / 10, "noted") for i in range(9)]
    assert [d.feature for d in worst_drifts(scores(*many))] == ["f0", "f1", "f2", "f3", "f4"]


# --- days ------------------------------------------------------------------------------------------------------------


def test_the_drift_of_one_channel_is_found_in_that_channel(monitor: Monitor) -> None:
    store_scores(monitor, FAULTY, BROKEN, ("experimental", "overall", "loan_amount", 1, 0.1, "noted"))
    found = Slicer(monitor).drift_day(day(FAULTY), "p")
    (confirmed,) = found.frame.filter("confirmed").iter_rows(named=True)
    assert (confirmed["role"], confirmed["feature"], confirmed["rule"]) == (
        "production",
        "annual_income",
        "channel = web",
    )
    assert json.loads(confirmed["conditions_json"]) == [{"column": "channel", "in": ["web"], "missing": False}]
    assert confirmed["psi_corrected_nats"] > 2 > 0.1 > confirmed["psi_rest_nats"]
    assert confirmed["confirmed_on"] == "rows"
    assert found.note == "looked at annual_income (production, 1 d), loan_amount (experimental, 1 d)"
    assert monitor.lake.read("drift_slices", monitor.name, day(FAULTY)).equals(found.frame)
    assert found.frame.schema == pl.Schema(DRIFT_SLICES.schema)


def test_several_days_of_drift_are_confirmed_on_days_of_their_own(monitor: Monitor) -> None:
    store_scores(monitor, LAST, ("experimental", "overall", "annual_income", 2, 1.0, "critical"))
    found = Slicer(monitor).drift_day(day(LAST), "p").frame.filter("confirmed")
    assert found.select("rule", "window_days", "confirmed_on").rows() == [("channel = web", 2, "days")]


def test_a_day_without_drift_has_none_but_the_reference_is_kept_for_later(monitor: Monitor) -> None:
    store_scores(monitor, FAULTY)
    found = Slicer(monitor).drift_day(day(FAULTY), "p")
    assert (found.frame.height, found.note) == (0, "no attribution drifts")
    assert monitor.lake.exists("slice_reference", monitor.name)
    assert monitor.lake.row_count("drift_slices", monitor.name, day(FAULTY)) == 0


def test_the_reference_is_drawn_once_and_kept(monitor: Monitor) -> None:
    first = reference_sample(monitor)
    assert first is not None
    rows = sum(monitor.lake.row_count("divergence_set", monitor.name, day(n)) for n in (FIRST, REFERENCE))
    assert first.frame.height == rows
    assert set(first.frame["requested_on"]) == {day(FIRST), day(REFERENCE)}
    stored = monitor.lake.read("production_attributions", monitor.name, day(FIRST))
    same = first.frame.join(stored, on="request_id", how="inner", maintain_order="right")
    assert same["production_phi_annual_income"].equals(
        stored["phi_annual_income"].rename("production_phi_annual_income")
    )
    for number in (FIRST, REFERENCE):
        monitor.lake.delete("divergence_set", monitor.name, day(number))
    again = reference_sample(monitor)
    assert again is not None
    assert again.frame.equals(first.frame)


def test_without_the_references_rows_the_note_says_so(monitor: Monitor) -> None:
    for number in (FIRST, REFERENCE):
        monitor.lake.delete("replay_log", monitor.name, day(number))
    store_scores(monitor, FAULTY, BROKEN)
    found = Slicer(monitor).drift_day(day(FAULTY), "p")
    assert (found.frame.height, found.note) == (0, "no slices: the rows of the reference days are not stored any more")


def test_divergence_slices_find_what_was_planted_into_the_outputs(monitor: Monitor) -> None:
    """The experimental output is moved by 0.3 for young clients on the web: divergence set and log are rewritten."""
    planted = (pl.col("age_years") < 40) & (pl.col("channel") == "web")
    for number in range(FIRST, LAST + 1):
        log = monitor.lake.read("replay_log", monitor.name, day(number))
        moved = pl.col("production_output") + pl.when(planted).then(0.3).otherwise(0.02)
        log = log.with_columns(moved.alias("experimental_output"))
        monitor.lake.write("replay_log", monitor.name, day(number), log, {"provenance": "planted", "content_hash": "p"})
        write_divergence_set(monitor.lake, monitor.config, day(number), 0.1, "planted", budget=None)
    found = Slicer(monitor).divergence_day(day(LAST), "p")
    ((rule, lift, window),) = found.frame.filter("confirmed").select("rule", "lift", "window_days").rows()
    assert rule == "age_years < 40 and channel = web"
    assert lift == pytest.approx(15.0, rel=1e-6)
    assert window == 7
    assert found.note.startswith("1 confirmed of 1 found in ")
    assert found.note.endswith(" requests of 4 days")
    budgeted = [
        write_divergence_set(monitor.lake, monitor.config, day(n), 0.1, "planted", budget=300).explained_rows
        for n in range(FIRST, LAST + 1)
    ]
    assert budgeted == [300] * 4
    sampled = Slicer(monitor).divergence_day(day(LAST), "p").frame.filter("confirmed")
    support = [f["support_share"].item() for f in (found.frame, sampled)]
    assert sampled["rule"].to_list() == ["age_years < 40 and channel = web"]
    assert support[1] == pytest.approx(support[0], rel=0.2), "weights undo that divergent requests are drawn more often"


def test_few_requests_are_insufficient(monitor: Monitor) -> None:
    for number in range(FIRST, LAST + 1):
        log = monitor.lake.read("replay_log", monitor.name, day(number)).head(30)
        monitor.lake.write("replay_log", monitor.name, day(number), log, {"provenance": "few", "content_hash": "f"})
        write_divergence_set(monitor.lake, monitor.config, day(number), 0.1, "few", budget=None)
    found = Slicer(monitor).divergence_day(day(LAST), "p")
    assert found.frame.height == 0
    assert found.frame.schema == pl.Schema(DIVERGENCE_SLICES.schema)
    assert found.note == "insufficient: 120 explained requests in 4 days, 200 are needed"


def test_a_sample_of_no_context_and_one_feature_is_fine(explained: Monitor) -> None:
    config = replace(explained.config, context=(), derived_context=())
    sample = draw_day(Monitor(config, explained.lake), day(FIRST), 100)
    assert isinstance(sample, SampleRows)
    assert sample.values.columns == list(config.feature_names)


# --- provenance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("drifting", [(), (("experimental", "overall", "annual_income", 2, 1.0, "critical"),)])
def test_what_is_made_of_rows_past_their_retention_stays(monitor: Monitor, drifting: tuple) -> None:
    store_scores(monitor, LAST, *drifting)
    slicer = Slicer(monitor)
    for table, write in (("divergence_slices", slicer.divergence_day), ("drift_slices", slicer.drift_day)):
        before = expected(monitor, table, LAST)
        write(day(LAST), before)
        assert expected(monitor, table, LAST) == before
    for table in ("replay_log", "divergence_set", "production_attributions"):
        monitor.lake.delete(table, monitor.name, day(FIRST))
    assert expected(monitor, "divergence_slices", LAST) == Provenance(monitor).stored("divergence_slices", day(LAST))
    assert expected(monitor, "drift_slices", LAST) == Provenance(monitor).stored("drift_slices", day(LAST))


def test_slices_follow_the_rows_of_their_week_and_wait_for_scores(monitor: Monitor) -> None:
    assert Provenance(monitor).expected("drift_slices", day(LAST)) is None, "no scores yet"
    before = expected(monitor, "divergence_slices", LAST)
    write_divergence_set(monitor.lake, monitor.config, day(FIRST), 0.1, "another", budget=None)
    assert expected(monitor, "divergence_slices", LAST) != before
    monitor.lake.delete("divergence_set", monitor.name, day(LAST))
    assert Provenance(monitor).expected("divergence_slices", day(LAST)) is None
