"""The last days of a monitor at a glance, in one SQL query over the views.

Belongs here: the question that the `recommendations` asset shows in the Dagster UI. Does not belong here: the views
(see `warehouse`), decisions.
"""

from datetime import date, timedelta

import duckdb
import polars as pl

from xai_assets.lake.store import Lake
from xai_assets.lake.warehouse import create_views

_RECENT_DAYS = """
SELECT d.date,
       count(*)                                             AS explained,
       avg(d.is_divergent::INT / d.inclusion_probability)
         / avg(1 / d.inclusion_probability)                 AS divergence_rate,
       (SELECT count(*) FROM drift_alerts a
         WHERE a.monitor = $monitor AND a.date = d.date AND a.state <> 'resolved') AS active_alerts,
       (SELECT string_agg(r.action, ', ' ORDER BY r.action) FROM recommendations r
         WHERE r.monitor = $monitor AND r.date = d.date)    AS recommended
FROM divergence_set d
WHERE d.monitor = $monitor AND d.date BETWEEN $first AND $last
GROUP BY d.date
ORDER BY d.date DESC
"""


def recent_days(
    connection: duckdb.DuckDBPyConnection, lake: Lake, monitor: str, last: date, days: int = 14
) -> pl.DataFrame:
    """Per day up to `last`: explained requests, weighted share that diverges, active alerts, recommended actions."""
    create_views(connection, lake, [monitor])
    window = {"monitor": monitor, "first": last - timedelta(days=days - 1), "last": last}
    frame = pl.from_arrow(connection.execute(_RECENT_DAYS, window).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame
