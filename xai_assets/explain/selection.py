"""Which explainer a model gets.

Belongs here: the methods, what each needs and costs, the rule behind `auto`, and the explainers kept per process.
Does not belong here: any implementation.
"""

import importlib.metadata
from dataclasses import dataclass

from xai_assets.errors import ModelError, nearest
from xai_assets.explain import gradients, library, linear, local_surrogate, sampled, tree
from xai_assets.explain.cache import BuildOnce
from xai_assets.explain.matrix import background_digest, float32_matrix
from xai_assets.explain.protocol import ExplainableModel, Explainer
from xai_assets.records import Float32


@dataclass(frozen=True)
class Method:
    """What is known of a method before anything is built.

    version: raised by hand when the method would give other attributions for the same model and request.
    library: the distribution that computes them, where it is not this project; "library" takes the model's own.
    """

    name: str
    version: str
    is_fast: bool
    needs_background: bool
    draws: bool = False
    library: str = ""

    def full_version(self, model: ExplainableModel) -> str:
        """The version with that of the library that is called, which changes values too; nothing is imported."""
        called = model.kind if self.name == "library" else self.library
        return f"{self.version} {called}-{distribution_version(called)}" if called else self.version


METHODS = {
    m.name: m
    for m in (
        Method("treeshap", tree.VERSION, is_fast=True, needs_background=False),
        Method("treeshap_interventional", tree.VERSION, is_fast=True, needs_background=True),
        Method("library", library.VERSION, is_fast=False, needs_background=False),
        Method("linear", linear.VERSION, is_fast=True, needs_background=True),
        Method("integrated_gradients", gradients.VERSION, is_fast=False, needs_background=True, library="captum"),
        Method("permutation", sampled.VERSION, is_fast=False, needs_background=True, draws=True, library="shap"),
        Method("kernel", sampled.VERSION, is_fast=False, needs_background=True, draws=True, library="shap"),
        Method("lime", local_surrogate.VERSION, is_fast=False, needs_background=True, draws=True, library="lime"),
    )
}


def distribution_version(name: str) -> str:
    """Version of an installed distribution, "missing" where it is not: building the explainer then says what to do."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


EXPLAINERS_KEPT = 8
_KEPT: BuildOnce[Explainer] = BuildOnce(EXPLAINERS_KEPT)


def explainer_for(
    model: ExplainableModel, *, method: str = "auto", background: Float32 | None = None, seed: int = 0
) -> Explainer:
    """The explainer of a model; the same object for the same artifact, method, background and seed.

    Parameters
    ----------
    model
        As `models.load_model` returns it.
    method
        A name of `METHODS`, or "auto": see `choose_method`.
    background
        float32 [m, d], encoded requests that stand for "feature absent"; only for methods that need one.
    seed
        Of random draws; without effect on methods that draw none.

    Raises
    ------
    ModelError
        The method is unknown or does not fit the model, or it needs a background and got none.
    """
    chosen = METHODS[choose_method(model, method)]
    rows = background if chosen.needs_background else None
    digest = None if rows is None else background_digest(float32_matrix(rows, "float32 [m, d]"))
    artifact = (model.kind, model.sha256, model.feature_names, tree.categories(model))
    key = (*artifact, chosen.name, digest, seed if chosen.draws else None)
    return _KEPT.get(key, lambda: _build(model, chosen, rows, seed))


def choose_method(model: ExplainableModel, method: str = "auto") -> str:
    """The method that explains a model, without building anything.

    "auto" is the kernel for trees, the closed form for linear models, Integrated Gradients for PyTorch modules, and
    permutation sampling for every other prediction function.

    Raises
    ------
    ModelError
        The method is unknown.
    """
    if method != "auto":
        if method not in METHODS:
            raise ModelError(f"there is no explainer '{method}'", next_step=nearest(method, ("auto", *METHODS)))
        return method
    if linear.is_linear(model):
        return "linear"
    if model.kind in tree.TREE_KINDS and _refusal(model) is None:
        return "treeshap"
    if model.kind in library.LIBRARIES and library.library_refusal(model) is None:
        return "library"
    return "integrated_gradients" if model.kind == "torch" else "permutation"


def _refusal(model: ExplainableModel) -> ModelError | None:
    """Why the kernel cannot explain the model; None where it can."""
    try:
        tree.tree_ensemble(model)
    except ModelError as error:
        return error
    return None


def _build(model: ExplainableModel, method: Method, background: Float32 | None, seed: int) -> Explainer:
    match method.name:
        case "treeshap":
            return tree.TreeExplainer.build(model)
        case "treeshap_interventional":
            return tree.TreeExplainer.build_interventional(model, background)
        case "library":
            refusal = _refusal(model)
            return library.LibraryExplainer.build(model, "" if refusal is None else str(refusal))
        case "linear":
            return linear.LinearExplainer.build(model, background)
        case "integrated_gradients":
            return gradients.IntegratedGradientsExplainer.build(model, background)
        case "lime":
            return local_surrogate.LimeExplainer.build(model, background, seed)
    return sampled.SampledExplainer.build(model, background, seed, method.name)
