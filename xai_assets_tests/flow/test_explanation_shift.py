"""Samples, reference and verdicts of the explanation shift over a really explained small service, without Dagster."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_assets.config import AlarmBudget, MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.flow import shift_samples
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.explanation_shift import COMPARED, FEWEST_WINDOWS, ShiftJudge, ensure_reference, normal_auc
from xai_assets.flow.histograms import write_day_histograms
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import ensure_profile, load_profile
from xai_assets.flow.replay import ingest
from xai_assets.flow.shift_samples import Sampler, role_values
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import EXPLANATION_SHIFT
from xai_assets.records import MODEL_ROLES
from xai_assets.stats.explanation_shift import ExplanationShift, explanation_shift
from xai_assets_tests.conftest import REFERENCE_DAYS, day, lending_attributes

LAST = REFERENCE_DAYS + 2
WINDOWS = [1, 2, 7]


def expected(monitor: Monitor, table: str, number: int) -> str:
    found = Provenance(monitor).expected(table, day(number))
    assert found is not None
    return found


def explained_days(config: MonitorConfig, lake: Lake, budget: int | None = None) -> Monitor:
    """Eight days through every stage up to the histograms."""
    monitor = Monitor(config, lake)
    for i in range(1, LAST + 1):
        ingest(monitor, day(i), expected(monitor, "replay_log", i))
    threshold = divergence_threshold(lake, config)
    for i in range(1, LAST + 1):
        provenance = expected(monitor, "divergence_set", i)
        write_divergence_set(lake, config, day(i), threshold, provenance, budget=budget)
        for role in MODEL_ROLES:
            explain_day(monitor, role, day(i), expected(monitor, f"{role}_attributions", i))
    ensure_profile(monitor)
    profile = load_profile(monitor)
    for i in range(1, LAST + 1):
        write_day_histograms(monitor, day(i), profile, expected(monitor, "attribution_histograms", i))
    return monitor


@pytest.fixture(scope="module")
def made(healthy_source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[MonitorConfig, Path]:
    attributes = lending_attributes(drift={"windows_days": WINDOWS})
    config = MonitorConfig.from_mapping("lending", attributes, healthy_source)
    root = tmp_path_factory.mktemp("explained") / "lake"
    monitor = explained_days(config, Lake(str(root)))
    ensure_reference(monitor, Sampler(monitor))
    return config, root


@pytest.fixture
def monitor(made: tuple[MonitorConfig, Path], tmp_path: Path) -> Monitor:
    """A copy that a test may change."""
    config, root = made
    shutil.copytree(root, tmp_path / "lake")
    return Monitor(config, Lake(str(tmp_path / "lake")))


def plant(monitor: Monitor, number: int, change: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
    """Change a day's stored attributions of the production model."""
    table, lake = "production_attributions", monitor.lake
    footer = lake.metadata(table, monitor.name, day(number)) | {"provenance": f"planted {number}"}
    lake.write(table, monitor.name, day(number), change(lake.read(table, monitor.name, day(number))), footer)


def raised(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col("phi_annual_income") + pl.col("phi_annual_income").std())


def row(rows: pl.DataFrame, role: str, window: int) -> dict[str, object]:
    return rows.row(by_predicate=(pl.col("role") == role) & (pl.col("window_days") == window), named=True)


def test_a_healthy_day_is_stable_and_the_same_inputs_give_the_same_rows(monitor: Monitor) -> None:
    first = ShiftJudge(monitor).judge_day(day(LAST), "p1")
    stored = monitor.lake.read("explanation_shift", "lending", day(LAST))
    assert stored.equals(first)
    assert stored.schema == EXPLANATION_SHIFT.schema
    assert stored.select("role", "window_days").rows() == [(r, w) for w in WINDOWS for r in COMPARED]
    assert "shifted" not in stored["verdict"].to_list()
    short = row(stored, "production", 1)
    assert short["row_count"] == monitor.lake.row_count("divergence_set", "lending", day(LAST))
    assert sorted(short["features"]) == sorted(monitor.config.feature_names)  # type: ignore[call-overload]
    for table in ("explanation_shift_sample", "explanation_shift_reference"):
        shutil.rmtree(Path(monitor.lake.root) / table)
    assert ShiftJudge(monitor).judge_day(day(LAST), "p1").equals(first)


def test_a_planted_shift_is_found_and_named_in_the_model_and_in_the_difference(monitor: Monitor) -> None:
    plant(monitor, LAST, raised)
    rows = ShiftJudge(monitor).rows(day(LAST))
    for role, sign in (("production", 1), ("difference", -1)):
        found = row(rows, role, 1)
        assert (found["verdict"], found["p_value"]) == ("shifted", 1 / 200)
        assert found["features"][0] == "annual_income"  # type: ignore[index]
        assert np.sign(found["coefficients"][0]) == sign  # type: ignore[index]
        assert f"is above {found['auc_reference_quantile']:.3f}" in str(found["rule"])
    assert row(rows, "experimental", 1)["verdict"] == "stable"
    assert 0.5 < row(rows, "production", 2)["auc"] < row(rows, "production", 1)["auc"]  # type: ignore[operator]


def test_a_day_s_sample_is_the_smallest_keys_computed_one_by_one(
    monitor: Monitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shift_samples, "DAY_ROWS", 50)
    sample = Sampler(monitor).day(day(1))
    assert sample is not None
    phi = monitor.lake.read("production_attributions", "lending", day(1))

    def key(request: str) -> int:
        return int.from_bytes(hashlib.md5(f"{2**32}:{request}".encode()).digest()[:8], "little")

    ids = sorted(phi["request_id"].to_list(), key=key)[:50]
    assert sample.rows["request_id"].to_list() == ids
    assert sample.explained == phi.height
    by_id = dict(zip(phi["request_id"], phi["phi_annual_income"], strict=True))
    assert sample.rows["phi_production_annual_income"].to_list() == [by_id[i] for i in ids]


def test_a_window_takes_from_each_day_its_share_and_stands_for_all_of_it(monitor: Monitor) -> None:
    sampler, days = Sampler(monitor), [day(i) for i in range(1, 5)]
    rows = sampler.rows(days, 400)
    explained = {d: monitor.lake.row_count("divergence_set", "lending", d) for d in days}
    total = sum(explained.values())
    taken = dict(rows.group_by("requested_on").len().iter_rows())
    assert taken == {d: round(400 * n / total) for d, n in explained.items()}
    sums = dict(rows.group_by("requested_on").agg(pl.col("weight").sum()).iter_rows())
    assert sums == {d: pytest.approx(n) for d, n in explained.items()}, "every request was explained: π is 1"
    whole = sampler.rows(days[:1], 10_000)
    assert whole["weight"].to_list() == [1.0] * explained[days[0]]


@pytest.mark.slow
def test_weights_of_a_budget_stand_for_the_requests_of_the_day(healthy_source: Path, tmp_path: Path) -> None:
    """200 of about 600 explained, divergent ones more often: 1/π gives the day's requests back."""
    attributes = lending_attributes(drift={"windows_days": [1]}, explanation={"budget_rows_per_day": 200})
    config = MonitorConfig.from_mapping("lending", attributes, healthy_source)
    monitor = explained_days(config, Lake(str(tmp_path / "lake")), budget=200)
    rows = Sampler(monitor).rows([day(1)], 1_000)
    assert rows.height == 200
    assert len(set(rows["weight"].to_list())) == 2, "two strata"
    assert rows["weight"].sum() == pytest.approx(monitor.lake.row_count("replay_log", "lending", day(1)))
    found = ShiftJudge(monitor).rows(day(LAST))
    assert found["row_count"].to_list() == [200] * 3
    assert "shifted" not in found["verdict"].to_list()


def test_difference_is_experimental_minus_production(monitor: Monitor) -> None:
    values = role_values(Sampler(monitor).rows([day(1)], 100), monitor.config.feature_names)
    assert np.array_equal(values["difference"], values["experimental"] - values["production"])


def test_attributions_that_are_not_finite_are_left_out(monitor: Monitor) -> None:
    failed = pl.row_index() < 40
    plant(monitor, LAST, lambda f: f.with_columns(pl.when(~failed).then("phi_annual_income").otherwise(np.nan)))
    rows = ShiftJudge(monitor).rows(day(LAST))
    whole = row(rows, "experimental", 1)["row_count"]
    assert [row(rows, r, 1)["row_count"] for r in ("production", "difference")] == [whole - 40] * 2  # type: ignore[operator]
    plant(monitor, LAST, lambda f: f.with_columns(pl.lit(np.nan, pl.Float32).alias("phi_annual_income")))
    monitor.lake.delete("explanation_shift_sample", "lending", day(LAST))
    found = ShiftJudge(monitor).rows(day(LAST))
    assert row(found, "production", 1)["verdict"] == "insufficient"
    assert row(found, "experimental", 1)["verdict"] == "stable"


def test_the_reference_goes_on_without_its_days_rows(monitor: Monitor) -> None:
    before = ShiftJudge(monitor).rows(day(LAST))
    for i in range(1, REFERENCE_DAYS + 1):
        for table in ("production_attributions", "experimental_attributions", "explanation_shift_sample"):
            monitor.lake.delete(table, "lending", day(i))
    after = ShiftJudge(monitor).rows(day(LAST))
    short = pl.col("window_days") <= 2
    assert after.filter(short).equals(before.filter(short))
    assert row(after, "production", 7)["day_count"] == 2
    assert row(before, "production", 7)["day_count"] == 7


def test_what_was_judged_stays_when_its_rows_are_gone(monitor: Monitor) -> None:
    provenance = expected(monitor, "explanation_shift", LAST)
    ShiftJudge(monitor).judge_day(day(LAST), provenance)
    assert Provenance(monitor).stored("explanation_shift", day(LAST)) == provenance
    assert expected(monitor, "explanation_shift", LAST) == provenance
    monitor.lake.delete("production_attributions", "lending", day(LAST - 1))
    assert expected(monitor, "explanation_shift", LAST) == provenance, "retention makes no day stale"
    monitor.lake.delete("production_attributions", "lending", day(LAST))
    assert expected(monitor, "explanation_shift", LAST) == provenance
    assert Provenance(monitor).expected("explanation_shift", day(LAST - 1)) is None, "nothing can be made of it"


def test_the_reference_is_made_once_per_profile(monitor: Monitor) -> None:
    first = ensure_reference(monitor, Sampler(monitor))
    version = monitor.lake.metadata("explanation_shift_reference", "lending")
    plant(monitor, 1, raised)
    kept = ensure_reference(monitor, Sampler(monitor))
    assert kept.rows.equals(first.rows)
    assert kept.aucs == first.aucs
    assert first.rows["requested_on"].n_unique() == REFERENCE_DAYS
    assert {w for _, w in first.aucs} == {1, 2}, "7 days are more than half of the reference"
    assert all(len(found) == REFERENCE_DAYS + 1 - w for (_, w), found in first.aucs.items())
    ensure_profile(monitor, force=True)
    assert ensure_reference(monitor, Sampler(monitor)).aucs != first.aucs
    assert monitor.lake.metadata("explanation_shift_reference", "lending") != version


def test_days_of_another_model_are_not_compared(monitor: Monitor) -> None:
    table = "production_attributions"
    footer = monitor.lake.metadata(table, "lending", day(LAST)) | {"model_sha256": "another"}
    monitor.lake.write(table, "lending", day(LAST), monitor.lake.read(table, "lending", day(LAST)), footer)
    found = row(ShiftJudge(monitor).rows(day(LAST)), "production", 1)
    assert (found["verdict"], found["day_count"], found["row_count"]) == ("insufficient", 0, 0)
    assert found["auc"] is None


def test_a_day_without_requests_is_insufficient_and_adds_nothing_to_its_window(monitor: Monitor) -> None:
    before = ShiftJudge(monitor).rows(day(LAST - 1))
    for table in ("divergence_set", "production_attributions", "experimental_attributions"):
        footer = monitor.lake.metadata(table, "lending", day(LAST)) | {"provenance": "empty"}
        monitor.lake.write(table, "lending", day(LAST), monitor.lake.read(table, "lending", day(LAST)).clear(), footer)
    rows = ShiftJudge(monitor).rows(day(LAST))
    found = row(rows, "production", 1)
    assert (found["verdict"], found["day_count"], found["row_count"]) == ("insufficient", 1, 0)
    assert row(rows, "production", 2)["row_count"] == row(before, "production", 1)["row_count"]


def test_a_window_over_most_of_the_reference_is_not_judged(monitor: Monitor) -> None:
    found = row(ShiftJudge(monitor).rows(day(REFERENCE_DAYS)), "production", 7)
    assert found["verdict"] == "insufficient"
    assert "half of the reference" in str(found["rule"])
    own = row(ShiftJudge(monitor).rows(day(REFERENCE_DAYS)), "production", 1)
    assert own["verdict"] == "stable", "a reference day against the others"
    reference = ensure_reference(monitor, Sampler(monitor))
    assert own["row_count_reference"] == reference.rows.filter(pl.col("requested_on") != day(REFERENCE_DAYS)).height


def test_without_a_profile_it_says_what_to_do(monitor: Monitor) -> None:
    monitor.lake.delete("reference_profile", "lending")
    with pytest.raises(LakeError, match="materialize lending/reference_profile"):
        ShiftJudge(monitor).rows(day(1))


BUDGET = AlarmBudget(1.0, 30)


@given(st.lists(st.floats(0, 1), min_size=FEWEST_WINDOWS, max_size=80), st.integers(2, 60))
def test_the_reference_exceeds_its_quantile_no_more_often_than_the_budget(aucs: list[float], per_days: int) -> None:
    normal = normal_auc({("production", 1): tuple(aucs)}, "production", 1, replace(BUDGET, per_days=per_days))
    assert normal is not None
    assert sum(a > normal.auc for a in aucs) / len(aucs) <= 1 / per_days
    if len(aucs) <= per_days:
        assert normal.auc == max(aucs)


def test_longer_windows_than_the_reference_has_take_the_next_shorter_ones() -> None:
    aucs = {("production", 1): (0.51, 0.52, 0.53, 0.54, 0.55), ("production", 7): (0.6,)}
    normal = normal_auc(aucs, "production", 28, BUDGET)
    assert normal is not None
    assert (normal.auc, normal.window_days, normal.windows) == (0.55, 1, 5)
    assert normal_auc({("production", 1): (0.5,) * (FEWEST_WINDOWS - 1)}, "production", 1, BUDGET) is None
    assert normal_auc(aucs, "experimental", 28, BUDGET) is None


@pytest.mark.slow
def test_days_that_resemble_themselves_keep_the_budget_where_a_p_value_fires_daily() -> None:
    """Each day has a level of its own (0.15 standard deviations); nothing drifts. Budget: 1 in 30 days.

    Measured over 300 days: 1.2 shifted days in 30; with the p-value alone 29.
    """
    rng, names = np.random.default_rng(4), tuple("abcdefgh")

    def a_day() -> np.ndarray:
        return rng.normal(size=(500, 8)) + 0.15 * rng.normal(size=(1, 8))

    def test(reference: list[np.ndarray], current: np.ndarray, permutations: int) -> ExplanationShift:
        return explanation_shift(np.concatenate(reference), current, names, permutations=permutations, rng=rng)

    days = [a_day() for _ in range(28)]
    sample = [rows[:71] for rows in days]
    aucs = [test(sample[:i] + sample[i + 1 :], rows, 0).auc for i, rows in enumerate(days)]
    normal = normal_auc({("production", 1): tuple(aucs)}, "production", 1, BUDGET)
    assert normal is not None
    found = [test(sample, a_day(), 199) for _ in range(40)]
    assert sum(shift.p_value <= 0.01 for shift in found) >= 35
    assert sum(shift.p_value <= 0.01 and shift.auc > normal.auc for shift in found) <= 4
