"""Agreement between an artifact's inputs and the configured features.

Belongs here: names, their order, and the levels whose positions are a categorical feature's codes.
Does not belong here: reading artifacts (see `kinds`), turning columns into numbers (see `encoding`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from xai_assets.errors import ModelError, nearest
from xai_assets.models.kinds.loaded import Loaded
from xai_assets.models.model import Model
from xai_assets.records import FeatureSpec


def match_features(
    location: str, loaded: Loaded, features: Sequence[FeatureSpec]
) -> tuple[tuple[FeatureSpec, ...], tuple[str, ...]]:
    """The features in the model's order, levels resolved, and notes.

    Raises
    ------
    ModelError
        The model reads features that the configuration lacks, has no names while the numbers differ, or the kinds or
        levels of a feature disagree.
    """
    names, notes = _feature_names(location, loaded, features)
    configured = {f.name: f for f in features}
    resolved = tuple(_resolve(location, configured[name], position, loaded) for position, name in enumerate(names))
    return resolved, notes


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


def _feature_names(
    location: str, loaded: Loaded, features: Sequence[FeatureSpec]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The model's feature names, or the configured ones where it has none and the number agrees."""
    configured = [f.name for f in features]
    if loaded.feature_names is None:
        if loaded.n_features is not None and loaded.n_features != len(configured):
            raise ModelError(
                f"model {location} has no feature names, and their number differs from the configuration",
                expected=f"{loaded.n_features} features",
                found=f"{len(configured)}: {', '.join(configured)}",
                next_step="save the model with feature names, or list exactly its features, in its order",
            )
        return tuple(configured), (f"model {location} has no feature names: the configuration's order was used",)
    names = loaded.feature_names
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


def _resolve(location: str, feature: FeatureSpec, position: int, loaded: Loaded) -> FeatureSpec:
    """The feature with the levels whose positions are the model's codes."""
    stored = loaded.categorical.get(position)
    if feature.kind != "categorical":
        if position in loaded.categorical:
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
