"""The code location: everything in `defs/`, nothing else."""

import dagster as dg

from xai_assets.lake.location import project_root

defs: dg.Definitions = dg.load_from_defs_folder(path_within_project=project_root())
