"""Integrated Gradients of real modules, through captum."""

import numpy as np
import pytest

from xai_assets.errors import ModelError
from xai_assets.explain import additivity_error, explainer_for

torch = pytest.importorskip("torch")
pytest.importorskip("captum")
pytestmark = [
    pytest.mark.extras,
    # torch and captum call functions of numpy and of each other that are about to go
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

RNG = np.random.default_rng(2)
X = RNG.normal(size=(8, 3)).astype(np.float32)
BACKGROUND = (RNG.normal(size=(50, 3)) + np.array([1, 0, -1])).astype(np.float32)


class Product(torch.nn.Module):
    """2 a + b c; in `smooth` form tanh of it."""

    def __init__(self, smooth: bool = False) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = 2 * x[:, 0] + x[:, 1] * x[:, 2]
        return torch.tanh(found) if self.smooth else found


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)).eval()


@pytest.fixture
def of_module(of_function):
    def wrap(module):
        def margin(Z):
            with torch.no_grad():
                return module(torch.from_numpy(np.array(Z))).numpy().astype(np.float64)

        return of_function(margin, 3, "torch", module)

    return wrap


def test_the_integral_of_a_product_is_known(of_module):
    """On the line from x' to x the gradient of b c is (0, c', b') + t (0, Δc, Δb): φ_b = Δb (c' + c) / 2."""
    found = explainer_for(of_module(Product()), background=BACKGROUND).explain(X)
    start = BACKGROUND.mean(axis=0)
    expected = np.column_stack(
        [
            2 * (X[:, 0] - start[0]),
            (X[:, 1] - start[1]) * (X[:, 2] + start[2]) / 2,
            (X[:, 2] - start[2]) * (X[:, 1] + start[1]) / 2,
        ]
    )
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_allclose(found.base_value, 2 * start[0] + start[1] * start[2], atol=1e-5)
    assert additivity_error(found) < 1e-5


def test_complete_for_a_smooth_module_and_for_one_with_kinks(of_module):
    assert additivity_error(explainer_for(of_module(Product(smooth=True)), background=BACKGROUND).explain(X)) < 1e-4
    found = explainer_for(of_module(network()), background=BACKGROUND).explain(X)
    assert additivity_error(found) < 1e-3
    assert np.abs(found.values).max() > 0.05


def test_what_lacks_of_completeness_is_seen(of_module, monkeypatch):
    from xai_assets.explain import gradients

    model = of_module(network())
    healthy = additivity_error(explainer_for(model, background=BACKGROUND).explain(X))
    monkeypatch.setattr(gradients, "FIRST_STEPS", 2)
    monkeypatch.setattr(gradients, "MOST_STEPS", 2)
    assert additivity_error(explainer_for(model, background=BACKGROUND).explain(X)) > 3 * healthy


def test_scripted_and_exported_modules(of_module, of_function):
    module = network()
    expected = explainer_for(of_module(module), background=BACKGROUND).explain(X).values
    scripted = torch.jit.trace(module, torch.zeros(2, 3))
    dynamic = {"input": {0: torch.export.Dim("rows")}}
    exported = torch.export.export(module, (torch.zeros(2, 3),), dynamic_shapes=dynamic).module()
    for other in (scripted, exported):
        found = explainer_for(of_module(other), background=BACKGROUND).explain(X)
        np.testing.assert_allclose(found.values, expected, atol=1e-5)


def test_double_precision(of_function):
    module = network().double()

    def margin(Z):
        with torch.no_grad():
            return module(torch.from_numpy(Z.astype(np.float64))).numpy()

    found = explainer_for(of_function(margin, 3, "torch", module), background=BACKGROUND).explain(X)
    assert additivity_error(found) < 1e-3


def test_what_it_says_of_itself(of_module):
    import captum

    explainer = explainer_for(of_module(Product()), background=BACKGROUND)
    assert explainer.id == "integrated_gradients"
    assert captum.__version__ in explainer.version
    assert (explainer.is_exact, explainer.is_fast, explainer.seed) == (False, False, None)
    assert explainer.background_hash is not None
    assert explainer.explain(X[:0]).values.shape == (0, 3)


def test_refusals(of_module, of_function):
    gappy = X.copy()
    gappy[3, 1] = np.nan
    explainer = explainer_for(of_module(Product()), background=BACKGROUND)
    with pytest.raises(ModelError, match="missing values cannot be explained"):
        explainer.explain(gappy)
    with pytest.raises(ModelError, match="background of Integrated Gradients has missing values"):
        explainer_for(of_module(Product()), background=gappy)
    sigmoid = torch.nn.Sequential(network(), torch.nn.Sigmoid())
    plain = of_module(network())
    other = of_function(plain._margin, 3, "torch", sigmoid)
    with pytest.raises(ModelError, match="output is not the model's margin"):
        explainer_for(other, background=BACKGROUND)
