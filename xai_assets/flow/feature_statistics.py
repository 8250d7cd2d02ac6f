"""Daily statistics of every feature, from the day's stored histograms.

Belongs here: from stored blocks to rows of `feature_statistics`. Does not belong here: the formulas
(`stats.feature_statistics`), reading requests: nothing but histograms is needed.
"""

from collections.abc import Mapping
from datetime import date

import polars as pl

from xai_assets.flow.histograms import Profile
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import load_day_blocks
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.lake.tables import FEATURE_STATISTICS
from xai_assets.records import INPUT
from xai_assets.stats.feature_statistics import feature_statistics

POPULATION = "all"


def write_day_statistics(monitor: Monitor, day: date, profile: Profile, provenance: str) -> pl.DataFrame:
    """Compute and store `feature_statistics` of one day; returns what was stored.

    Raises LakeError where the day has no histograms, ProvenanceError where they are over other cells.
    """
    kinds = {f.name: f.kind for f in monitor.features}
    frame = statistics_frame(load_day_blocks(monitor, day, profile), profile, kinds)
    metadata = {"provenance": provenance, "profile_hash": profile.profile_hash}
    monitor.lake.write("feature_statistics", monitor.name, day, frame, metadata)
    return frame


def statistics_frame(blocks: Blocks, profile: Profile, kinds: Mapping[str, str]) -> pl.DataFrame:
    """Rows of `feature_statistics` of every role, of one day's blocks or of a window's sum.

    kinds: of the model inputs, as in `FeatureSpec`. A segment without requests has no rows; null is "not defined".
    """
    parts = [pl.DataFrame(schema=FEATURE_STATISTICS.schema)]
    for role, edges in profile.edges.items():
        columns = feature_statistics(blocks[role, POPULATION], edges, kinds if role == INPUT else None)
        frame = pl.DataFrame(columns).with_columns(pl.lit(role).alias("role"), pl.selectors.float().fill_nan(None))
        typed = frame.select(pl.col(c).cast(t) for c, t in FEATURE_STATISTICS.schema.items())
        parts.append(typed.filter(pl.col("row_count") > 0))
    return pl.concat(parts)
