"""Integrated Gradients of PyTorch modules, through captum.

Belongs here: the call, the baseline, the check that the attributions are complete.
Does not belong here: loading modules (see `models`).

φ_j = (x_j − x'_j) ∫₀¹ ∂f/∂x_j (x' + a (x − x')) da, along the straight line from the baseline x' (Sundararajan, Taly
and Yan, "Axiomatic attribution for deep networks", 2017). The attributions are complete: they add up to f(x) − f(x')
in the limit of many steps. The baseline here is the background's mean; base_value is f(x').
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import background_digest, checked, checked_background, finite_margin
from xai_assets.explain.protocol import ExplainableModel
from xai_assets.records import Attributions, Float32, Float64

VERSION = "1"
FIRST_STEPS, MOST_STEPS = 32, 1024
TOLERANCE = 5e-5
"""Gap to completeness, relative to max(1, |f|), under which a request gets no more steps."""
ROWS_AT_ONCE = 65_536
"""Most points (requests × steps) in one forward and backward pass: bounds the memory."""


@dataclass(frozen=True, eq=False)
class IntegratedGradientsExplainer:
    """captum's Integrated Gradients with as many steps as completeness takes.

    What a request still lacks of completeness at the largest number of steps stays visible: `margin` is the model's
    own prediction, so it shows as additivity error.
    """

    model: ExplainableModel
    baseline: Float32
    background_hash: str
    library: str
    id: str = "integrated_gradients"
    is_exact: bool = False
    is_fast: bool = False
    seed: None = None

    @property
    def version(self) -> str:
        return f"{VERSION} captum-{self.library}"

    @classmethod
    def build(cls, model: ExplainableModel, background: Float32 | None) -> "IntegratedGradientsExplainer":
        """Raises ModelError without captum, without a background, or where the module has no gradient."""
        captum = _captum()
        rows = checked_background(background, model.feature_names, "for the baseline of Integrated Gradients")
        if np.isnan(rows).any():
            raise ModelError(
                "the background of Integrated Gradients has missing values",
                expected="numbers only: a path from a missing value to a value is not defined",
                next_step="set explanation.method to permutation, or keep requests with missing values out of the log",
            )
        baseline = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        explainer = cls(model, baseline, background_digest(rows), captum.__version__)
        _check_same_function(model, rows)
        return explainer

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d]. See `Explainer.explain`."""
        checked(X, self.model.feature_names)
        if np.isnan(X).any():
            raise ModelError(
                "missing values cannot be explained by Integrated Gradients",
                expected="numbers only: a path from the baseline to a missing value is not defined",
                next_step="set explanation.method to permutation, or impute missing values before the log is written",
            )
        if len(X) == 0:
            return Attributions(np.empty(X.shape, np.float32), np.empty(0), np.empty(0))
        margin = finite_margin(self.model.predict_margin(X), "look at the request's values")
        base = float(self.model.predict_margin(self.baseline[None])[0])
        values = np.zeros(X.shape)
        open_rows, steps = np.arange(len(X)), FIRST_STEPS
        while len(open_rows) and steps <= MOST_STEPS:
            values[open_rows] = self._integrate(X[open_rows], steps)
            gap = np.abs(values[open_rows].sum(axis=1) + base - margin[open_rows])
            open_rows = open_rows[gap > TOLERANCE * np.maximum(1.0, np.abs(margin[open_rows]))]
            steps *= 2
        return Attributions(values.astype(np.float32), np.full(len(X), base), margin)

    def _integrate(self, X: Float32, steps: int) -> Float64:
        import torch

        method = _captum().attr.IntegratedGradients(lambda inputs: _output(self.model.native(inputs)))
        rows, dtype = max(1, ROWS_AT_ONCE // steps), _dtype(self.model.native)
        baseline = torch.from_numpy(self.baseline[None]).to(dtype)
        parts = [
            method.attribute(torch.from_numpy(X[i : i + rows].copy()).to(dtype), baselines=baseline, n_steps=steps)
            for i in range(0, len(X), rows)
        ]
        return np.concatenate([p.detach().numpy() for p in parts]).astype(np.float64)


def _output(found: Any) -> Any:
    """One number per request: modules give [n] or [n, 1]."""
    return found.reshape(found.shape[0])


def _dtype(module: Any) -> Any:
    """The floating type that the module computes in."""
    import torch

    floating = (p.dtype for p in module.parameters() if p.is_floating_point())
    return next(floating, torch.float32)


def _check_same_function(model: ExplainableModel, rows: Float32) -> None:
    """The module that is differentiated must be the function whose margin is reported."""
    import torch

    with torch.no_grad():
        inputs = torch.from_numpy(rows.copy()).to(_dtype(model.native))
        found = _output(model.native(inputs)).numpy().astype(np.float64)
    gap = float(np.abs(found - model.predict_margin(rows)).max())
    if not gap <= 1e-4 * max(1.0, float(np.abs(found).max())):
        raise ModelError(
            "the module's output is not the model's margin",
            expected="a module that returns log-odds, or the value of a regression",
            found=f"a difference of {gap:.3g}",
            next_step="export the module without its last activation, or set explanation.method to permutation",
        )


def _captum() -> Any:
    try:
        import captum
        import captum.attr
    except ImportError as error:
        raise ModelError(
            "explaining a PyTorch module needs captum, which is not installed",
            next_step="install the extra: pip install 'xai-assets[torch]', or set explanation.method to permutation",
        ) from error
    return captum
