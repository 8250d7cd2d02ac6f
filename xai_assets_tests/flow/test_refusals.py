"""Requests that a model cannot take: they cost a day nothing but themselves."""

import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_assets.config import MonitorConfig
from xai_assets.errors import ModelError
from xai_assets.flow import background
from xai_assets.flow.attribution import explain_day, explain_request
from xai_assets.flow.background import TABLE, ensure_background, load_background, monitor_explainer
from xai_assets.flow.budget import explanation_budget
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.refusals import accepted_parts
from xai_assets.flow.replay import ingest
from xai_assets.flow.service_levels import SAMPLED, judge_days, load_levels, measure_day
from xai_assets.lake.queries import write_divergence_set
from xai_assets.lake.sampling import stable_keys
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import PHI
from xai_assets.records import MODEL_ROLES

FIRST, SECOND, EMPTY = date(2025, 1, 1), date(2025, 1, 2), date(2025, 1, 3)
ROWS = 60
MISSING = (7, 31)
"""Requests of the second day without a value of `a`, which a logistic regression refuses."""
Build = Callable[..., Monitor]


def write_log(path: Path, on: date, rows: int, missing: tuple[int, ...]) -> None:
    values = np.random.default_rng(on.toordinal()).normal(size=(rows, 2)).astype(np.float32)
    output = 1 / (1 + np.exp(-values.sum(axis=1).astype(np.float64)))
    pl.DataFrame(
        {
            "request_id": pl.Series([f"{on}-{i}" for i in range(rows)], dtype=pl.String),
            "requested_at": pl.Series([datetime(on.year, on.month, on.day, 12, tzinfo=UTC)] * rows).cast(
                pl.Datetime("us", "UTC")
            ),
            "a": pl.Series([None if i in missing else float(v) for i, v in enumerate(values[:, 0])], dtype=pl.Float32),
            "b": values[:, 1],
            "po": output,
            "eo": output,
            "overall": pl.Series(["u" if i % 3 else "v" for i in range(rows)], dtype=pl.String),
        }
    ).write_parquet(path / f"{on}.parquet")


@pytest.fixture
def small(tmp_path: Path) -> Build:
    """A monitor of a logistic regression; `days` are replayed, `missing` are the second day's missing values."""
    import skops.io
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 2))
    model = LogisticRegression().fit(X, X.sum(axis=1) + rng.normal(size=300) > 0)
    (tmp_path / "logs").mkdir()
    (tmp_path / "model.skops").write_bytes(skops.io.dumps(model))

    def build(*days: date, missing: tuple[int, ...] = MISSING, **explanation: object) -> Monitor:
        write_log(tmp_path / "logs", FIRST, ROWS, ())
        write_log(tmp_path / "logs", SECOND, ROWS, missing)
        write_log(tmp_path / "logs", EMPTY, 0, ())
        attributes = {
            "source": {"path": "logs/{date}.parquet"},
            "columns": {"production_output": "po", "experimental_output": "eo"},
            "features": {"numeric": ["a", "b"]},
            "context": ["overall"],
            "models": {"production": "model.skops", "experimental": "model.skops"},
            "reference": {"start_date": FIRST, "end_date": SECOND},
            "explanation": {"replay_check_rows": 0, "background_rows": 10, **explanation},
        }
        monitor = Monitor(MonitorConfig.from_mapping("small", attributes, tmp_path), Lake(str(tmp_path / "lake")))
        for on in days:
            ingest(monitor, on, "p")
        for on in days:
            write_divergence_set(monitor.lake, monitor.config, on, 0.1, "p", budget=explanation_budget(monitor))
        return monitor

    return build


@given(st.lists(st.booleans(), min_size=0, max_size=70))
@settings(max_examples=60, deadline=None)
def test_every_accepted_row_is_computed_once_and_no_refused_one(refused: list[bool]) -> None:
    X = np.arange(len(refused), dtype=np.float32)[:, None]
    calls = []

    def strict(part: np.ndarray) -> list[float]:
        calls.append(len(part))
        if any(refused[int(v)] for v in part[:, 0]):
            raise ModelError(f"refused among {len(part)}")
        return part[:, 0].tolist()

    parts, error = accepted_parts(strict, X)
    assert [v for _, found in parts for v in found] == [i for i, bad in enumerate(refused) if not bad]
    assert all(list(X[part, 0]) == found for part, found in parts)
    assert (error is not None) == any(refused)
    assert error is None or f"refused among {len(refused)}" in str(error), "the whole's own reason"
    depth = math.ceil(math.log2(max(len(refused), 1)))
    assert len(calls) <= min(1 + 2 * depth * sum(refused), max(2 * len(refused) - 1, 1))


def test_other_errors_are_not_taken_for_refusals() -> None:
    def broken(_: np.ndarray) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        accepted_parts(broken, np.zeros((4, 1), np.float32))


@pytest.mark.parametrize("method", ["linear", pytest.param("permutation", marks=pytest.mark.slow)])
def test_a_refused_request_is_stored_without_attributions_and_the_others_as_ever(small: Build, method: str) -> None:
    monitor = small(FIRST, SECOND, method=method, budget_rows_per_day=ROWS)
    report = explain_day(monitor, "production", SECOND, "p")
    stored = monitor.lake.read("production_attributions", "small", SECOND)
    assert (report.rows, report.failed_rows, stored.height) == (ROWS, len(MISSING), ROWS)
    assert monitor.lake.metadata("production_attributions", "small", SECOND)["failed_rows"] == "2"
    assert report.additivity_error < 1e-5
    bad = stored["request_id"].is_in([f"{SECOND}-{i}" for i in MISSING])
    assert bad.sum() == len(MISSING)
    numbers = ["base_value", "margin", f"{PHI}a", f"{PHI}b"]
    assert stored.filter(bad).select(pl.col(numbers).is_nan().all()).row(0) == (True,) * 4
    assert stored.filter(~bad).select(pl.col(numbers).is_finite().all()).row(0) == (True,) * 4
    log = monitor.lake.read("replay_log", "small", SECOND)
    row = log.filter(request_id=stored.filter(~bad)["request_id"][5]).row(0, named=True)
    alone, _ = explain_request(monitor, "production", row, method)
    np.testing.assert_allclose(stored.filter(~bad).select(numbers[2:]).row(5), alone.values[0], rtol=1e-6)


def test_a_day_of_nothing_but_refused_requests_says_why_and_stores_nothing(small: Build) -> None:
    monitor = small(FIRST, SECOND, missing=tuple(range(ROWS)))
    with pytest.raises(ModelError, match="does not accept missing values"):
        explain_day(monitor, "production", SECOND, "p")
    assert not monitor.lake.exists("production_attributions", "small", SECOND)
    assert explain_day(monitor, "production", FIRST, "p").failed_rows == 0


def test_the_background_passes_over_requests_that_a_model_refuses(small: Build) -> None:
    ids = pl.Series([f"{SECOND}-{i}" for i in range(ROWS)])
    by_key = pl.DataFrame({"i": range(ROWS), "id": ids, "key": stable_keys(ids, 0)}).sort("key")
    first = tuple(by_key["i"][:15])  # more than a background's worth
    monitor = small(SECOND, missing=first)
    ensure_background(monitor)
    stored = monitor.lake.read(TABLE, "small")
    assert stored["request_id"].to_list() == by_key["id"][15:25].to_list()
    assert load_background(monitor).null_count().row(0) == (0, 0)


def test_without_any_request_that_could_serve_there_is_no_background(small: Build) -> None:
    monitor = small(SECOND, missing=tuple(range(ROWS)))
    assert ensure_background(monitor) is None
    assert not monitor.lake.exists(TABLE, "small")
    with pytest.raises(ModelError, match="no request could serve"):
        monitor_explainer(monitor, "production")


@pytest.mark.parametrize(("method", "rows"), [("integrated_gradients", 8), ("lime", 8), ("kernel", 10)])
def test_methods_that_take_no_missing_values_get_none_as_background(
    small: Build, monkeypatch: pytest.MonkeyPatch, method: str, rows: int
) -> None:
    given: dict[str, np.ndarray] = {}
    monkeypatch.setattr(background, "explainer_for", lambda _, **asked: given.update(asked))
    monkeypatch.setattr(background, "predictable", lambda _, X: np.ones(len(X), bool))  # a model that takes them
    ids = pl.Series([f"{SECOND}-{i}" for i in range(ROWS)])
    drawn = pl.DataFrame({"i": range(ROWS), "key": stable_keys(ids, 0)}).sort("key")["i"][:2].to_list()
    monitor = small(SECOND, missing=tuple(drawn))
    monitor_explainer(monitor, "production", method)
    assert given["background"].shape == (rows, 2)


def test_an_empty_first_day_needs_no_background(small: Build) -> None:
    monitor = small(EMPTY)
    for role in MODEL_ROLES:
        assert explain_day(monitor, role, EMPTY, "p").rows == 0
        assert monitor.lake.row_count(f"{role}_attributions", "small", EMPTY) == 0
    assert monitor.lake.metadata("production_attributions", "small", EMPTY)["explainer"] == "-"
    assert {x.row_count for x in measure_day(monitor, EMPTY, "p")} == {0}


def test_one_request_by_another_method_stores_no_background(small: Build) -> None:
    monitor = small(FIRST)
    found, made_by = explain_request(monitor, "production", {"a": 1.0, "b": 2.0}, "permutation")
    assert np.isfinite(found.values).all()
    assert not monitor.lake.exists(TABLE, "small")
    ensure_background(monitor)
    _, stored = explain_request(monitor, "production", {"a": 1.0, "b": 2.0}, "permutation")
    assert stored == made_by, "the one that the daily path would draw"


def test_service_levels_leave_out_what_is_refused(small: Build) -> None:
    monitor = small(FIRST, SECOND)
    for role in MODEL_ROLES:
        explain_day(monitor, role, SECOND, "p")
    levels = {x.measure: x for x in measure_day(monitor, SECOND, "p") if x.segment == "overall"}
    for measure in ("stability", "deletion_ratio", "insertion_ratio"):
        assert levels[measure].row_count == ROWS - len(MISSING)
    assert all(math.isfinite(x.value) for x in levels.values())
    assert levels["error_rate"].value == pytest.approx(len(MISSING) / ROWS)


def test_a_sample_of_nothing_but_refused_requests_has_empty_levels(small: Build) -> None:
    monitor = small(FIRST, SECOND)
    for role in MODEL_ROLES:
        explain_day(monitor, role, SECOND, "p")
    ingest(small(missing=tuple(range(ROWS))), SECOND, "p")
    levels = [x for x in measure_day(monitor, SECOND, "p") if x.measure in SAMPLED]
    assert len(levels) == len(MODEL_ROLES) * len(SAMPLED)
    assert all(x.row_count == 0 and math.isnan(x.value) for x in levels)
    judged = judge_days(monitor.config, load_levels(monitor.lake, "small", [SECOND]))
    assert {v.measure for v in judged if not v.passed} <= {"coverage", "error_rate"}


def test_a_context_column_may_be_called_overall(small: Build) -> None:
    monitor = small(FIRST)
    for role in MODEL_ROLES:
        explain_day(monitor, role, FIRST, "p")
    levels = [x for x in measure_day(monitor, FIRST, "p") if x.measure == "coverage" and x.role == "production"]
    assert {x.segment: (x.row_count, x.value) for x in levels} == {
        "overall": (ROWS, 1.0),
        "overall=u": (40, 1.0),
        "overall=v": (20, 1.0),
    }
