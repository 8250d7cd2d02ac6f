"""Model artifacts: read, refuse or accept, and predict.

Belongs here: what makes a file a usable model of the configured features; raw predictions.
Does not belong here: attributions (see `explain`), training (see `training`), where models are kept (see `registry`).

Only XGBoost's own JSON and UBJSON files are read. Pickles are refused by content, not only by name: unpickling runs
whatever code the file holds.
"""

import hashlib
import json
import pickletools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from xai_assets.errors import ModelError, nearest
from xai_assets.model_document import parse
from xai_assets.models.encoding import encode_features
from xai_assets.models.structure import check_structure
from xai_assets.records import FeatureSpec, Float32, Float64

__all__ = ["Model", "encode_features", "feature_levels", "load_model"]

OutputKind = Literal["auto", "probability", "margin", "value"]

PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle")
PICKLE_REASON = "loading a pickle runs whatever code the file holds"
FOREIGN_MAGIC: Mapping[bytes, str] = {
    b"PK\x03\x04": "a zip archive (PyTorch, NumPy and skops files are such archives, usually with pickles inside)",
    b"\x1f\x8b": "a gzip file (joblib writes compressed pickles so)",
    b"BZh": "a bzip2 file (joblib writes compressed pickles so)",
    b"\xfd7zXZ": "an xz file (joblib writes compressed pickles so)",
    b"\x89HDF": "an HDF5 file (Keras)",
    b"tree\n": "a LightGBM text model, which is not supported yet",
    b"CBM1": "a CatBoost model, which is not supported yet",
    b"binf": "XGBoost's old binary format, which XGBoost itself no longer reads",
    b"version https://git-lfs": "a Git LFS pointer: the file itself was not downloaded",
}
SAVE_AGAIN = "save the model with booster.save_model('model.ubj') and configure that file"


@dataclass(frozen=True, eq=False)
class Model:
    """One usable artifact.

    features: in the model's own order; the categories of categorical ones are resolved.
    booster: exactly the trees that predict. Where early stopping stored a best iteration, later trees are cut off,
    as XGBoost's scikit-learn interface does.
    notes: what a reader should know though it is no error, one sentence each.
    """

    sha256: str
    features: tuple[FeatureSpec, ...]
    objective: str
    booster: Any
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """First 12 hex digits of the file's SHA-256."""
        return self.sha256[:12]

    @property
    def is_classifier(self) -> bool:
        """Whether the label is 0 or 1."""
        return self.objective.startswith("binary:")

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f.name for f in self.features)

    def encode(self, frame: pl.DataFrame) -> Float32:
        """The frame's features as this model reads them: float32 [n, d_model]; null and unseen levels are NaN."""
        return encode_features(frame, self.features)

    def predict_margin(self, X: Float32) -> Float64:
        """Raw prediction, float64 [n]: log-odds of a classifier, the value before its link of a regression."""
        return self._predict(X, "margin")

    def predict_output(self, X: Float32, output: OutputKind = "auto") -> Float64:
        """Prediction in output units, float64 [n].

        "auto" and "value" are what the model's own `predict` gives: a probability for ``binary:logistic``, the value
        of a regression. "margin" is `predict_margin`; "probability" is the logistic function of a classifier's margin.

        Raises
        ------
        ModelError
            A probability is asked of a model that is no classifier, or X does not fit.
        """
        if output == "margin":
            return self.predict_margin(X)
        if output == "probability" and self.objective != "binary:logistic":
            if not self.is_classifier:
                raise ModelError(
                    f"models.output is 'probability', and model {self.version} has none",
                    expected="a binary classifier",
                    found=self.objective,
                    next_step="set models.output to auto or value",
                )
            return np.asarray(1.0 / (1.0 + np.exp(-self.predict_margin(X))), dtype=np.float64)
        return self._predict(X, "value")

    def _predict(self, X: Float32, kind: str) -> Float64:
        if X.ndim != 2 or X.shape[1] != len(self.features):
            raise ModelError(
                f"the matrix does not fit model {self.version}",
                expected=f"[n, {len(self.features)}] in the order {', '.join(self.feature_names)}",
                found=str(list(X.shape)),
                next_step="make it with Model.encode",
            )
        if len(X) == 0:
            return np.empty(0, np.float64)
        found = self.booster.inplace_predict(X, predict_type=kind, validate_features=False)
        return np.asarray(found, dtype=np.float64).reshape(len(X))


def load_model(
    path: str | Path, kind: str = "xgboost", sha256: str | None = None, features: Sequence[FeatureSpec] = ()
) -> Model:
    """Read an artifact and check that it is a model of (some of) the configured features.

    Parameters
    ----------
    path
        Local path, or a URI that `pyarrow.fs` reads (``s3://bucket/model.ubj``).
    kind
        Library of the model; "xgboost" is supported.
    sha256
        Pin: hex digest the file must have, or None.
    features
        The configured features. The model may use fewer; one without feature names must use all, in this order.

    Raises
    ------
    ModelError
        The file is missing, corrupt, a pickle, another file than the pin says, of an unsupported kind (linear booster,
        several outputs), or its features or categories do not agree with the configuration.

    Notes
    -----
    The file is read and hashed each time; the parsed model is kept per process for the same path, content and features.
    """
    location = str(path)
    if kind != "xgboost":
        raise ModelError(f"model kind '{kind}' is not supported", expected="xgboost")
    raw = _read(location)
    digest = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and digest != sha256.strip().lower():
        raise ModelError(
            f"model {location} is not the pinned file",
            expected=f"SHA-256 {sha256}",
            found=digest,
            next_step="restore the file, or change the pin if the new model is meant",
        )
    _refuse_foreign(location, raw)
    return _parsed(location, digest, tuple(features), _Bytes(raw))


def feature_levels(features: Iterable[FeatureSpec], models: Iterable[Model] = ()) -> dict[str, tuple[str, ...]]:
    """Levels per categorical feature: the configured ones, else those of the models, in order of first appearance.

    >>> feature_levels([FeatureSpec("home", "categorical", ("rent", "own")), FeatureSpec("age", "numeric")])
    {'home': ('rent', 'own')}
    """
    levels = {f.name: dict.fromkeys(f.categories) for f in features if f.kind == "categorical"}
    listed = {name for name, found in levels.items() if found}
    for model in models:
        for f in model.features:
            if f.name in levels and f.name not in listed:
                levels[f.name] |= dict.fromkeys(f.categories)
    return {name: tuple(found) for name, found in levels.items()}


class _Bytes:
    """File content that takes no part in the cache key (path and digest identify it) and is not kept by the cache."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def take(self) -> bytes:
        raw, self._raw = self._raw, b""
        return raw

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bytes)


def _read(location: str) -> bytes:
    from pyarrow import fs

    try:
        if "://" in location:
            filesystem, inner = fs.FileSystem.from_uri(location)
            with filesystem.open_input_stream(inner) as stream:
                return bytes(stream.read())
        return Path(location).read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"model {location} does not exist",
            next_step=_neighbours(location),
        ) from None
    except (OSError, ValueError) as error:
        # pyarrow raises ArrowInvalid (a ValueError) for a URI scheme it does not know.
        raise ModelError(
            f"model {location} cannot be read",
            found=str(error).splitlines()[0],
            next_step="check the path and the rights",
        ) from error


def _neighbours(location: str) -> str:
    folder = Path(location).parent
    if "://" in location or not folder.is_dir():
        return "check models.*.path in the configuration; relative paths start at the project's root"
    names = [p.name for p in folder.iterdir() if p.is_file()]
    return nearest(Path(location).name, names) if names else f"put the model into {folder}, or correct the path"


def _refuse_foreign(location: str, raw: bytes) -> None:
    """Everything that XGBoost must not even be asked to read."""
    if location.lower().endswith(PICKLE_SUFFIXES) or _is_pickle(raw):
        raise ModelError(
            f"model {location} is a pickle and is refused: {PICKLE_REASON}",
            expected="XGBoost's JSON or UBJSON format",
            next_step=SAVE_AGAIN,
        )
    for magic, meaning in FOREIGN_MAGIC.items():
        if raw.startswith(magic):
            raise ModelError(
                f"model {location} is not an XGBoost model",
                expected="XGBoost's JSON or UBJSON format",
                found=meaning,
                next_step=SAVE_AGAIN,
            )
    if raw.lstrip()[:1] != b"{":
        found = "an empty file" if not raw else f"a file that starts with {raw[:8]!r}"
        raise ModelError(
            f"model {location} is not an XGBoost model",
            expected="XGBoost's JSON or UBJSON format",
            found=found,
            next_step=SAVE_AGAIN,
        )


def _is_pickle(raw: bytes) -> bool:
    """Protocols 2 to 5 start with 0x80; the older text protocols are recognised by parsing (nothing is executed)."""
    if raw[:1] == b"\x80" and raw[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return True
    if not raw or raw[:1] == b"{" or len(raw) > 50_000_000:
        return False
    try:
        return sum(1 for _ in pickletools.genops(raw)) > 1
    except Exception:  # noqa: BLE001 - pickletools raises many kinds; any means that this is no pickle
        return False


@lru_cache(maxsize=16)
def _parsed(location: str, digest: str, features: tuple[FeatureSpec, ...], content: _Bytes) -> Model:
    booster, stored = _booster(location, content.take())
    objective = str(json.loads(booster.save_config())["learner"]["objective"]["name"])
    names, notes = _feature_names(location, booster, features)
    types = booster.feature_types or ["float"] * len(names)
    configured = {f.name: f for f in features}
    resolved = tuple(
        _resolve(location, configured[name], kind, stored.get(position))
        for position, (name, kind) in enumerate(zip(names, types, strict=True))
    )
    if booster.feature_names is None:
        booster.feature_names = list(names)
    return Model(digest, resolved, objective, booster, notes)


def _booster(location: str, raw: bytes) -> tuple[Any, dict[int, tuple[str, ...]]]:
    """The trees that predict, and the levels stored with them."""
    import xgboost

    try:
        learner = parse(raw)["learner"]
        _refuse_unsupported(location, learner)
        check_structure(learner)
        booster = xgboost.Booster()
        booster.load_model(bytearray(raw))
        stored = _stored_categories(booster)
        best = booster.attr("best_iteration")
        if best is not None and int(best) + 1 < booster.num_boosted_rounds():
            booster = booster[: int(best) + 1]  # a slice keeps names and types, but loses the stored levels
        one_row = np.full((1, booster.num_features()), np.nan, np.float32)
        shape = booster.inplace_predict(one_row, strict_shape=True, validate_features=False).shape
    except (xgboost.core.XGBoostError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        found = f"no part {error}" if isinstance(error, KeyError) else _first_line(error)
        raise ModelError(
            f"model {location} is damaged, or not an XGBoost model",
            expected="a complete file written by booster.save_model",
            found=found,
            next_step="copy the file again, or save the model again",
        ) from error
    if shape != (1, 1):
        _refuse_outputs(location, f"{shape[-1]} outputs per request")
    return booster, stored


def _refuse_unsupported(location: str, learner: Mapping[str, Any]) -> None:
    if learner["gradient_booster"]["name"] == "gblinear":
        raise ModelError(
            f"model {location} is a linear booster, which is not supported yet",
            expected="trees: booster gbtree or dart",
            found="gblinear",
            next_step="train with booster='gbtree'",
        )
    objective = str(learner["objective"]["name"])
    parameters = learner["learner_model_param"]
    if objective.startswith("multi:") or int(parameters.get("num_class", 0)) > 1:
        _refuse_outputs(location, f"objective {objective} with {parameters.get('num_class')} classes")
    if int(parameters.get("num_target", 1)) > 1:
        _refuse_outputs(location, f"{parameters['num_target']} targets")


def _refuse_outputs(location: str, found: str) -> None:
    raise ModelError(
        f"model {location} has more than one output, which is not supported yet",
        expected="a binary classifier or a regression with one output",
        found=found,
        next_step="monitor one class against the rest with a binary model",
    )


def _first_line(error: Exception) -> str:
    """XGBoost's messages carry a stack trace and the address of its build machine: only the finding is kept."""
    line = str(error).strip().splitlines()[0]
    return line.rsplit("] ", 1)[-1].split(": ", 1)[-1][:200] if line.startswith("[") else line[:200]


def _feature_names(
    location: str, booster: Any, features: Sequence[FeatureSpec]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's feature names, or the configured ones where it has none and the number agrees."""
    configured = [f.name for f in features]
    if booster.feature_names is None:
        if booster.num_features() != len(configured):
            raise ModelError(
                f"model {location} has no feature names, and their number differs from the configuration",
                expected=f"{booster.num_features()} features",
                found=f"{len(configured)}: {', '.join(configured)}",
                next_step="save the model with feature names, or list exactly its features, in its order",
            )
        return tuple(configured), (f"model {location} has no feature names: the configuration's order was used",)
    names = tuple(booster.feature_names)
    unknown = [name for name in names if name not in configured]
    if unknown:
        hints = "; ".join(f"'{name}': {nearest(name, configured)}" for name in unknown[:5])
        raise ModelError(
            f"model {location} uses {len(unknown)} feature(s) that the configuration does not have",
            expected="every feature of the model under features",
            found=", ".join(unknown),
            next_step=f"add or rename them ({hints})",
        )
    return names, ()


def _stored_categories(booster: Any) -> dict[int, tuple[str, ...]]:
    """Levels by feature position that XGBoost (3.1 and later) stores when it was trained from a data frame."""
    arrays = booster.get_categories(export_to_arrow=True).to_arrow() or ()
    return {
        position: tuple(str(level) for level in array.to_pylist())
        for position, (_, array) in enumerate(arrays)
        if array is not None
    }


def _resolve(location: str, feature: FeatureSpec, model_type: str, stored: tuple[str, ...] | None) -> FeatureSpec:
    """The feature with the levels whose positions are the model's codes."""
    if feature.kind != "categorical":
        if model_type == "c":
            raise ModelError(
                f"model {location} was trained with '{feature.name}' as categorical",
                found=f"{feature.kind} in the configuration",
                next_step=f"move '{feature.name}' to features.categorical",
            )
        return feature
    if stored is None and not feature.categories:
        raise ModelError(
            f"the levels of categorical feature '{feature.name}' are unknown",
            expected=f"levels in the configuration, because model {location} does not store them",
            next_step=f"list them in the order of the codes used in training: "
            f"features.categorical.{feature.name}: [level, ...]",
        )
    if stored is not None and feature.categories and stored != feature.categories:
        raise ModelError(
            f"the levels of '{feature.name}' differ between the configuration and model {location}",
            expected=_listed(stored) + " (stored in the model)",
            found=_listed(feature.categories),
            next_step=f"leave the list of '{feature.name}' out, or give exactly the model's levels in its order",
        )
    return replace(feature, categories=stored if stored is not None else feature.categories)


def _listed(levels: Sequence[str]) -> str:
    shown = ", ".join(levels[:20])
    return f"{shown}, … ({len(levels)})" if len(levels) > 20 else shown
