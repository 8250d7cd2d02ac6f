"""PyTorch modules: TorchScript archives and torch.export archives.

Belongs here: the module, and tensors in and out. Does not belong here: attributions (see `explain`), files of
`torch.save`, which are pickles and are refused.

The module takes a float tensor [n, d], the features in the configuration's order, and returns [n] or [n, 1]. Its output
is the margin. Where `models.output` is "probability" it is read as log-odds, and the probability is its logistic
function; leave a final sigmoid out of the module.
"""

import io
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.models.kinds.loaded import Loaded, damaged, first_line, library, logistic, one_output, rejected
from xai_assets.models.kinds.torch_archive import (
    UnsafeArchiveError,
    check_exported,
    check_scripted,
    is_exported,
)
from xai_assets.records import FeatureSpec, Float32, Float64

WHAT, WRITER = "a TorchScript or torch.export archive", "torch.jit.save or torch.export.save"


def load(location: str, raw: bytes) -> Loaded:
    """The module of an archive. Raises ModelError where it is damaged, newer, or a pickle."""
    torch = library("torch", "torch", location)
    try:
        module = _exported(torch, raw) if is_exported(_members(raw)) else _scripted(torch, raw)
    except UnsafeArchiveError as error:
        raise ModelError(
            f"model {location} is refused: loading it could run more than operators on tensors",
            expected=f"{WHAT} of plain tensors and operators",
            found=str(error),
            next_step="export the module again with torch.export of this version and torch.export.save",
        ) from error
    except Exception as error:  # torch raises RuntimeError, ValueError, zip and serialization errors of its own
        if "version" in str(error).lower() and "maximum supported" in str(error).lower():
            raise ModelError(
                f"model {location} was written by a newer torch than the installed one",
                expected=f"an archive that torch {torch.__version__} reads",
                found=first_line(error),
                next_step="upgrade torch here, or save the model with the installed version",
            ) from error
        raise damaged(location, WHAT, WRITER, error) from error
    return from_module(location, module)


def from_module(location: str, module: Any) -> Loaded:
    """A module in memory; in evaluation mode where it has one."""
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
    check_scripted(raw)
    with warnings.catch_warnings():
        # torch.jit is deprecated in favour of torch.export, which whoever reads a given archive cannot change.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(io.BytesIO(raw), map_location="cpu").eval()


def _exported(torch: Any, raw: bytes) -> Any:
    check_exported(raw, lambda inputs: torch.load(io.BytesIO(inputs), weights_only=True))
    # Guards are source code that module() would run; wrong numbers of features are found by trying (see `_bind`).
    return torch.export.load(io.BytesIO(raw)).module(check_guards=False)


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
