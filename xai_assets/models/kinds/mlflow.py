"""MLflow models: from a URI or a folder to the file of the model's own library.

Belongs here: fetching through MLflow, reading `MLmodel`, naming the one file that holds the model.
Does not belong here: reading that file (see the other kinds). MLflow's own loaders are not used: they import and
unpickle whatever the folder names.
"""

import functools
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import first_line, library

SCHEMES = ("models:/", "runs:/")
DESCRIPTION = "MLmodel"
FLAVORS: Mapping[str, tuple[str, str]] = {
    "xgboost": ("xgboost", "data"),
    "lightgbm": ("lightgbm", "data"),
    "catboost": ("catboost", "data"),
    "onnx": ("onnx", "data"),
    "sklearn": ("sklearn", "pickled_model"),
    "pytorch": ("torch", "model_data"),
}
"""MLflow's flavor: our kind, and the key of the flavor that names its file."""
_VERSIONED = re.compile(r"models:/([^/@]+/\d+|m-[0-9a-f]+)")


@dataclass(frozen=True)
class ModelFile:
    """The one file of an MLflow model, where it was found, and the kind its flavor says it is."""

    location: str
    raw: bytes
    kind: str


def is_mlflow(location: str) -> bool:
    """Whether a location is an MLflow URI or a local folder with an `MLmodel` file."""
    return location.startswith(SCHEMES) or (Path(location) / DESCRIPTION).is_file()


def fetch(location: str) -> ModelFile:
    """The model's file. Raises ModelError without MLflow, or where the model has no flavor that can be read.

    Numbered versions and logged models are fetched once per process. Aliases move, and a run may log a file again:
    both are fetched each time.
    """
    if not location.startswith(SCHEMES):
        return _model_file(location, Path(location))
    return _fetched_once(location) if _VERSIONED.fullmatch(location) else _fetched(location)


def _fetched(location: str) -> ModelFile:
    mlflow = library("mlflow", "mlflow", location)
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = mlflow.artifacts.download_artifacts(artifact_uri=location, dst_path=folder)
        except Exception as error:  # MLflow passes on errors of its stores and of the network
            raise ModelError(
                f"MLflow does not give model {location}",
                found=first_line(error),
                next_step="check the URI, and MLFLOW_TRACKING_URI in the environment of this process",
            ) from error
        return _model_file(location, Path(found))


_fetched_once = functools.lru_cache(maxsize=8)(_fetched)


def _model_file(location: str, folder: Path) -> ModelFile:
    flavors = _flavors(location, folder)
    for flavor, (kind, key) in FLAVORS.items():
        if flavor in flavors:
            named = flavors[flavor].get(key) or "data"
            path = _only_file(location, folder, flavor, str(named))
            return ModelFile(f"{location.rstrip('/')}/{path.relative_to(folder).as_posix()}", path.read_bytes(), kind)
    raise ModelError(
        f"MLflow model {location} has no flavor that can be read without running its code",
        expected=f"one of {', '.join(FLAVORS)}",
        found=", ".join(sorted(flavors)) or "none",
        next_step="log the model with its library's flavor: mlflow.<library>.log_model",
    )


def _flavors(location: str, folder: Path) -> dict[str, dict[str, Any]]:
    import yaml

    try:
        flavors = yaml.safe_load((folder / DESCRIPTION).read_text(encoding="utf-8"))["flavors"]
        return {str(name): dict(content or {}) for name, content in flavors.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(
            f"MLflow model {location} cannot be read",
            expected=f"a file {DESCRIPTION} with flavors",
            found=first_line(error),
        ) from error


def _only_file(location: str, folder: Path, flavor: str, named: str) -> Path:
    """The flavor's file; where it names a folder, the one model file in it."""
    root = folder.resolve()
    place = (root / named).resolve()
    # Before the walk, so that no other folder is searched; after it, because a file may be a link to elsewhere.
    files = ([place] if place.is_file() else sorted(_models_in(place))) if place.is_relative_to(root) else []
    if len(files) != 1 or not files[0].resolve().is_relative_to(root):
        raise ModelError(
            f"MLflow model {location} does not hold the file that its flavor {flavor} names",
            expected=f"one model file at {named}, inside the model's folder",
            found=", ".join(f.name for f in files[:10]) or "none",
            next_step="log the model again, or configure the model's own file",
        )
    return folder / files[0].resolve().relative_to(root)


def _models_in(place: Path) -> Iterator[Path]:
    endings = (".pt2", ".pt", ".pth", ".pkl", ".onnx", ".ubj", ".json", ".xgb", ".lgb", ".txt", ".cb", ".cbm", ".skops")
    return (f for f in place.rglob("*") if f.suffix in endings and "pickle_module" not in f.name)
