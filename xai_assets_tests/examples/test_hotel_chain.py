"""The hotel example through the whole chain on the real file, and a fault planted into the real logs."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.lake.store import Lake
from xai_assets_tests.examples.conftest import Example
from xai_assets_tests.orchestration.conftest import Deployment, checks

pytestmark = pytest.mark.slow
FAULT_FROM = date(2016, 11, 14)
REFERENCE = (
    *("replay_log", "labels", "divergence_set", "production_attributions", "experimental_attributions"),
    *("reference_profile", "attribution_histograms", "drift_calibration"),
)
CHAIN = (*REFERENCE, "drift_scores", "drift_alerts", "recommendations")
"""From the file to the recommendation; what is measured beside it on each of 306 days is tested on fewer."""
ALARMS = ("noted", "warning", "critical")


@pytest.fixture(scope="module")
def project(hotel: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the prepared project that may be damaged."""
    root = tmp_path_factory.mktemp("hotel_project")
    shutil.copytree(hotel.root, root, dirs_exist_ok=True)
    return root


@dataclass(frozen=True)
class Ran:
    """Half a year of reference up to its calibration, then four months through the whole chain."""

    deployment: Deployment
    results: tuple[dg.ExecuteInProcessResult, ...]

    @property
    def lake(self) -> Lake:
        return self.deployment.lake


@pytest.fixture(scope="module")
def ran(hotel: Example, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    config = MonitorConfig.from_mapping("hotel_bookings", hotel.attributes, project)
    lake = Lake(str(tmp_path_factory.mktemp("hotel_lake")))
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(config, lake, instance)
        assert config.end_date is not None
        reference = deployment.run(config.first_date, config.reference_days[-1], tables=REFERENCE)
        later = deployment.run(config.reference_days[-1] + timedelta(days=1), config.end_date, tables=CHAIN)
        yield Ran(deployment, (reference, later))


def test_every_booking_goes_through_and_every_check_on_the_data_passes(ran: Ran, hotel: Example) -> None:
    failed = {k for result in ran.results for k, passed in checks(result).items() if not passed}
    assert failed - {("drift_alerts", "drift")} == set()
    lake = ran.lake
    days = lake.days("replay_log", "hotel_bookings")
    assert len(days) == 306
    counted = sum(lake.row_count("production_attributions", "hotel_bookings", d) for d in days)
    assert counted == hotel.stored("logs").height == 46_432
    assert sum(lake.row_count("quarantine", "hotel_bookings", d) for d in days) == 0


def test_small_segments_are_reported_as_insufficient_not_as_quiet(ran: Ran) -> None:
    scores = ran.lake.read("drift_scores", "hotel_bookings", date(2016, 11, 1))
    small = scores.filter((pl.col("n_effective") < 30) & (pl.col("feature") != "*") & (pl.col("population") == "all"))
    assert small.height > 500
    assert set(small["severity"]) == {"insufficient"}


def test_alarms_keep_to_the_budget_where_a_fixed_psi_fires_daily(ran: Ran) -> None:
    """Four months after the reference, which do change with the season. What is alarmed is explained in the README of
    the example: two days on which groups booked with a non-refundable deposit."""
    deployment = ran.deployment
    days = [d for d in deployment.lake.days("drift_scores", "hotel_bookings") if d >= date(2016, 10, 1)]
    scores = deployment.lake.read_days(
        "drift_scores",
        "hotel_bookings",
        days,
        columns=["role", "population", "segment", "window_days", "severity", "psi_nats"],
    )
    alarmed = scores.filter(pl.col("severity").is_in(ALARMS))["date"].n_unique()
    assert 30 * alarmed / len(days) <= 3
    overall = scores.filter(
        (pl.col("segment") == "overall") & (pl.col("population") == "all") & (pl.col("window_days") == 1)
    )
    fixed = overall.filter((pl.col("role") == "production") & (pl.col("psi_nats") > 0.25))["date"].n_unique()
    assert 30 * fixed / len(days) >= 25


def test_a_price_in_cents_at_one_hotel_is_found_named_and_sent_upstream(ran: Ran, project: Path) -> None:
    """From a day on `adr` of the city hotel arrives a hundredfold; only changed days are computed again."""
    deployment = ran.deployment
    last = FAULT_FROM + timedelta(days=9)
    untouched = deployment.lake.metadata("production_attributions", "hotel_bookings", FAULT_FROM - timedelta(days=1))
    for i in range(10):
        path = project / f"data/examples/hotel_bookings/logs/{FAULT_FROM + timedelta(days=i)}.parquet"
        frame = pl.read_parquet(path)
        cents = pl.when(pl.col("hotel") == "City Hotel").then(pl.col("adr") * 100).otherwise(pl.col("adr"))
        frame.with_columns(cents.alias("adr")).write_parquet(path)
    deployment.run(FAULT_FROM, last, tables=CHAIN)
    assert untouched == deployment.lake.metadata(
        "production_attributions", "hotel_bookings", FAULT_FROM - timedelta(days=1)
    )
    alerts = deployment.lake.read("drift_alerts", "hotel_bookings", last)
    fault = alerts.filter((pl.col("feature") == "adr") & (pl.col("cause") == "input_fault"))
    assert set(fault["segment"]) == {"hotel=City Hotel"}
    assert set(fault["state"]) == {"ongoing"}
    opened = dict(fault.select("role", "opened_on").iter_rows())
    assert opened["input"] == FAULT_FROM
    assert opened["production"] <= FAULT_FROM + timedelta(days=2)
    advice = deployment.lake.read("recommendations", "hotel_bookings", last)
    upstream = advice.filter(pl.col("action") == "investigate_upstream")
    assert ["adr"] in upstream["focus_features"].to_list()
    for row in advice.filter(pl.col("action") == "retrain").iter_rows(named=True):
        assert "adr" not in row["focus_features"]
