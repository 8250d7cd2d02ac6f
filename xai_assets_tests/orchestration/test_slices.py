"""Both assets in a real run: a fault in one channel is named by its rule, and what is up to date is left alone."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.report import build_report
from xai_assets_tests.conftest import day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
TABLES = ("divergence_slices", "drift_slices")


def test_a_fault_in_one_channel_is_named_by_its_rule(deploy: Deploy, lending: Configure, source: Path) -> None:
    log = source / f"data/demo/lending/logs/{day(3)}.parquet"
    thousandth = pl.when(pl.col("channel") == "web").then(0.001).otherwise(1.0)
    pl.read_parquet(log).with_columns(pl.col("annual_income") * thousandth).write_parquet(log)
    deployment = deploy(lending(reference={"start_date": day(1), "end_date": day(2)}))
    assert deployment.run(day(1), day(3)).success
    for table in TABLES:
        assert deployment.lake.days(table, "lending") == [day(1), day(2), day(3)]
    found = deployment.lake.read("drift_slices", "lending", day(3)).filter("confirmed")
    assert ("annual_income", "channel = web") in found.select("feature", "rule").rows()
    told = deployment.metadata("drift_slices", day(3))
    assert "channel = web" in told["slices"]
    assert "annual_income" in told["found"]
    assert deployment.metadata("divergence_slices", day(3))["found"].endswith("requests of 3 days")
    report = build_report(Monitor(deployment.config, deployment.lake), day(3), with_evidently=False)
    assert "channel = web" in report.html
    deployment.run(day(3))
    assert all(deployment.metadata(t, day(3))["unchanged"] for t in TABLES)
