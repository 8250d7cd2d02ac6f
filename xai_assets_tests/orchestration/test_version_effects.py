"""The whole flow of a monitor whose production model was replaced: a fault in an input, and what the version did."""

from collections.abc import Callable

import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets_tests.conftest import REFERENCE_DAYS, day
from xai_assets_tests.flow.test_version_effects import BROKEN, NEW, OLDER, older_version
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
LAST = REFERENCE_DAYS + 1


def test_an_alert_says_what_came_with_the_rows_and_what_with_the_version(
    deploy: Callable[[MonitorConfig], Deployment], lending: Callable[..., MonitorConfig]
) -> None:
    """On the last day incomes are in thousands, and interest rates are 3 points higher: the earlier version knew
    incomes and no interest rates."""
    production = {"path": "data/demo/lending/models/production.ubj", "previous": OLDER}
    config = lending(drift={"windows_days": [1]}, models={"production": production})
    older_version(config.base_dir / OLDER)
    path = config.base_dir / f"data/demo/lending/logs/{day(LAST)}.parquet"
    pl.read_parquet(path).with_columns(pl.col(BROKEN) / 1_000, pl.col(NEW) + 3).write_parquet(path)
    deployment = deploy(config)
    assert deployment.run(day(1), day(LAST)).success

    lake = deployment.lake
    assert lake.days("version_effects", "lending") == [day(i) for i in range(1, LAST + 1)]
    effects = lake.read("version_effects", "lending", day(LAST))
    verdicts = dict(effects.select("feature", "verdict").iter_rows())
    assert (verdicts[BROKEN], verdicts[NEW]) == ("data", "model")
    healthy = lake.read("version_effects", "lending", day(LAST - 1))
    assert not set(healthy["verdict"]) & {"data", "both"}, "on a healthy day only the version differs"
    assert "data 0, " in deployment.metadata("version_effects", day(LAST - 1))["found"]

    alerts = lake.read("drift_alerts", "lending", day(LAST)).filter(pl.col("role") == "production")
    told = {row["feature"]: row for row in alerts.iter_rows(named=True)}
    assert told[BROKEN]["effect_of"] == "data"
    assert told[BROKEN]["cause"] == "input_fault"
    assert "It came with the requests, not with the new model version" in told[BROKEN]["sentence"]
    assert told[NEW]["effect_of"] == "model"
    assert "Most of it came with the new model version" in told[NEW]["sentence"]

    deployment.run(day(LAST))
    assert deployment.metadata("version_effects", day(LAST))["unchanged"]
    assert deployment.metadata("drift_alerts", day(LAST))["unchanged"]


def test_without_an_earlier_version_there_is_no_such_asset(
    deploy: Callable[[MonitorConfig], Deployment], lending: Callable[..., MonitorConfig]
) -> None:
    keys = {k.path[-1] for k in deploy(lending()).defs.resolve_asset_graph().get_all_asset_keys()}
    assert "version_effects" not in keys
    assert "drift_alerts" in keys
