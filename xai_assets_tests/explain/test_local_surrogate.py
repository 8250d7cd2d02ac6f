"""LIME on functions whose answer is known."""

import numpy as np
import pytest

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, explainer_for

pytest.importorskip("lime")
pytestmark = pytest.mark.extras

RNG = np.random.default_rng(2)
X = RNG.normal(size=(3, 3)).astype(np.float32)
BACKGROUND = RNG.normal(size=(200, 3)).astype(np.float32)
WEIGHTS = np.array([2.0, -1.0, 0.0])


def test_a_linear_function_is_its_own_surrogate(of_function):
    model = of_function(lambda Z: Z.astype(float) @ WEIGHTS + 3, 3)
    explainer = explainer_for(model, method="lime", background=BACKGROUND)
    found = explainer.explain(X)
    expected = WEIGHTS * (X - BACKGROUND.mean(axis=0))
    np.testing.assert_allclose(found.values, expected, rtol=0.01, atol=1e-3)  # the ridge penalty shrinks
    assert additivity_error(found) < 0.01
    assert (explainer.id, explainer.is_exact, explainer.is_fast) == ("lime", False, False)
    assert "lime-" in explainer.version


def test_the_seed_decides_and_the_batch_does_not(of_function):
    model = of_function(lambda Z: np.tanh(Z[:, 0].astype(float) * Z[:, 1]), 3)
    first = explainer_for(model, method="lime", background=BACKGROUND).explain(X)
    np.testing.assert_array_equal(
        explainer_for(model, method="lime", background=BACKGROUND).explain(X[1:]).values, first.values[1:]
    )
    other = explainer_for(model, method="lime", background=BACKGROUND, seed=1).explain(X)
    assert np.abs(first.values - other.values).max() > 1e-6
    assert additivity_error(first) > 1e-3  # a surrogate of a curved function: what it lacks is seen


def test_refusals(of_function):
    model = of_function(lambda Z: Z.astype(float) @ WEIGHTS, 3)
    gappy = X.copy()
    gappy[0, 0] = np.nan
    with pytest.raises(ModelError, match=r"cannot perturb missing values.*1 of 3"):
        explainer_for(model, method="lime", background=BACKGROUND).explain(gappy)
    with pytest.raises(ModelError, match="cannot perturb"):
        explainer_for(model, method="lime", background=gappy)
