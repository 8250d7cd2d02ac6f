"""Fixtures that several packages' tests share: a small simulated service and a monitor over it."""

import shutil
from collections.abc import Callable
from copy import deepcopy
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import settings

from xai_assets.config import MonitorConfig
from xai_assets.demo import simulate
from xai_assets.demo.faults import FIRST_DATE

# The same examples in every run: a failure that only some seeds show would come and go.
settings.register_profile("seeded", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("seeded")

ROOT = Path(__file__).parents[1]
DAYS, REFERENCE_DAYS, REQUESTS = 12, 6, 600


@pytest.fixture(scope="session")
def healthy_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Project root with a healthy simulated service: 12 days × 600 requests. Do not write into it."""
    root = tmp_path_factory.mktemp("healthy")
    simulate(root / "data/demo/lending", days=DAYS, requests_per_day=REQUESTS, faults=())
    return root


@pytest.fixture
def source(healthy_source: Path, tmp_path: Path) -> Path:
    """A copy of the healthy service that a test may damage."""
    root = tmp_path / "project"
    shutil.copytree(healthy_source, root)
    return root


def lending_attributes(**changes: Any) -> dict[str, Any]:
    """Attributes of the shipped demo monitor, its days shortened to those of the small service."""
    attributes: dict[str, Any] = deepcopy(
        yaml.safe_load((ROOT / "xai_assets/defs/lending/defs.yaml").read_text(encoding="utf-8"))["attributes"]
    )
    last = FIRST_DATE + timedelta(days=DAYS - 1)
    attributes["reference"] = {"start_date": FIRST_DATE, "end_date": FIRST_DATE + timedelta(days=REFERENCE_DAYS - 1)}
    attributes["labels"]["complete_after_days"] = 7
    attributes["end_date"] = last
    attributes["explanation"] = {"quality_sample_rows": 20}  # measured in every run of every test
    for section, values in changes.items():
        attributes[section] = {**attributes.get(section, {}), **values} if isinstance(values, dict) else values
    return attributes


@pytest.fixture
def lending(source: Path) -> Callable[..., MonitorConfig]:
    """The demo monitor over the copied service; keyword arguments change sections of its configuration."""

    def build(**changes: Any) -> MonitorConfig:
        return MonitorConfig.from_mapping("lending", lending_attributes(**changes), source)

    return build


def day(number: int) -> date:
    """The 1-based day of the simulated period."""
    return FIRST_DATE + timedelta(days=number - 1)
