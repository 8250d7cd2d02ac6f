"""The lake as SQL: DuckDB views over all tables, and read-only queries on them.

Belongs here: views, the file that holds them, what a query may do. Does not belong here: questions the platform itself
asks (see `queries`).

Queries run on a connection of our own in memory, so they neither wait for nor hold up anybody. `warehouse.duckdb` is
for analysts: it holds the same views, which follow new days by themselves, and beside them whatever an analyst adds.
DuckDB lets one process write a file and shuts every other out meanwhile; where an analyst has the file open, it keeps
the views it has. On an object store views in a file would need DuckDB's own S3 extension and credentials; there only
the connection in memory has them, through pyarrow.
"""

import hashlib
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa

from xai_assets.errors import LakeError
from xai_assets.lake.store import FILE, Lake
from xai_assets.lake.tables import TABLES, UNPARTITIONED, Table

MEMORY_LIMIT = "2GB"
ATTRIBUTIONS = ("production_attributions", "experimental_attributions")
_EXPLAIN = re.compile(r"explain\b\s*(?:\([^)]*\)|analyze\b)?\s*(.*)", re.IGNORECASE | re.DOTALL)
_SIGNATURE = "xai_assets_views"
_TYPES = {
    pl.String(): "VARCHAR",
    pl.Float64(): "DOUBLE",
    pl.Float32(): "FLOAT",
    pl.Int64(): "BIGINT",
    pl.Int16(): "SMALLINT",
    pl.UInt32(): "UINTEGER",
    pl.Boolean(): "BOOLEAN",
    pl.Date(): "DATE",
    pl.Datetime("us", "UTC"): "TIMESTAMPTZ",
    pl.List(pl.String()): "VARCHAR[]",
    pl.List(pl.Float64()): "DOUBLE[]",
}


def open_warehouse(path: Path, lake: Lake, monitors: Sequence[str] | None = None) -> duckdb.DuckDBPyConnection:
    """A connection in memory with all views; the file at `path` is brought up to date on the way.

    The file is left as it is where another process holds it, and on an object store.
    """
    connection = connect()
    create_views(connection, lake, monitors)
    if lake.is_local:
        _refresh_file(path, lake)
    return connection


def connect(memory_limit: str = MEMORY_LIMIT) -> duckdb.DuckDBPyConnection:
    """DuckDB in memory; what exceeds the limit goes to disk under TMPDIR. Times are shown in UTC."""
    spill = Path(tempfile.gettempdir()) / "xai_assets_duckdb"
    connection = duckdb.connect(config={"memory_limit": memory_limit, "temp_directory": str(spill)})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def create_views(connection: duckdb.DuckDBPyConnection, lake: Lake, monitors: Sequence[str] | None = None) -> None:
    """One view per table, with `monitor` and `date` columns, and `attributions` over both attribution tables.

    monitors: only these; all of them where None. A table without partitions is an empty view with its columns. Days
    and monitors may differ in their columns; what one does not have is null.
    """
    for table in TABLES.values():
        names = _names(lake, table.name, monitors)
        if not names:
            connection.execute(_empty_view(table))
        elif lake.is_local:
            connection.execute(_local_view(lake, table.name, monitors))
        else:
            _register_dataset(connection, lake, table.name, names)
    connection.execute(_ATTRIBUTIONS_VIEW)


def run_sql(lake: Lake, query: str, monitors: Sequence[str] | None = None) -> pl.DataFrame:
    """The result of one query that only reads, over the views of `create_views`.

    Raises
    ------
    LakeError
        More than one statement, a statement that is not a query, or an error in it, with DuckDB's message.
    """
    _refuse_writes(query)
    try:
        with connect() as connection:
            create_views(connection, lake, monitors)
            return _polars(connection.execute(query))
    except duckdb.CatalogException as error:
        raise LakeError(
            "the query names something that is not there",
            found=str(error).splitlines()[0],
            next_step="tables: " + ", ".join((*TABLES, "attributions")),
        ) from error
    except duckdb.Error as error:
        raise LakeError("the query failed", found=str(error)) from error


_ATTRIBUTIONS_VIEW = "CREATE OR REPLACE VIEW attributions AS " + " UNION ALL BY NAME ".join(
    f"SELECT * FROM {table}" for table in ATTRIBUTIONS
)


def _refuse_writes(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise LakeError("the query cannot be parsed", found=str(error)) from error
    if len(statements) != 1:
        raise LakeError("one statement at a time", found=f"{len(statements)} statements")
    kind, text = statements[0].type, query.strip()
    if kind == duckdb.StatementType.EXPLAIN:
        # EXPLAIN ANALYZE runs what it explains, so that is what counts
        match = _EXPLAIN.match(text)
        _refuse_writes(match[1] if match else "")
    elif kind != duckdb.StatementType.SELECT:
        raise LakeError(
            f"a statement of the kind {kind.name} is refused",
            expected="a query: SELECT, WITH, FROM, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN",
            found=text[:80],
            next_step="open the DuckDB file yourself to keep tables of your own beside the views",
        )


def _polars(result: Any) -> pl.DataFrame:
    table = result.to_arrow_table()
    for i, column in enumerate(table.schema):
        if pa.types.is_interval(column.type):  # polars has no calendar intervals
            texts = pa.array([str(v) for v in table[i]], pa.string())
            table = table.set_column(i, column.name, texts)
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def _names(lake: Lake, table: str, monitors: Sequence[str] | None) -> list[str]:
    folders = [table] if monitors is None else [f"{table}/monitor={m}" for m in monitors]
    return [n for folder in folders for n in lake.files.names(folder) if n.endswith("/" + FILE)]


def _empty_view(table: Table) -> str:
    columns = [f"CAST(NULL AS {_TYPES[c.dtype]}) AS {c.name}" for c in table.columns]  # type: ignore[index]
    columns.append("CAST(NULL AS VARCHAR) AS monitor")
    if table.name not in UNPARTITIONED:
        columns.append("CAST(NULL AS DATE) AS date")
    return f"CREATE OR REPLACE VIEW {table.name} AS SELECT {', '.join(columns)} WHERE false"


def _local_view(lake: Lake, table: str, monitors: Sequence[str] | None = None) -> str:
    days = "" if table in UNPARTITIONED else "date=*/"
    last = "monitor" if table in UNPARTITIONED else "monitor, date"
    types = "'monitor': VARCHAR" + ("" if table in UNPARTITIONED else ", 'date': DATE")
    globs = [f"{_glob_text(lake.root)}/{table}/monitor={m}/{days}{FILE}" for m in monitors or ("*",)]
    present = (
        globs if monitors is None else [g for g, m in zip(globs, monitors, strict=True) if _names(lake, table, [m])]
    )
    listed = ", ".join("'" + g.replace("'", "''") + "'" for g in present)
    return (
        f"CREATE OR REPLACE VIEW {table} AS SELECT * EXCLUDE ({last}), {last} FROM read_parquet([{listed}], "
        f"union_by_name = true, hive_partitioning = true, hive_types = {{{types}}})"
    )


def _glob_text(path: str) -> str:
    """A path in which no character stands for others.

    >>> _glob_text("/data/[old]/a*")
    '/data/[[]old]/a[*]'
    """
    return "".join(f"[{c}]" if c in "[*?" else c for c in path)


def _register_dataset(connection: duckdb.DuckDBPyConnection, lake: Lake, table: str, names: Sequence[str]) -> None:
    import pyarrow.dataset as pads  # imports pandas, half a second that no daily process should pay

    partitions = [("monitor", pa.string())] + ([] if table in UNPARTITIONED else [("date", pa.date32())])
    filesystem, base = lake.files.filesystem, lake.files.inner(table)
    options = {"filesystem": filesystem, "format": "parquet", "partition_base_dir": base}
    partitioning = pads.partitioning(pa.schema(partitions), flavor="hive")
    files = [pads.dataset(lake.files.inner(n), partitioning=partitioning, **options) for n in names]
    schema = pa.unify_schemas([f.schema for f in files], promote_options="permissive")
    whole = pads.dataset([lake.files.inner(n) for n in names], schema=schema, partitioning=partitioning, **options)
    connection.register(table, whole)


def _refresh_file(path: Path, lake: Lake) -> None:
    statements = [_local_view(lake, t.name) if _names(lake, t.name, None) else _empty_view(t) for t in TABLES.values()]
    statements.append(_ATTRIBUTIONS_VIEW)
    signature = hashlib.sha256("\n".join(statements).encode()).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if path.exists() and _signature(path) == signature:
            return
        with duckdb.connect(str(path)) as file:
            for statement in statements:
                file.execute(statement)
            file.execute(f"CREATE OR REPLACE VIEW {_SIGNATURE} AS SELECT '{signature}' AS signature")
    except duckdb.IOException:
        # Somebody has the file open; its views follow new days anyway, and the next call tries again.
        return


def _signature(path: Path) -> str:
    with duckdb.connect(str(path), read_only=True) as file:
        try:
            row = file.execute(f"SELECT signature FROM {_SIGNATURE}").fetchone()
        except duckdb.CatalogException:
            return ""
    return str(row[0]) if row else ""
