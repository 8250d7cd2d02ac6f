"""Sampled Shapley values of any prediction function, through shap.

Belongs here: permutation sampling, KernelSHAP, their seeds, how many evaluations a request may take.
Does not belong here: which requests are explained (see `lake.sampling`).

Both play the interventional game over one background: features outside a coalition take the values of each background
row in turn, and the model's margins are averaged. Base value is the background's mean margin; base value and
attributions add up to the margin by construction. Only the attributions' split among features is an estimate.

A request's random draws depend on the seed and on its own values alone, so it gets the same attributions whatever
batch it is in.

shap leaves out features that "do not vary", which it decides within a relative tolerance of 1e-5: of a timestamp or an
identifier that is every value. So it is handed codes instead of values (`_Codes`), equal exactly where values are.
"""

import contextlib
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.errors import ModelError
from xai_assets.explain.matrix import background_digest, checked, checked_background, finite_margin
from xai_assets.explain.protocol import ExplainableModel
from xai_assets.records import Attributions, Float32, Float64

VERSION = "2"
EVALUATIONS = 200
"""Coalitions evaluated per request, each over the whole background; at least one whole pass over the features."""
KERNEL_EVALUATIONS = 512
"""Coalitions beyond 2 d that KernelSHAP draws per request."""
MOST_BACKGROUND_ROWS = 50_000
"""shap takes codes above 100,000 for equal, at its relative tolerance of 1e-5."""
_ONE_AT_A_TIME = threading.Lock()
"""shap draws from numpy's one global generator."""


@dataclass(frozen=True, eq=False)
class SampledExplainer:
    """Antithetic permutation sampling (`permutation`) or weighted regression over coalitions (`kernel`).

    Permutations run forwards and backwards, which is exact where no more than two features interact (Mitchell et al.,
    "Sampling permutations for Shapley value estimation", 2022). Kernel: Lundberg and Lee, 2017, without its L1
    selection of features.
    """

    model: ExplainableModel
    background: Float32
    background_hash: str
    base: float
    seed: int
    id: str
    is_exact: bool = False
    is_fast: bool = False

    @property
    def version(self) -> str:
        return f"{VERSION} shap-{_shap().__version__}"

    @classmethod
    def build(
        cls, model: ExplainableModel, background: Float32 | None, seed: int, method: str = "permutation"
    ) -> "SampledExplainer":
        """Raises ModelError without a background, one too long, or where the model gives no finite margin for it."""
        rows = checked_background(background, model.feature_names, "by sampled explainers, for absent features")
        if len(rows) > MOST_BACKGROUND_ROWS:
            raise ModelError(
                "the background is too long for sampled explainers",
                expected=f"at most {MOST_BACKGROUND_ROWS:,} rows",
                found=f"{len(rows):,}",
                next_step="draw some hundred rows of it: every coalition is evaluated over all of them",
            )
        margin = finite_margin(model.predict_margin(rows), "choose a background that the model can predict")
        return cls(model, np.ascontiguousarray(rows), background_digest(rows), float(margin.mean()), seed, method)

    def explain(self, X: Float32) -> Attributions:
        """Attributions of float32 [n, d]: about `EVALUATIONS` × background rows predictions per request."""
        checked(X, self.model.feature_names)
        if len(X) == 0:
            return Attributions(np.empty(X.shape, np.float32), np.empty(0), np.empty(0))
        margin = finite_margin(self.model.predict_margin(X), "quarantine requests that the model cannot predict")
        values = np.empty(X.shape, np.float32)
        with _ONE_AT_A_TIME, _own_random_state():
            codes = _Codes(self.background)
            explain_row = self._permutation(codes) if self.id == "permutation" else self._kernel(codes)
            for i, row in enumerate(X):
                np.random.seed(zlib.crc32(row.tobytes(), self.seed & 0xFFFFFFFF))
                values[i] = explain_row(codes.of_request(row))
        return Attributions(values, np.full(len(X), self.base), margin)

    def _permutation(self, codes: "_Codes") -> Callable[[Float64], Float64]:
        shap, d = _shap(), self.background.shape[1]
        masker = shap.maskers.Independent(codes.background, max_samples=len(codes.background))
        explainer = shap.explainers.Permutation(self._of_codes(codes), masker, seed=self.seed)
        evaluations = max(EVALUATIONS, 2 * d + 1)

        def explain(row: Float64) -> Float64:
            found = explainer(row, max_evals=evaluations, batch_size=2 * d + 1, silent=True)
            return np.asarray(found.values[0], dtype=np.float64)

        return explain

    def _kernel(self, codes: "_Codes") -> Callable[[Float64], Float64]:
        explainer = _shap().KernelExplainer(self._of_codes(codes), codes.background)
        evaluations = 2 * self.background.shape[1] + KERNEL_EVALUATIONS

        def explain(row: Float64) -> Float64:
            found = explainer.shap_values(row, nsamples=evaluations, l1_reg=0, silent=True)
            return np.asarray(found, dtype=np.float64).reshape(-1)

        return explain

    def _of_codes(self, codes: "_Codes") -> Callable[[Any], Float64]:
        """The model's margin as a function of codes [n, d]."""
        return lambda coded: self.model.predict_margin(codes.values(coded))


class _Codes:
    """Whole numbers in the place of feature values, equal exactly where the values are; missing equals missing.

    A value's code is the number, from 1, of the first background row that has it; 0 is the request's own value where
    no background row has it. background: float64 [m, d].
    """

    def __init__(self, background: Float32) -> None:
        self._rows = background
        self._table = np.concatenate([background[:1], background])  # row 0 holds the request that is being explained
        self._columns = np.arange(background.shape[1])
        self.background: Float64 = np.empty(background.shape, np.float64)
        for j, column in enumerate(background.T):
            _, first, inverse = np.unique(column, return_index=True, return_inverse=True)
            self.background[:, j] = 1 + first[inverse]

    def of_request(self, row: Float32) -> Float64:
        """Codes [1, d] of a request [d]; from here on code 0 stands for its values."""
        self._table[0] = row
        same = (self._rows == row) | (np.isnan(self._rows) & np.isnan(row))
        return np.where(same.any(axis=0), 1.0 + same.argmax(axis=0), 0.0)[None]

    def values(self, coded: Any) -> Float32:
        """The feature values float32 [n, d] that codes [n, d] stand for."""
        return self._table[np.asarray(coded).astype(np.intp), self._columns]


@contextlib.contextmanager
def _own_random_state() -> Iterator[None]:
    """Numpy's global generator as it was before, whatever is drawn in between."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)


def _shap() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # shap's plots use a function that matplotlib is about to deprecate
            import shap
    except ImportError as error:
        raise ModelError(
            "sampled explainers need shap, which is not installed", next_step="pip install shap"
        ) from error
    return shap
