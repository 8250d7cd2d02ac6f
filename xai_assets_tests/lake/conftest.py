"""A small monitor whose files the tests write themselves."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.lake.ingest import ingest_day
from xai_assets.lake.store import Lake
from xai_assets.records import IngestReport

DAY = date(2025, 1, 1)


def replay(frame: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Outputs that follow from the features: production age/100, experimental 0.25 more where income is known."""
    production = frame["age"].fill_null(0).to_numpy().astype(np.float64) / 100
    return production, production + 0.25 * frame["income"].is_not_null().to_numpy()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture
def monitor(tmp_path: Path) -> Callable[..., MonitorConfig]:
    """Builds a configuration over `tmp_path/logs`; keyword arguments replace sections."""

    def build(**changes: Any) -> MonitorConfig:
        mapping: dict[str, Any] = {
            "source": {"path": "logs/{date}*.csv"},
            "features": {"numeric": ["age", "income"], "categorical": ["region"], "boolean": ["vip"]},
            "models": {"production": "p.json", "experimental": "e.json"},
            "reference": {"start_date": "2025-01-01", "end_date": "2025-01-07"},
            "context": ["channel"],
        }
        return MonitorConfig.from_mapping("shop", mapping | changes, tmp_path)

    (tmp_path / "logs").mkdir()
    return build


@pytest.fixture
def rows() -> Callable[..., pl.DataFrame]:
    """n sound rows of the day; keyword arguments replace columns."""

    def build(n: int = 3, **columns: Any) -> pl.DataFrame:
        base = {
            "request_id": [f"r{i}" for i in range(n)],
            "requested_at": [f"2025-01-01T{i % 24:02d}:00:00Z" for i in range(n)],
            "age": [20.0 + i for i in range(n)],
            "income": [1000.5] * n,
            "region": ["north", "south", "east"] * (n // 3) + ["north"] * (n % 3),
            "vip": [True] * n,
            "channel": ["web"] * n,
        }
        return pl.DataFrame(base | columns, strict=False)

    return build


@pytest.fixture
def ingest(lake: Lake) -> Callable[..., IngestReport]:
    def run(config: MonitorConfig, day: date = DAY, **given: Any) -> IngestReport:
        return ingest_day(lake, config, day, given.get("categories", {}), given.get("replay", replay), "p1")

    return run
