"""A small deployment that was run once through the command line: healthy for 7 days, then incomes in thousands."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
import yaml

from xai_assets.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def deployment(healthy_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `data/` and `lending/defs.yaml`; nothing is run yet. Do not write into its logs."""
    root = tmp_path_factory.mktemp("deployment")
    shutil.copytree(healthy_source / "data", root / "data")
    for number in range(8, 13):
        log = root / f"data/demo/lending/logs/2025-01-{number:02d}.parquet"
        pl.read_parquet(log).with_columns(pl.col("annual_income") / 1000).write_parquet(log)
    file = yaml.safe_load((ROOT / "xai_assets/defs/lending/defs.yaml").read_text(encoding="utf-8"))
    attributes = file["attributes"]
    attributes["reference"] = {"start_date": "2025-01-01", "end_date": "2025-01-06"}
    attributes["end_date"] = "2025-01-12"
    del attributes["columns"], attributes["labels"]
    attributes["remediation"] = {"mode": "observe"}
    (root / "lending").mkdir()
    (root / "lending/defs.yaml").write_text(yaml.safe_dump(file), encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def environment(deployment: Path) -> Iterator[Path]:
    """The deployment's data folder as the one in use."""
    before = {n: os.environ.get(n) for n in ("XAI_ASSETS_DATA", "XAI_ASSETS_LAKE", "DAGSTER_HOME")}
    os.environ["XAI_ASSETS_DATA"] = str(deployment / "data")
    os.environ.pop("XAI_ASSETS_LAKE", None)
    os.environ.pop("DAGSTER_HOME", None)
    yield deployment
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="session")
def monitor(deployment: Path) -> str:
    return str(deployment / "lending/defs.yaml")


@pytest.fixture(scope="session")
def stored(environment: Path, monitor: str) -> Path:
    """The deployment after its twelve days were run as one range."""
    assert main(["run", monitor, "--from", "2025-01-01", "--to", "2025-01-12", "--format", "json"]) == 0
    return environment


@pytest.fixture
def xai(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            code = main(list(arguments))
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, *capsys.readouterr()

    return run
