"""Model artifacts: from a path or URI to a usable model.

Belongs here: reading the bytes, their hash and pin, who may be unpickled, the cache of models.
Does not belong here: what a file is (see `content`), how a library reads and predicts (see `kinds`), agreement with the
configured features (see `features`), training (see `training`), where models are kept (see `registry`).

Pickles are refused by content, not only by name, and so are PyTorch archives: loading either runs whatever code the
file holds. Only where the monitor's configuration both trusts the file and pins its hash is one read, after the hash
agreed.
"""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

from xai_assets.errors import ModelError, nearest
from xai_assets.models.content import choose_kind, recognise
from xai_assets.models.encoding import encode_features
from xai_assets.models.features import feature_levels, match_features
from xai_assets.models.kinds import mlflow
from xai_assets.models.kinds.loaded import Loaded
from xai_assets.models.model import Model, OutputKind
from xai_assets.records import FeatureSpec

__all__ = ["KINDS", "Model", "encode_features", "feature_levels", "inspect_features", "load_model"]

LOADERS = {
    "xgboost": "xgboost",
    "lightgbm": "lightgbm",
    "catboost": "catboost",
    "sklearn": "sklearn",
    "onnx": "onnx",
    "torch": "torch",
    "pickle": "pickled",
}
"""Kind of a file: the module in `kinds` whose `load` reads it."""
KINDS = ("auto", *LOADERS, "mlflow")


def load_model(
    path: str | Path,
    kind: str = "auto",
    sha256: str | None = None,
    features: Sequence[FeatureSpec] = (),
    *,
    trust_pickle: bool = False,
    output: OutputKind = "auto",
) -> Model:
    """Read an artifact and check that it is a model of (some of) the configured features.

    Parameters
    ----------
    path
        Local path, a URI that `pyarrow.fs` reads (``s3://bucket/model.ubj``), an MLflow URI (``models:/name/3``,
        ``runs:/id/path``) or a local folder with an `MLmodel` file.
    kind
        One of `KINDS`. "auto" tells by content, then by name; any other refuses files of another kind.
    sha256
        Pin: hex digest the file must have, or None. Of an MLflow model: of the one file that holds the model.
    features
        The configured features. The model may use fewer; one without feature names must use all, in this order.
    trust_pickle
        Whether a pickle or a PyTorch archive may be loaded, which can run code in it. Needs the pin, which is compared
        first.
    output
        `models.output`. "probability" makes a network's or a bare ONNX output the log-odds of a classifier.

    Raises
    ------
    ModelError
        The file is missing, corrupt, a pickle or PyTorch archive that is not trusted, another file than the pin says,
        of another kind, from a newer library, of several outputs, its library is not installed, or its features or
        categories do not agree with the configuration.

    Notes
    -----
    The file is read and hashed each time; the model is kept per process for the same path, content and arguments.
    """
    location, raw, digest, chosen = _checked(path, kind, sha256, trust_pickle)
    return _model(location, digest, chosen, kind, tuple(features), output == "probability", _Bytes(raw))


def inspect_features(path: str | Path) -> tuple[tuple[str, str], ...]:
    """Names and kinds (numeric, categorical, boolean, or "" where the model does not say) of a model's features.

    Raises
    ------
    ModelError
        As `load_model`, and where the model has no feature names.
    """
    location, raw, _, chosen = _checked(path, "auto", None, False)
    loaded = _loader(chosen)(location, raw)
    if loaded.feature_names is None:
        raise ModelError(
            f"model {location} has no feature names, so its columns cannot be told",
            expected="a model saved with feature names",
            next_step="train with named columns, or write defs.yaml by hand (dg scaffold defs xai_assets.DriftMonitor)",
        )
    return tuple((name, _kind_of(loaded, position)) for position, name in enumerate(loaded.feature_names))


def _kind_of(loaded: Loaded, position: int) -> str:
    if position in loaded.categorical:
        return "categorical"
    return "boolean" if position in loaded.boolean else ""


def _checked(path: str | Path, kind: str, sha256: str | None, trust_pickle: bool) -> tuple[str, bytes, str, str]:
    """Location, bytes, digest and kind of a file that may be read."""
    location, wanted = str(path), kind
    if kind not in KINDS:
        raise ModelError(f"model kind '{kind}' is not supported", expected=", ".join(KINDS), found=kind)
    _check_trust(location, kind, sha256, trust_pickle)
    if mlflow.is_mlflow(location):
        fetched = mlflow.fetch(location)
        location, raw = fetched.location, fetched.raw
        wanted = fetched.kind if kind in ("auto", "mlflow") else kind
    elif kind == "mlflow":
        raise ModelError(
            f"model {location} is not an MLflow model",
            expected=f"models:/name/version, runs:/id/path, or a folder with a file {mlflow.DESCRIPTION}",
            found="a folder without one" if Path(location).is_dir() else "a file, or nothing",
        )
    else:
        raw = _read(location)
    digest = hashlib.sha256(raw).hexdigest()
    if sha256 is not None and digest != sha256.strip().lower():
        raise ModelError(
            f"model {location} is not the pinned file",
            expected=f"SHA-256 {sha256}",
            found=digest,
            next_step="restore the file, or change the pin if the new model is meant",
        )
    return location, raw, digest, choose_kind(location, recognise(location, raw), wanted, trusted=trust_pickle)


def _check_trust(location: str, kind: str, sha256: str | None, trust_pickle: bool) -> None:
    if trust_pickle and sha256 is None:
        raise ModelError(
            f"model {location} is to be trusted without a pinned hash, and is refused",
            expected="sha256 beside trust_pickle: the digest of the file that you trust",
            next_step=f"pin it: sha256sum {location}",
        )
    if kind == "pickle" and not trust_pickle:
        raise ModelError(
            f"model {location} is configured as a pickle and is refused: loading one runs whatever code the file holds",
            expected="trust_pickle: true and the file's sha256 beside kind: pickle",
            next_step="save the model in its library's own format, or trust and pin the file",
        )


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


def _loader(kind: str) -> Callable[[str, bytes], Loaded]:
    load: Callable[[str, bytes], Loaded] = importlib.import_module(f"xai_assets.models.kinds.{LOADERS[kind]}").load
    return load


@lru_cache(maxsize=16)
def _model(
    location: str,
    digest: str,
    chosen: str,
    wanted: str,
    features: tuple[FeatureSpec, ...],
    is_probability: bool,
    content: _Bytes,
) -> Model:
    loaded = _loader(chosen)(location, content.take())
    found = loaded.file_kind or loaded.kind
    if wanted not in ("auto", "mlflow", "pickle", found):
        raise ModelError(
            f"model {location} is not of the configured kind",
            expected=f"kind {wanted}",
            found=f"{found}, out of a pickle" if chosen == "pickle" else found,
            next_step="correct kind, or leave it out",
        )
    resolved, notes = match_features(location, loaded, features)
    predictor = loaded.bind(resolved)
    unknown = loaded.is_classifier is None
    return Model(
        sha256=digest,
        features=resolved,
        kind=loaded.kind,
        native=loaded.native,
        objective=loaded.objective,
        is_classifier=is_probability if loaded.is_classifier is None else loaded.is_classifier,
        predictor=predictor,
        has_probability=unknown or (bool(loaded.is_classifier) and loaded.has_probability),
        notes=(*notes, *loaded.notes),
    )
