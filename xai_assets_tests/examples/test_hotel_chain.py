"""The hotel example through the whole chain on the real file, and a fault planted into the real logs."""

import shutil
from collections.abc import Iterator
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
CHAIN = (
    *("replay_log", "labels", "divergence_set", "production_attributions", "experimental_attributions"),
    *("reference_profile", "attribution_histograms", "drift_calibration", "drift_scores", "drift_alerts"),
    "recommendations",
)
"""From the file to the recommendation; what is measured beside it on each of 306 days is tested on fewer."""
ALARMS = ("noted", "warning", "critical")


@pytest.fixture(scope="module")
def project(hotel: Example, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the prepared project that may be damaged."""
    root = tmp_path_factory.mktemp("hotel_project")
    shutil.copytree(hotel.root, root, dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def ran(
    hotel: Example, project: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Deployment, dg.ExecuteInProcessResult]]:
    config = MonitorConfig.from_mapping("hotel_bookings", hotel.attributes, project)
    lake = Lake(str(tmp_path_factory.mktemp("hotel_lake")))
    with dg.DagsterInstance.ephemeral() as instance:
        deployment = Deployment(config, lake, instance)
        assert config.end_date is not None
        yield deployment, deployment.run(config.first_date, config.end_date, tables=CHAIN)


def test_every_booking_goes_through_and_every_check_on_the_data_passes(
    ran: tuple[Deployment, dg.ExecuteInProcessResult], hotel: Example
) -> None:
    deployment, result = ran
    failed = {k for k, passed in checks(result).items() if not passed} - {("drift_alerts", "drift")}
    assert failed == set()
    lake = deployment.lake
    days = lake.days("replay_log", "hotel_bookings")
    assert len(days) == 306
    counted = sum(lake.row_count("production_attributions", "hotel_bookings", d) for d in days)
    assert counted == hotel.stored("logs").height == 46_432
    assert sum(lake.row_count("quarantine", "hotel_bookings", d) for d in days) == 0


def test_nothing_is_alarmed_within_the_reference(ran: tuple[Deployment, dg.ExecuteInProcessResult]) -> None:
    lake = ran[0].lake
    for day in ran[0].config.reference_days[::30]:
        assert lake.row_count("drift_alerts", "hotel_bookings", day) == 0


def test_small_segments_are_reported_as_insufficient_not_as_quiet(
    ran: tuple[Deployment, dg.ExecuteInProcessResult],
) -> None:
    scores = ran[0].lake.read("drift_scores", "hotel_bookings", date(2016, 11, 1))
    small = scores.filter((pl.col("n_effective") < 30) & (pl.col("feature") != "*") & (pl.col("population") == "all"))
    assert small.height > 500
    assert set(small["severity"]) == {"insufficient"}


def test_alarms_keep_to_the_budget_where_a_fixed_psi_fires_daily(
    ran: tuple[Deployment, dg.ExecuteInProcessResult],
) -> None:
    """Four months after the reference, which do change with the season. What is alarmed is explained in the README of
    the example: two days on which groups booked with a non-refundable deposit."""
    deployment = ran[0]
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


def test_a_price_in_cents_at_one_hotel_is_found_named_and_sent_upstream(
    ran: tuple[Deployment, dg.ExecuteInProcessResult], project: Path
) -> None:
    """From a day on `adr` of the city hotel arrives a hundredfold; only changed days are computed again."""
    deployment = ran[0]
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
    assert {"production", "experimental"} <= set(fault["role"])
    assert max(fault["opened_on"]) <= FAULT_FROM + timedelta(days=5)
    advice = deployment.lake.read("recommendations", "hotel_bookings", last)
    upstream = advice.filter(pl.col("action") == "investigate_upstream")
    assert ["adr"] in upstream["focus_features"].to_list()
    for row in advice.filter(pl.col("action") == "retrain").iter_rows(named=True):
        assert "adr" not in row["focus_features"]
