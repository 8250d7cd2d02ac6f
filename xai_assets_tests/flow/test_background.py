"""The stored background: which requests it holds, that it stays, and who needs it."""

import json
from collections.abc import Callable
from dataclasses import replace

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.flow import background
from xai_assets.flow.background import (
    TABLE,
    ensure_background,
    load_background,
    monitor_explainer,
    needs_background,
)
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.replay import ingest
from xai_assets.lake.store import Lake
from xai_assets_tests.conftest import day

Build = Callable[..., Monitor]


def with_explanation(monitor: Monitor, **settings: object) -> Monitor:
    config = monitor.config
    return Monitor(replace(config, explanation=replace(config.explanation, **settings)), monitor.lake)  # type: ignore[arg-type]


@pytest.fixture
def replayed(lending: Callable[..., MonitorConfig], tmp_path) -> Build:
    """A monitor with some days replayed (days 1 to 6 are its reference)."""

    def build(*days: int, **settings: object) -> Monitor:
        monitor = with_explanation(Monitor(lending(), Lake(str(tmp_path / "lake"))), **settings)
        for number in days:
            ingest(monitor, day(number), "p")
        return monitor

    return build


def days_of(monitor: Monitor) -> list[str]:
    return json.loads(monitor.lake.metadata(TABLE, monitor.name)["days"])


def test_trees_need_none_and_none_is_made(replayed: Build):
    monitor = replayed(1)
    assert not needs_background(monitor)
    assert monitor_explainer(monitor, "production").id == "treeshap"
    assert not monitor.lake.exists(TABLE, monitor.name)
    assert needs_background(with_explanation(monitor, method="permutation"))


def test_a_sample_of_the_reference_days_that_are_replayed(replayed: Build):
    monitor = replayed(2, 1, 8, method="permutation", background_rows=40)
    assert ensure_background(monitor) is not None
    stored = monitor.lake.read(TABLE, monitor.name)
    assert stored.columns == ["request_id", "requested_on", *monitor.config.feature_names]
    assert stored.height == 40
    assert days_of(monitor) == [str(day(1)), str(day(2))]
    assert set(stored["requested_on"]) == {day(1), day(2)}
    rows = pl.concat(monitor.lake.read("replay_log", monitor.name, d) for d in (day(1), day(2)))
    same = rows.join(stored, on="request_id", how="semi").sort("request_id")
    assert same.select(stored.columns[2:]).equals(stored.sort("request_id").select(stored.columns[2:]))


def test_it_does_not_depend_on_order_or_batches_but_on_the_seed(replayed: Build, monkeypatch):
    monitor = replayed(1, 2, method="permutation", background_rows=40)
    first = ensure_background(monitor)
    plain = monitor.lake.batches
    monkeypatch.setattr(monitor.lake, "batches", lambda *a, **k: plain(*a, **{**k, "batch_rows": 7}))
    monitor.lake.delete(TABLE, monitor.name)
    assert ensure_background(monitor) == first
    other = with_explanation(monitor, seed=1)
    assert ensure_background(other) != first


def test_days_that_arrive_or_change_later_do_not_change_it(replayed: Build):
    monitor = replayed(1, method="permutation")
    first = ensure_background(monitor)
    for number in (2, 3):
        ingest(monitor, day(number), "p")
    monitor.lake.delete("replay_log", monitor.name, day(1))
    assert ensure_background(monitor) == first
    assert days_of(monitor) == [str(day(1))]
    assert ensure_background(with_explanation(monitor, background_rows=50)) != first  # asked for by the settings
    assert days_of(monitor) == [str(day(2)), str(day(3))]


def test_without_a_reference_day_the_earliest_replayed_day(replayed: Build):
    monitor = replayed(9, 8, method="permutation")
    ensure_background(monitor)
    assert days_of(monitor) == [str(day(8))]


def test_without_any_day(replayed: Build):
    monitor = replayed(method="permutation")
    assert ensure_background(monitor) is None
    with pytest.raises(LakeError, match=r"needs a background.*materialize replay_log"):
        monitor_explainer(monitor, "production")


def test_both_models_are_compared_with_the_same_requests(replayed: Build):
    monitor = replayed(1, method="treeshap_interventional", background_rows=30)
    explainers = [monitor_explainer(monitor, role) for role in ("production", "experimental")]
    assert {e.id for e in explainers} == {"treeshap_interventional"}
    encoded = [monitor.model(r).encode(load_background(monitor)) for r in ("production", "experimental")]
    assert [e.background_hash for e in explainers] == [background_digest(x) for x in encoded]
    assert monitor_explainer(monitor, "production") is explainers[0]  # kept per process
    assert background.monitor_explainer(with_explanation(monitor, method="treeshap"), "production").id == "treeshap"


def background_digest(matrix) -> str:
    from xai_assets.explain.matrix import background_digest as digest

    return digest(matrix)
