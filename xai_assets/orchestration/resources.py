"""Resources: the lake and the DuckDB connection over it.

Belongs here: how a run gets at storage. Does not belong here: paths (see `lake.location`), SQL (see `lake.queries`).
"""

from typing import Any

import dagster as dg
from dagster._config.pythonic_config.resource import ConfigurableResourceFactory
from dagster_duckdb import DuckDBResource

from xai_assets.lake.location import lake_root
from xai_assets.lake.store import Lake


class LakeResource(ConfigurableResourceFactory[Lake]):
    """The lake under `root`, a path or a URI such as `s3://bucket/prefix`."""

    root: str

    def create_resource(self, context: dg.InitResourceContext) -> Lake:  # noqa: ARG002 - Dagster's signature
        return Lake(self.root)


def resources(root: str | None = None) -> dict[str, Any]:
    """All resources of the deployment. The DuckDB connection holds views in memory and locks no file."""
    return {"lake": LakeResource(root=root or lake_root()), "duckdb": DuckDBResource(database=":memory:")}
