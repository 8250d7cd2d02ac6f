"""`Monitor`: one configuration bound to its lake and its two models.

Belongs here: opening the models once, and the schema facts that follow from configuration and models together.
Does not belong here: any computation on rows.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from xai_assets.config import ModelConfig, MonitorConfig
from xai_assets.errors import ModelError
from xai_assets.lake.store import Lake
from xai_assets.models.artifact import Model, load_model
from xai_assets.records import EXPERIMENTAL, MODEL_ROLES, PRODUCTION, FeatureSpec


@dataclass(frozen=True)
class Monitor:
    """A monitored pair of models. Models are loaded on first use, so that looking at definitions costs nothing."""

    config: MonitorConfig
    lake: Lake

    @property
    def name(self) -> str:
        return self.config.name

    def model_config(self, role: str) -> ModelConfig:
        return {PRODUCTION: self.config.models.production, EXPERIMENTAL: self.config.models.experimental}[role]

    def model(self, role: str) -> Model:
        """The artifact of a role, read once. Raises ModelError where it is missing, damaged, refused or unfit."""
        if role not in self._models:
            self._models[role] = self._load(self.model_config(role))
        return self._models[role]

    def previous_model(self, role: str) -> Model:
        """The version that was in service before, read once. Raises ModelError as `model` does, where none is
        configured, and where it predicts something else than the present one."""
        spec, key = self.model_config(role).previous, f"{role}.previous"
        if spec is None:
            raise ModelError(f"no earlier version is configured: {self.name}.models.{key}")
        if key not in self._models:
            found, now = self._load(spec), self.model(role)
            if found.is_classifier != now.is_classifier:
                kinds = ["a classifier" if m.is_classifier else "a regression" for m in (now, found)]
                raise ModelError(
                    f"{self.name}.models.{key} cannot be compared with the version in service",
                    expected=f"{kinds[0]}: attributions have its units",
                    found=kinds[1],
                    next_step="remove previous, or name a version of the same model",
                )
            self._models[key] = found
        return self._models[key]

    @cached_property
    def _models(self) -> dict[str, Model]:
        return {}

    def _load(self, spec: ModelConfig) -> Model:
        return load_model(
            self.config.resolve(spec.path),
            spec.kind,
            spec.sha256,
            self.config.features,
            trust_pickle=spec.trust_pickle,
            output=self.config.models.output,
        )

    @cached_property
    def model_hashes(self) -> Mapping[str, str]:
        """SHA-256 of both artifacts by role."""
        return {role: self.model(role).sha256 for role in MODEL_ROLES}

    @cached_property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The configured features in order; levels a model knows fill in those the configuration leaves out."""
        known: dict[str, FeatureSpec] = {}
        for role in reversed(MODEL_ROLES):
            known |= {f.name: f for f in self.model(role).features}
        return tuple(f if f.categories or f.name not in known else known[f.name] for f in self.config.features)

    @property
    def categories(self) -> Mapping[str, tuple[str, ...]]:
        """Known levels of each categorical feature."""
        return {f.name: f.categories for f in self.features if f.kind == "categorical"}
