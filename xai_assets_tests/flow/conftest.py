"""One explained day of the small simulated service, without Dagster."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.budget import explanation_budget
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.replay import ingest
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake
from xai_assets.records import MODEL_ROLES
from xai_assets_tests.conftest import day


@pytest.fixture
def explained(lending: Callable[..., MonitorConfig], tmp_path: Path) -> Callable[..., Monitor]:
    """A monitor with its first day explained; keyword arguments change sections of its configuration."""

    def build(**changes: object) -> Monitor:
        monitor = Monitor(lending(**changes), Lake(str(tmp_path / "lake")))
        ingest(monitor, day(1), "p")
        threshold = divergence_threshold(monitor.lake, monitor.config)
        budget = explanation_budget(monitor)
        write_divergence_set(monitor.lake, monitor.config, day(1), threshold, "p", budget=budget)
        for role in MODEL_ROLES:
            explain_day(monitor, role, day(1), "p")
        return monitor

    return build
