"""One full simulation with the planted faults and its healthy twin, made once."""

from pathlib import Path

import polars as pl
import pytest

from xai_assets.demo import Simulation, simulate


@pytest.fixture(scope="session")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Simulation:
    return simulate(tmp_path_factory.mktemp("healthy"), faults=())


def logs(simulation: Simulation) -> pl.DataFrame:
    """All requests with their 1-based day, and the labels that arrived."""
    frames = [
        pl.read_parquet(simulation.directory / "logs" / f"{day}.parquet").with_columns(day=pl.lit(number + 1))
        for number, day in enumerate(simulation.dates)
    ]
    labels = pl.concat([pl.read_parquet(Path(p)) for p in sorted(simulation.directory.glob("labels/*"))])
    return pl.concat(frames).join(labels, on="request_id", how="left", maintain_order="left")


@pytest.fixture(scope="session")
def faulty_log(faulty: Simulation) -> pl.DataFrame:
    return logs(faulty)


@pytest.fixture(scope="session")
def healthy_log(healthy: Simulation) -> pl.DataFrame:
    return logs(healthy)
