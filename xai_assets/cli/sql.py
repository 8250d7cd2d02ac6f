"""Ask the lake with SQL: one view per table, with the columns monitor and date.

Belongs here: printing an answer. Does not belong here: the views (see `lake.warehouse`).
"""

import argparse

from xai_assets.cli.monitors import open_lake
from xai_assets.cli.output import Output

SHOWN_ROWS = 200
EXAMPLE = (
    "SELECT date, severity, role, feature, segment, sentence FROM drift_alerts "
    "WHERE state <> 'resolved' AND date = (SELECT max(date) FROM drift_alerts)"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One DuckDB query."""
    parser.add_argument("query", metavar="QUERY", help=f'DuckDB SQL, e.g. "{EXAMPLE}"')


def execute(arguments: argparse.Namespace, output: Output) -> int:
    """Run the query and print its rows; the terminal shows the first 200, JSON all."""
    from xai_assets.lake.queries import run_sql

    frame = run_sql(open_lake(), arguments.query)
    output.table(frame.columns, [list(r) for r in frame.head(SHOWN_ROWS).iter_rows()])
    if frame.height > SHOWN_ROWS:
        output.say(f"… {frame.height - SHOWN_ROWS:,} more rows; add a LIMIT, or use --format json for all.")
    output.document({"columns": frame.columns, "rows": frame.to_dicts()})
    return 0
