"""`DriftMonitor`, the Dagster component: what a user wrote in `defs.yaml` becomes assets, checks, jobs and sensors.

Belongs here: the bridge from YAML to `MonitorConfig` and the starter file. Does not belong here: anything else.
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

import dagster as dg
from dagster.components.resolved.context import ResolutionContext
from pydantic import BaseModel, ConfigDict, create_model

from xai_assets.config import MonitorConfig
from xai_assets.lake.location import in_data_folder
from xai_assets.orchestration.assembly import build_definitions
from xai_assets.starter import starter_yaml


def _attributes_model() -> type[BaseModel]:
    """Keys as Dagster documents them. Values are checked by `MonitorConfig`, whose messages name the nearest key."""
    keys: Any = {f.name: (Any, None) for f in fields(MonitorConfig) if f.name not in ("name", "base_dir")}
    return create_model("DriftMonitorAttributes", __config__=ConfigDict(extra="allow"), **keys)


class DriftMonitorScaffolder(dg.Scaffolder[Any]):
    """Writes a commented starter `defs.yaml`."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        """Write the file that the user then fills in."""
        target = Path(request.target_path)
        (target / "defs.yaml").write_text(starter_yaml(target.name), encoding="utf-8")


@dg.scaffold_with(DriftMonitorScaffolder)
class DriftMonitor(dg.Component):
    """Explanation-drift monitor for a production model and its shadow, from one YAML file."""

    def __init__(self, config: MonitorConfig) -> None:
        self.config = config

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        return _attributes_model()

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "DriftMonitor":
        """Raises ConfigError naming the key's path, what was expected and the nearest valid name."""
        given = attributes.model_dump(exclude_unset=True) if attributes is not None else {}
        resolution: ResolutionContext = context.resolution_context
        mapping = {k: resolution.resolve_value(v, as_type=Any) for k, v in given.items()}
        return cls(in_data_folder(MonitorConfig.from_mapping(context.path.name, mapping, context.project_root)))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002 - Dagster's signature
        return build_definitions(self.config)
