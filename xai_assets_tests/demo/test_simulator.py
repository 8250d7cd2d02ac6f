"""The planted faults are really there, where and when they are said to be, and nowhere else."""

import json
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from xai_assets.config import MonitorConfig
from xai_assets.demo import DEFAULT_FAULTS, simulate
from xai_assets.demo.faults import POPULATION_SHIFT, RELATION_CHANGE, UNIT_ERROR, day_date
from xai_assets.demo.service import CONTEXT, FEATURES, SHADOW_ONLY, default_log_odds, draw
from xai_assets.errors import SourceError
from xai_assets.explain import additivity_error, explainer_for
from xai_assets.models import load_model

NAMES = [f.name for f in FEATURES]


# ---------------------------------------------------------------- files


def test_files_days_and_counts(faulty, faulty_log):
    assert (faulty.first_date, faulty.last_date) == (date(2025, 1, 1), date(2025, 3, 1))
    assert faulty.reference == (date(2025, 1, 1), date(2025, 1, 28))
    assert sorted(p.stem for p in faulty.directory.glob("logs/*")) == [str(d) for d in faulty.dates]
    assert faulty.rows == faulty_log.height
    assert abs(faulty.rows / (60 * 5000) - 1) < 0.02
    assert faulty_log["request_id"].n_unique() == faulty.rows
    per_day = faulty_log.group_by("day").len()["len"]
    assert 4000 < per_day.min() < per_day.max() < 6000


def test_columns_types_and_missing_values(faulty_log):
    schema = faulty_log.schema
    kinds = {"numeric": pl.Float64, "categorical": pl.String, "boolean": pl.Boolean}
    assert all(schema[f.name] == kinds[f.kind] for f in FEATURES)
    assert len(FEATURES) == 15
    assert schema["requested_at"] == pl.Datetime("us", "UTC")
    missing = faulty_log.select(pl.col(NAMES).null_count() / faulty_log.height).row(0, named=True)
    assert {n for n, share in missing.items() if share > 0} == {
        "employment_months",
        "utilization_percent",
        "credit_history_months",
        "has_guarantor",
    }
    for name, values in CONTEXT.items():
        assert set(faulty_log[name].unique()) == set(values)


def test_requests_lie_in_their_day_in_order(faulty):
    for day in faulty.dates[::7]:
        at = pl.read_parquet(faulty.directory / "logs" / f"{day}.parquet")["requested_at"]
        assert at.dt.date().unique().to_list() == [day]
        assert at.is_sorted()


def test_labels_arrive_exactly_a_week_later_up_to_the_last_day(faulty):
    arrivals = sorted(date.fromisoformat(p.stem) for p in faulty.directory.glob("labels/*"))
    assert arrivals == [d for d in faulty.dates if d >= faulty.first_date + timedelta(days=7)]
    total = 0
    for arrived in arrivals:
        labels = pl.read_parquet(faulty.directory / "labels" / f"{arrived}.parquet")
        requests = pl.read_parquet(faulty.directory / "logs" / f"{arrived - timedelta(days=7)}.parquet")
        assert set(labels["request_id"]) == set(requests["request_id"])
        assert labels["request_id"].to_list() != requests["request_id"].to_list()
        assert set(labels["label"].unique()) == {0, 1}
        total += labels.height
    assert total == faulty.labels


def test_traffic_has_a_weekly_and_a_daily_pattern_and_bursts(healthy_log):
    at = healthy_log["requested_at"]
    weekday = healthy_log.group_by(at.dt.weekday().alias("w"), at.dt.date().alias("d")).len().group_by("w").mean()
    mean = dict(zip(weekday["w"], weekday["len"], strict=True))
    assert 0.8 < min(mean[6], mean[7]) / max(mean[i] for i in range(1, 6)) < 0.95
    hours = healthy_log.group_by(at.dt.hour().alias("h")).len().sort("h")["len"].to_list()
    assert hours[10] > 5 * hours[3]
    top = healthy_log.group_by(at.dt.truncate("20m").alias("t"), "day").len().group_by("day").agg(pl.col("len").max())
    assert 2 <= (top["len"] > 500).sum() <= 20


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    small = {"days": 9, "requests_per_day": 60}
    places = [tmp_path / n for n in ("a", "b", "c")]
    for place, seed in zip(places, (1, 1, 2), strict=True):
        simulate(place, seed=seed, faults=(), **small)
    names = [str(p.relative_to(places[0])) for p in sorted(places[0].rglob("*")) if p.is_file()]
    assert len(names) == 9 + 2 + 2 + 1
    for name in names:
        first, second, third = ((p / name).read_bytes() for p in places)
        assert first == second != third


def test_an_existing_simulation_is_left_alone_and_another_or_damaged_one_replaced(tmp_path):
    small = {"requests_per_day": 40, "faults": ()}
    first = simulate(tmp_path, days=9, **small)
    log = tmp_path / "logs" / "2025-01-02.parquet"
    before = log.stat().st_mtime_ns
    assert simulate(tmp_path, days=9, **small) == first
    assert log.stat().st_mtime_ns == before
    log.write_bytes(b"cut")
    assert simulate(tmp_path, days=9, **small) == first
    assert pl.read_parquet(log).height > 20
    (tmp_path / "logs" / "2025-01-03.parquet").unlink()
    assert simulate(tmp_path, days=9, **small) == first
    shorter = simulate(tmp_path, days=8, **small)
    assert len(list(tmp_path.glob("logs/*"))) == 8
    assert shorter.labels < first.labels
    (tmp_path / "simulation.json").unlink()
    (tmp_path / "models" / "notes.txt").write_text("mine")
    simulate(tmp_path, days=8, **small)
    assert (tmp_path / "models" / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "simulation.json").read_text())["counts"]["rows"] == shorter.rows


@pytest.mark.parametrize("wrong", [{"days": 0}, {"requests_per_day": 0}])
def test_refused(tmp_path, wrong):
    with pytest.raises(SourceError, match="1 or more"):
        simulate(tmp_path, **wrong)


def test_a_fault_in_the_reference_is_refused(tmp_path):
    from dataclasses import replace

    with pytest.raises(SourceError, match="starts in the reference days"):
        simulate(tmp_path, faults=(replace(UNIT_ERROR, first_day=28),))
    assert not list(tmp_path.iterdir())


def test_the_shipped_monitor_fits(faulty, faulty_log):
    config = MonitorConfig.from_mapping("lending", lending_attributes_full(), faulty.directory)
    assert set(config.feature_names) == set(NAMES)
    assert {f.name: f.kind for f in config.features} == {f.name: f.kind for f in FEATURES}
    assert set(config.context) == set(CONTEXT)
    assert (config.reference.start_date, config.reference.end_date) == faulty.reference
    assert config.end_date == faulty.last_date
    assert config.remediation.mode == "automatic"
    assert config.labels.complete_after_days == 7
    wanted = {config.columns.request_id, config.columns.requested_at, config.columns.production_output}
    wanted |= {config.columns.experimental_output, config.columns.production_latency_ms}
    assert wanted <= set(faulty_log.columns)


def lending_attributes_full() -> dict:
    from pathlib import Path

    import yaml

    text = (Path(__file__).parents[2] / "xai_assets/defs/lending/defs.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    assert document["type"] == "xai_assets.DriftMonitor"
    return document["attributes"]


# ---------------------------------------------------------------- models


def test_models_load_differ_and_their_outputs_were_logged(faulty, faulty_log):
    listed = MonitorConfig.from_mapping("lending", lending_attributes_full(), faulty.directory).features
    sample = faulty_log.sample(2000, seed=1)
    models = {r: load_model(getattr(faulty, r), features=listed) for r in ("production", "experimental")}
    for role, model in models.items():
        X = model.encode(sample)
        np.testing.assert_allclose(model.predict_output(X), sample[f"{role}_output"], atol=1e-7)
        assert additivity_error(explainer_for(model).explain(X)) < 1e-5
    extra = set(models["experimental"].feature_names) - set(models["production"].feature_names)
    assert extra == set(SHADOW_ONLY)
    divergent = (sample["production_output"] - sample["experimental_output"]).abs() > 0.10
    assert 0.05 < divergent.mean() < 0.4


def test_models_are_good_and_calibrated_on_healthy_days(healthy_log):
    from sklearn.metrics import roc_auc_score

    labelled = healthy_log.filter(pl.col("day") <= 28)
    best = draw(np.random.default_rng(5), 100_000)
    ceiling = roc_auc_score(best.label, best.default_probability)
    for role in ("production", "experimental"):
        auc = roc_auc_score(labelled["label"], labelled[f"{role}_output"])
        assert ceiling - 0.06 < auc < ceiling
        assert abs(labelled[f"{role}_output"].mean() - labelled["label"].mean()) < 0.02


# ---------------------------------------------------------------- faults


def test_twins_are_equal_before_each_fault_and_outside_its_segment(faulty_log, healthy_log):
    inputs = [*NAMES, *CONTEXT, "day"]
    rest = ~((pl.col("day") >= 35) & (pl.col("channel") == "broker"))
    rest &= ~((pl.col("day") >= 45) & (pl.col("region") == "south"))
    assert_frame_equal(faulty_log.filter(rest).select(inputs), healthy_log.filter(rest).select(inputs))
    before = pl.col("day") < 35
    assert_frame_equal(faulty_log.filter(before), healthy_log.filter(before))


def test_unit_error(faulty_log, healthy_log):
    hit = (pl.col("day") >= 35) & (pl.col("channel") == "broker")
    found, true = faulty_log.filter(hit), healthy_log.filter(hit)
    np.testing.assert_allclose(found["annual_income"] * 1000, true["annual_income"])
    first = hit & (pl.col("day") < 45)  # labels follow the true value: nothing else happened yet
    assert_frame_equal(faulty_log.filter(first).select("label"), healthy_log.filter(first).select("label"))
    smallest = healthy_log.filter(pl.col("day") <= 28)["annual_income"].min()
    assert found["annual_income"].max() < smallest, "the unit error must leave the known range"
    assert (found["production_output"] - true["production_output"]).mean() > 0.1


def test_population_shift_stays_in_the_known_range(faulty_log, healthy_log):
    hit = (pl.col("day") >= 45) & (pl.col("region") == "south")
    found, true = faulty_log.filter(hit), healthy_log.filter(hit)
    reference = healthy_log.filter(pl.col("day") <= 28)
    for name in POPULATION_SHIFT.features:
        assert found[name].mean() < 0.95 * true[name].mean()
        assert reference[name].min() <= found[name].min()
        assert found[name].max() <= reference[name].max()
        assert found[name].null_count() == true[name].null_count()
    labelled = hit & (pl.col("day") < 50)
    assert faulty_log.filter(labelled)["label"].mean() > healthy_log.filter(labelled)["label"].mean() + 0.03


def test_relation_change_shows_in_labels_alone():
    healthy, changed = (draw(np.random.default_rng(1), 200_000, f) for f in ((), (RELATION_CHANGE,)))
    assert_frame_equal(healthy.frame(), changed.frame())
    rate = healthy.true["interest_rate_percent"]
    slopes = [np.polyfit(rate, r.label, 1)[0] for r in (healthy, changed)]
    assert slopes[0] > 0.02
    assert slopes[1] < -0.02
    assert abs(healthy.label.mean() - changed.label.mean()) < 0.02, "the overall rate must not give it away"


def test_log_odds_are_the_sum_of_the_documented_terms():
    rows = draw(np.random.default_rng(2), 5)
    doubled = default_log_odds(rows.true, {"annual_income": np.full(5, 2.0)})
    term = -np.log(rows.true["annual_income"] / 42_000)
    np.testing.assert_allclose(doubled - default_log_odds(rows.true), term)


def test_faults_know_their_days():
    assert [(f.first_day, f.visible_from_day) for f in DEFAULT_FAULTS] == [(35, 35), (45, 45), (50, 57)]
    assert [f.first_date for f in DEFAULT_FAULTS] == [date(2025, 2, 4), date(2025, 2, 14), date(2025, 2, 19)]
    assert day_date(57) == RELATION_CHANGE.visible_from == date(2025, 2, 26)


# ---------------------------------------------------------------- how large the effects are


def corrected_psi(reference: np.ndarray, current: np.ndarray) -> float:
    """Statistics §3, in a few lines: 20 reference quantile cells, ½ in every cell, minus the null mean."""
    borders = np.unique(np.quantile(reference, np.linspace(0, 1, 21)))
    place = [np.searchsorted(borders, v, side="right") for v in (reference, current)]
    counts = [np.bincount(p, minlength=len(borders) + 1) + 0.5 for p in place]
    used = (counts[0] + counts[1]) > 1
    q, p = (c[used] / c[used].sum() for c in counts)
    return float(((p - q) * np.log(p / q)).sum()) - (used.sum() - 1) * (1 / len(reference) + 1 / len(current))


@pytest.fixture(scope="module")
def attributions(faulty, faulty_log):
    """φ of the production model by day, on the reference's first days and on days around the faults."""
    model = load_model(faulty.production, features=FEATURES)
    explainer = explainer_for(model)
    found = {}
    for day in (1, 2, 3, 4, 5, 6, 7, 33, 36, 46):
        frame = faulty_log.filter(pl.col("day") == day)
        found[day] = (frame, explainer.explain(model.encode(frame)).values)
    return model.feature_names, found


@pytest.mark.parametrize(
    "segment, feature, day, low, high",
    [
        ("channel=broker", "annual_income", 36, 0.5, 20),
        ("channel=web", "annual_income", 36, -0.05, 0.05),
        ("channel=broker", "annual_income", 33, -0.05, 0.05),
        ("region=south", "employment_months", 46, 0.5, 3),
        ("region=north", "employment_months", 46, -0.05, 0.05),
        ("region=south", "employment_months", 33, -0.05, 0.05),
    ],
)
def test_attributions_move_where_a_fault_is_and_only_there(attributions, segment, feature, day, low, high):
    names, found = attributions
    column, value = segment.split("=")
    j = names.index(feature)
    reference = np.concatenate([found[d][1][(found[d][0][column] == value).to_numpy(), j] for d in range(1, 8)])
    current = found[day][1][(found[day][0][column] == value).to_numpy(), j]
    assert low < corrected_psi(reference, current) < high


def test_residuals_move_with_the_interest_rate_and_only_from_day_50_on(faulty_log, healthy_log):
    def shift(log: pl.DataFrame, day: int, feature: str) -> float:
        cells = np.quantile(log.filter(pl.col("day") <= 28)[feature], np.linspace(0, 1, 11)[1:-1])
        means = []
        for rows in (log.filter(pl.col("day") <= 28), log.filter(pl.col("day") == day)):
            cell = np.searchsorted(cells, rows[feature].to_numpy())
            residual = (rows["label"] - rows["production_output"]).to_numpy()
            means.append(np.array([residual[cell == k].mean() for k in range(10)]))
        return float(np.sqrt(np.mean((means[1] - means[0]) ** 2)))

    assert shift(faulty_log, 51, "interest_rate_percent") > 0.10
    assert shift(healthy_log, 51, "interest_rate_percent") < 0.04
    assert shift(faulty_log, 44, "interest_rate_percent") < 0.05
    assert shift(faulty_log, 51, "loan_amount") < 0.05
