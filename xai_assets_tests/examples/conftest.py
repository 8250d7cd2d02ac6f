"""The two examples prepared once per test session from the real public files."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("XAI_ASSETS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


@dataclass(frozen=True)
class Example:
    """One example, prepared. `root` stands for the project root, so the paths in defs.yaml start there."""

    name: str
    module: ModuleType
    source: Path
    root: Path
    found: dict[str, float]

    @property
    def out(self) -> Path:
        return self.root / "data" / "examples" / self.name

    @property
    def script(self) -> Path:
        return REPOSITORY / "examples" / self.name / "prepare.py"

    @property
    def attributes(self) -> dict[str, Any]:
        definition = yaml.safe_load(self.script.with_name("defs.yaml").read_text())
        assert definition["type"] == "xai_assets.DriftMonitor"
        return definition["attributes"]

    def stored(self, folder: str) -> pl.DataFrame:
        """Every row of `logs` or `labels`, with the date in its file's name as `file_date`."""
        files = sorted((self.out / folder).glob("*.parquet"))
        parts = [pl.read_parquet(f).with_columns(file_date=pl.lit(f.stem).str.to_date()) for f in files]
        return pl.concat(parts)


def _prepared(name: str, root: Path) -> Example:
    source = SHARED / f"{name}.parquet"
    if not source.exists():
        pytest.fail(f"{source} is not there; set XAI_ASSETS_SHARED_DATA to the folder that holds {source.name}")
    script = REPOSITORY / "examples" / name / "prepare.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    found = module.prepare(source, root / "data" / "examples" / name)
    return Example(name, module, source, root, found)


@pytest.fixture(scope="session")
def hotel(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return _prepared("hotel_bookings", tmp_path_factory.mktemp("hotel"))


@pytest.fixture(scope="session")
def elec2(tmp_path_factory: pytest.TempPathFactory) -> Example:
    return _prepared("elec2", tmp_path_factory.mktemp("elec2"))
