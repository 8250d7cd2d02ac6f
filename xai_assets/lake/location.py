"""Where the data folder is.

Belongs here: the two environment variables and their defaults. Does not belong here: what is stored there.
"""

import os
from dataclasses import replace
from pathlib import Path

from xai_assets.config import ModelConfig, MonitorConfig

DATA_VARIABLE, LAKE_VARIABLE = "XAI_ASSETS_DATA", "XAI_ASSETS_LAKE"


def project_root() -> Path:
    """The checkout this package runs from, or the current folder where it was installed as a wheel."""
    checkout = Path(__file__).parents[2]
    return checkout if (checkout / "pyproject.toml").exists() else Path.cwd()


def data_root() -> Path:
    """Folder of everything the platform stores: `$XAI_ASSETS_DATA`, or `data` in the project."""
    return Path(os.environ.get(DATA_VARIABLE) or project_root() / "data").absolute()


def lake_root() -> str:
    """Root of the lake, a path or a URI: `$XAI_ASSETS_LAKE`, or `lake` in the data folder."""
    return os.environ.get(LAKE_VARIABLE) or str(data_root() / "lake")


def warehouse_path() -> Path:
    """The DuckDB file that holds only views over the lake."""
    return data_root() / "warehouse.duckdb"


def in_data_folder(config: MonitorConfig) -> MonitorConfig:
    """The same, with paths that start with `data/` in the data folder in use, where that is another one."""
    if data_root() == project_root() / "data":
        return config
    source, models = config.source, config.models
    return replace(
        config,
        source=replace(source, path=_moved(source.path)),
        labels=config.labels and replace(config.labels, path=_moved(config.labels.path)),
        models=replace(
            models,
            production=_moved_model(models.production),
            experimental=_moved_model(models.experimental),
        ),
    )


def _moved_model(model: ModelConfig) -> ModelConfig:
    return replace(model, path=_moved(model.path), previous=model.previous and _moved_model(model.previous))


def _moved(path: str) -> str:
    return str(data_root() / path.removeprefix("data/")) if path.startswith("data/") else path
