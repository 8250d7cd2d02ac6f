"""What all monitors share in this deployment: resources and the executor."""

import dagster as dg

from xai_assets.orchestration.resources import resources

defs = dg.Definitions(resources=resources(), executor=dg.in_process_executor)
