"""PyTorch modules: TorchScript archives and torch.export archives.

Belongs here: the module, and tensors in and out. Does not belong here: attributions (see `explain`), files of
`torch.save`, which are pickles and are refused; whether a file may be loaded (see `artifact`).

An archive is a program, and loading it can run any code. Only `artifact` may call `load`, after the hash agreed.

The module takes a float tensor [n, d], the features in the configuration's order, and returns [n] or [n, 1]. Its output
is the margin. Where `models.output` is "probability" it is read as log-odds, and the probability is its logistic
function; leave a final sigmoid out of the module.
"""

import contextlib
import importlib
import io
import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.models.content import is_exported
from xai_assets.models.kinds.loaded import Loaded, damaged, first_line, library, logistic, one_output, rejected
from xai_assets.records import FeatureSpec, Float32, Float64

WHAT, WRITER = "a TorchScript or torch.export archive", "torch.jit.save or torch.export.save"


def load(location: str, raw: bytes) -> Loaded:
    """The module of a trusted archive. Raises ModelError where it is damaged or of a version that torch cannot read."""
    torch = library("torch", "torch", location)
    try:
        module = _exported(location, torch, raw) if is_exported(_members(raw)) else _scripted(torch, raw)
    except ModelError:
        raise
    except Exception as error:  # torch raises RuntimeError, ValueError, zip and serialization errors of its own
        if "version" in str(error).lower() and "maximum supported" in str(error).lower():
            raise _newer(location, torch, first_line(error)) from error
        raise damaged(location, WHAT, WRITER, error) from error
    return from_module(location, module)


def unwrap(location: str, module: Any) -> Loaded:
    """The same from a module in memory, put into evaluation mode: pickles keep the mode that it was saved in."""
    if hasattr(module, "eval"):
        with contextlib.suppress(NotImplementedError):  # modules of torch.export have no modes, and say so
            module.eval()
    return from_module(location, module)


def from_module(location: str, module: Any) -> Loaded:
    """A module in memory, in evaluation mode where it has modes (see `unwrap`)."""
    return Loaded(
        kind="torch",
        native=module,
        bind=lambda features: _bind(location, module, features),
        objective="a PyTorch module",
        is_classifier=None,
        n_features=None,
        notes=(f"model {location}: missing values reach the module as NaN",),
    )


@dataclass(frozen=True, eq=False)
class ModulePredictor:
    """Runs the module without gradients, on its own floating type."""

    module: Any
    dtype: Any

    def margin(self, X: Float32) -> Float64:
        import torch

        rows = torch.from_numpy(np.array(X, dtype=np.float32)).to(self.dtype)
        try:
            with torch.no_grad():
                found = self.module(rows)
        except Exception as error:  # a module may raise anything
            raise rejected("PyTorch", error) from error
        if not isinstance(found, torch.Tensor):
            raise ModelError("a PyTorch model must return one tensor", found=type(found).__name__)
        return one_output(found.detach().to("cpu", torch.float64).numpy(), len(X), "of PyTorch")

    def value(self, X: Float32) -> Float64:
        return self.margin(X)

    def probability(self, X: Float32) -> Float64:
        return logistic(self.margin(X))


def _members(raw: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        return archive.namelist()


def _scripted(torch: Any, raw: bytes) -> Any:
    with warnings.catch_warnings():
        # torch.jit is deprecated in favour of torch.export, which whoever reads a given archive cannot change.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(raw), map_location="cpu").eval()


def _exported(location: str, torch: Any, raw: bytes) -> Any:
    # torch.export.load itself reports a newer schema as a damaged file, with a stack trace in the log
    newest = importlib.import_module("torch._export.serde.schema").SCHEMA_VERSION[0]
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        for name in archive.namelist():
            if name.endswith("/models/model.json"):
                found = json.loads(archive.read(name))["schema_version"]["major"]
                if found > newest:
                    raise _newer(location, torch, f"schema version {found}, newer than {newest}")
    # Without guards: wrong numbers of features are found by trying, with a message of ours (see `_bind`).
    return torch.export.load(io.BytesIO(raw)).module(check_guards=False)


def _newer(location: str, torch: Any, found: str) -> ModelError:
    return ModelError(
        f"model {location} was written by a newer torch than the installed one",
        expected=f"an archive that torch {torch.__version__} reads",
        found=found,
        next_step="upgrade torch here, or save the model with the installed version",
    )


def _bind(location: str, module: Any, features: Sequence[FeatureSpec]) -> ModulePredictor:
    """The predictor, tried on 2 and 3 rows: neither the number of features nor the batch size is in the archive."""
    import torch

    floating = [p.dtype for p in module.parameters() if p.is_floating_point()]
    predictor = ModulePredictor(module, floating[0] if floating else torch.float32)
    for rows in (2, 3):
        try:
            predictor.margin(np.zeros((rows, len(features)), np.float32))
        except ModelError as error:
            if "more than one output" in error.what:
                raise
            raise ModelError(
                f"model {location} cannot take {rows} rows of the {len(features)} configured features",
                expected="a module from a float tensor [n, features] to [n] or [n, 1], for any n",
                found=error.found,
                next_step="list exactly the module's features, in its order; export with a dynamic batch dimension",
            ) from error
    return predictor
