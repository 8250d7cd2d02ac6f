"""Errors of labelled requests in the lake, and their fold: right blocks, right day, and the same bytes at any time."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.concept_drift import ConceptFolder, findings, write_day_errors
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.lake.store import Lake
from xai_assets.records import MODEL_ROLES

FIRST = date(2025, 1, 1)
DELAY, REFERENCE = 7, 14
Write = Callable[..., None]


def model(path: Path, objective: str) -> None:
    """The smallest model that is one: its outputs are never asked for, the log has them."""
    import xgboost

    rng = np.random.default_rng(0)
    data = xgboost.DMatrix(rng.normal(size=(50, 1)), label=rng.integers(0, 2, 50), feature_names=["x"])
    xgboost.train({"objective": objective, "max_depth": 2, "nthread": 1}, data, 2).save_model(path)


@pytest.fixture
def monitor(request: pytest.FixtureRequest, tmp_path: Path) -> Monitor:
    """A monitor of 14 reference days, labels complete after 7; `objective` by indirect parametrisation."""
    objective = getattr(request, "param", "binary:logistic")
    for role in MODEL_ROLES:
        model(tmp_path / f"{role}.json", objective)
    attributes = {
        "source": {"path": "logs/{date}.parquet"},
        "labels": {"path": "labels/{date}.parquet", "complete_after_days": DELAY},
        "features": {"numeric": ["x"]},
        "models": {"production": "production.json", "experimental": "experimental.json"},
        "reference": {"start_date": FIRST, "end_date": FIRST + timedelta(days=REFERENCE - 1)},
    }
    return Monitor(MonitorConfig.from_mapping("credit", attributes, tmp_path), Lake(str(tmp_path / "lake")))


def day(number: int) -> date:
    """The 0-based day."""
    return FIRST + timedelta(days=number)


def write_requests(
    monitor: Monitor, number: int, *, noise: float, requests: int = 300, labelled: bool = True, shuffled: bool = False
) -> pl.DataFrame:
    """A day whose experimental model errs by `noise` (standard deviation, or share of labels turned round)."""
    rng = np.random.default_rng(number)
    probability = rng.uniform(size=requests)
    is_classifier = monitor.model("production").is_classifier
    label = rng.binomial(1, probability) if is_classifier else probability
    wrong = np.where(rng.uniform(size=requests) < noise, 1 - probability, probability)
    start = datetime.combine(day(number), datetime.min.time(), UTC)
    frame = pl.DataFrame(
        {
            "request_id": [f"{number}-{i}" for i in range(requests)],
            "requested_at": [start + timedelta(minutes=i) for i in range(requests)],
            "production_output": probability if is_classifier else probability + rng.normal(0, 0.1, requests),
            "experimental_output": wrong if is_classifier else probability + rng.normal(0, noise, requests),
            "label": label.astype(np.float64) if labelled else np.full(requests, None, dtype=object),
        },
        schema_overrides={"requested_at": pl.Datetime("us", "UTC"), "label": pl.Float64()},
    )
    latencies = [pl.lit(None, pl.Float64()).alias(f"{role}_latency_ms") for role in MODEL_ROLES]
    frame = frame.with_columns(latencies)
    hashed = {"content_hash": f"{number} {noise} {labelled}"}
    monitor.lake.write("replay_log", "credit", day(number), frame.sample(fraction=1, shuffle=shuffled, seed=1), hashed)
    return frame


def write_errors(monitor: Monitor, first: int, last: int) -> None:
    for number in range(first, last + 1):
        write_day_errors(monitor, day(number), "p")


def states(folder: ConceptFolder, number: int) -> dict[tuple[str, str], dict[str, object]]:
    return {(r["role"], r["detector"]): r for r in folder.states(day(number)).iter_rows(named=True)}


@pytest.mark.parametrize("monitor", ["binary:logistic", "reg:squarederror"], indirect=True)
def test_blocks_hold_the_mean_errors_of_requests_in_the_order_of_their_time(monitor: Monitor) -> None:
    frame = write_requests(monitor, 0, noise=0.1, requests=130, shuffled=True)
    metadata = write_day_errors(monitor, day(DELAY), "p")
    stored = monitor.lake.read("error_stream", "credit", day(DELAY))
    rows = stored.filter(pl.col("role") == "experimental")
    residual = (frame["label"] - frame["experimental_output"]).to_numpy()
    is_classifier = monitor.model("production").is_classifier
    errors = residual**2 if is_classifier else np.abs(residual)
    sizes = rows["label_count"].to_list()
    assert sizes == [22, 22, 21, 22, 22, 21]
    borders = np.cumsum(sizes)[:-1]
    assert rows["error_mean"].to_list() == pytest.approx([e.mean() for e in np.split(errors, borders)])
    assert rows["first_requested_at"].to_list() == [frame["requested_at"][int(i)] for i in (0, *borders)]
    assert set(stored["error"]) == {"brier" if is_classifier else "absolute_error"}
    assert metadata["experimental_error"] == pytest.approx(errors.mean())
    assert metadata["requests_of"] == str(FIRST)


@pytest.mark.parametrize(
    "monitor, noisier", [("binary:logistic", 0.5), ("reg:squarederror", 0.2)], indirect=["monitor"]
)
def test_a_model_that_errs_more_from_a_day_on_is_found_and_the_other_is_left_alone(
    monitor: Monitor, noisier: float
) -> None:
    for number in range(50):
        write_requests(monitor, number, noise=0.1 if number < 35 else noisier)
    write_errors(monitor, DELAY, 49 + DELAY)
    folder = ConceptFolder(monitor)
    before, after = states(folder, 34 + DELAY), states(folder, 49 + DELAY)
    assert {r["state"] for r in before.values()} == {"stable"}
    assert {after["production", d]["state"] for d in ("adwin", "page_hinkley")} == {"stable"}
    for detector in ("adwin", "page_hinkley"):
        row = after["experimental", detector]
        assert row["state"] == "rising"
        assert day(35 + DELAY) <= row["detected_on"] <= day(40 + DELAY)
        assert row["changed_from"] in (day(34), day(35), day(36)), "a day of requests, not of labels"
        assert row["error_after"] > row["error_before"] * 1.2
        assert row["label_count"] == 50 * 300
        assert "rose from" in row["sentence"]
        assert str(row["changed_from"]) in row["sentence"]
    words = {"binary:logistic": "Brier", "reg:squarederror": "output units"}
    assert words[monitor.model("production").objective] in after["experimental", "adwin"]["unit"]


def test_findings_of_a_stored_day_name_a_rise_first(monitor: Monitor) -> None:
    for number in range(30):
        write_requests(monitor, number, noise=0.1 if number < 22 else 0.7)
    write_errors(monitor, DELAY, 29 + DELAY)
    assert findings(monitor, day(29 + DELAY)) == []
    ConceptFolder(monitor).write_day(day(29 + DELAY), "p")
    first, *rest = findings(monitor, day(29 + DELAY))
    assert "the experimental model's Brier loss rose from" in first
    assert sum("no change of the production model's Brier loss stands" in s for s in rest) == 2


def test_before_the_reference_has_its_labels_nothing_is_judged(monitor: Monitor) -> None:
    for number in range(REFERENCE + 1):
        write_requests(monitor, number, noise=0.1)
    write_errors(monitor, 0, REFERENCE + DELAY)
    folder = ConceptFolder(monitor)
    for number in (0, DELAY, REFERENCE - 1 + DELAY):
        assert {r["state"] for r in states(folder, number).values()} == {"insufficient"}
        assert "complete on 2025-01-21" in states(folder, number)["production", "adwin"]["sentence"]
    assert {r["state"] for r in states(folder, REFERENCE + DELAY).values()} == {"stable"}


def test_days_without_labels_are_empty_and_change_nothing(monitor: Monitor) -> None:
    """A day without requests, a week whose labels never came, and a rise that began in it."""
    for number in range(45):
        if number != 20:
            write_requests(monitor, number, noise=0.1 if number < 27 else 0.6, labelled=not 24 <= number < 31)
    write_errors(monitor, DELAY, 44 + DELAY)
    assert monitor.lake.row_count("error_stream", "credit", day(20 + DELAY)) == 0
    assert monitor.lake.row_count("error_stream", "credit", day(25 + DELAY)) == 0
    folder = ConceptFolder(monitor)
    assert {r["state"] for r in states(folder, 30 + DELAY).values()} == {"stable"}
    assert states(folder, 30 + DELAY)["production", "adwin"]["label_count"] == 23 * 300
    found = states(folder, 44 + DELAY)["experimental", "page_hinkley"]
    assert (found["state"], found["changed_from"]) == ("rising", day(31)), "the first requests that speak of it"


def test_a_monitor_whose_labels_never_came_says_so(monitor: Monitor) -> None:
    for number in range(20):
        write_requests(monitor, number, noise=0.1, labelled=False)
    write_errors(monitor, DELAY, 19 + DELAY)
    rows = ConceptFolder(monitor).states(day(19 + DELAY))
    assert set(rows["state"]) == {"insufficient"}
    assert rows["sentence"].str.contains("labels of fewer than three days").all()


def test_an_old_day_computed_late_gives_the_same_bytes(monitor: Monitor) -> None:
    """Day by day as time passed, against one walk at the end, rows of old requests gone."""
    made: dict[int, pl.DataFrame] = {}
    for number in range(45 + DELAY):
        if number < 45:
            write_requests(monitor, number, noise=0.1 if number < 30 else 0.5, requests=90)
        write_day_errors(monitor, day(number), "p")
        if number % 5 == 1:
            made[number] = ConceptFolder(monitor).write_day(day(number), "p")
    path = Path(monitor.lake.root) / "concept_drift/monitor=credit"
    assert {"stable", "rising", "insufficient"} == set(pl.concat(made.values())["state"])
    stored = {n: (path / f"date={day(n)}/part-0.parquet").read_bytes() for n in made}
    for number in range(45):
        monitor.lake.delete("replay_log", "credit", day(number))
    late = ConceptFolder(monitor)
    for number in reversed(made):
        late.write_day(day(number), "p")
        assert (path / f"date={day(number)}/part-0.parquet").read_bytes() == stored[number], number


def test_another_model_starts_its_own_stream_and_leaves_the_other_role_its(monitor: Monitor) -> None:
    for number in range(30):
        write_requests(monitor, number, noise=0.1)
    write_errors(monitor, DELAY, 29 + DELAY)
    path = monitor.config.resolve("experimental.json")
    model(Path(path), "binary:logitraw")
    changed = Monitor(monitor.config, monitor.lake)
    write_errors(changed, 25 + DELAY, 29 + DELAY)
    found = states(ConceptFolder(changed), 29 + DELAY)
    assert found["experimental", "adwin"]["state"] == "insufficient"
    assert found["experimental", "adwin"]["label_count"] == 5 * 300
    assert found["production", "adwin"]["state"] == "stable"
    assert found["production", "adwin"]["label_count"] == 30 * 300


def test_provenance_follows_labels_and_models_and_outlives_rows(monitor: Monitor) -> None:
    for number in range(3):
        write_requests(monitor, number, noise=0.1)
    expected = Provenance(monitor).expected("error_stream", day(DELAY))
    assert expected is not None
    assert Provenance(monitor).expected("concept_drift", day(DELAY)) is None, "its errors are not stored yet"
    write_day_errors(monitor, day(DELAY), expected)
    fold = Provenance(monitor).expected("concept_drift", day(DELAY))
    assert fold is not None
    labels = pl.DataFrame({"request_id": ["0-1"], "label": [1.0]})
    monitor.lake.write("labels", "credit", day(4), labels, {"content_hash": "one label"})
    assert Provenance(monitor).expected("error_stream", day(DELAY)) not in (None, expected)
    write_day_errors(monitor, day(DELAY), "later")
    assert Provenance(monitor).expected("concept_drift", day(DELAY)) not in (None, fold)
    monitor.lake.delete("replay_log", "credit", day(0))
    assert Provenance(monitor).expected("error_stream", day(DELAY)) == "later", "rows are gone, their errors stay"
