import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest

from xai_assets.errors import LakeError
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import TABLES, UNPARTITIONED
from xai_assets.lake.warehouse import open_warehouse, run_sql

DAY = date(2025, 1, 1)


def put(lake: Lake, monitor: str = "shop", day: date = DAY, n: int = 2) -> None:
    frame = pl.DataFrame({"request_id": [f"r{i}" for i in range(n)], "label": [0.5] * n})
    lake.write("labels", monitor, day, frame)


@pytest.fixture(params=["path", "object store"])
def any_lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    return Lake({"path": str(tmp_path / "it's [old]*/lake"), "object store": "mock:///x"}[request.param])


@pytest.mark.parametrize("table", sorted(TABLES))
def test_a_table_without_partitions_is_an_empty_view_with_its_columns(lake: Lake, table: str) -> None:
    frame = run_sql(lake, f"SELECT * FROM {table}")
    partitions = ["monitor"] if table in UNPARTITIONED else ["monitor", "date"]
    assert frame.columns == [*TABLES[table].schema, *partitions]
    assert frame.height == 0


@pytest.mark.parametrize("table", sorted(TABLES))
def test_the_empty_view_has_the_types_of_the_stored_table(any_lake: Lake, table: str) -> None:
    empty = run_sql(any_lake, f"DESCRIBE {table}")
    any_lake.write(table, "shop", None if table in UNPARTITIONED else DAY, pl.DataFrame(schema=TABLES[table].schema))
    stored = run_sql(any_lake, f"DESCRIBE {table}")
    assert stored.select("column_name", "column_type").rows() == empty.select("column_name", "column_type").rows()


def test_views_have_monitor_and_date(any_lake: Lake) -> None:
    put(any_lake)
    put(any_lake, day=DAY + timedelta(days=1), n=5)
    put(any_lake, "other", n=7)
    frame = run_sql(any_lake, "SELECT monitor, date, count(*) AS n FROM labels GROUP BY ALL ORDER BY ALL")
    assert frame.rows() == [("other", DAY, 7), ("shop", DAY, 2), ("shop", DAY + timedelta(days=1), 5)]
    assert frame.schema == {"monitor": pl.String, "date": pl.Date, "n": pl.Int64}
    assert run_sql(any_lake, "SELECT count(*) FROM labels", ["shop", "absent"]).item() == 7
    assert run_sql(any_lake, "SELECT count(*) FROM labels", ["absent"]).item() == 0


def test_monitors_and_days_of_different_features_go_together(any_lake: Lake) -> None:
    base = pl.DataFrame({c.name: pl.Series([None], dtype=c.dtype) for c in TABLES["replay_log"].columns})
    any_lake.write("replay_log", "shop", DAY, base.with_columns(age=pl.lit(1.0, dtype=pl.Float32)))
    any_lake.write("replay_log", "bank", DAY, base.with_columns(amount=pl.lit(2.0, dtype=pl.Float32)))
    frame = run_sql(any_lake, "SELECT monitor, age, amount FROM replay_log ORDER BY monitor")
    assert frame.rows() == [("bank", None, 2.0), ("shop", 1.0, None)]


def test_attributions_are_both_tables(any_lake: Lake) -> None:
    for role in ("production", "experimental"):
        frame = pl.DataFrame(
            {"request_id": ["a"], "role": [role], "model_version": ["v"], "base_value": [0.0], "margin": [1.0]}
        )
        any_lake.write(f"{role}_attributions", "shop", DAY, frame.with_columns(phi_age=pl.lit(1.0, dtype=pl.Float32)))
    frame = run_sql(any_lake, "SELECT role, phi_age, monitor, date FROM attributions ORDER BY role")
    assert frame.rows() == [("experimental", 1.0, "shop", DAY), ("production", 1.0, "shop", DAY)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "  -- a comment\nWITH a AS (SELECT 1) SELECT * FROM a;",
        "FROM labels",
        "DESCRIBE labels",
        "SHOW TABLES",
        "SUMMARIZE labels",
        "EXPLAIN SELECT * FROM labels",
        "explain analyze SELECT * FROM labels",
        "EXPLAIN (ANALYZE) SELECT 1",
        "VALUES (1)",
        "SELECT INTERVAL 1 MONTH AS i, {'a': 1} AS s, [1] AS l, 1::HUGEINT AS h, NULL AS n, 'x'::BLOB AS b",
    ],
)
def test_queries_are_answered(lake: Lake, query: str) -> None:
    put(lake)
    assert run_sql(lake, query).width >= 1


@pytest.mark.parametrize(
    "query, reason",
    [
        ("DROP VIEW labels", "a statement of the kind DROP is refused"),
        ("CREATE TABLE a AS SELECT 1", "kind CREATE"),
        ("COPY (SELECT 1) TO '{target}'", "kind COPY"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'", "kind COPY"),
        ("EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{target}'", "kind COPY"),
        ("/* x */ EXPLAIN ANALYZE COPY (SELECT 1) TO '{target}'", "refused|one statement"),
        ("INSERT INTO labels VALUES (1)", "kind INSERT"),
        ("ATTACH '{target}'", "kind ATTACH"),
        ("INSTALL httpfs", "kind LOAD"),
        ("SET threads = 1", "kind SET"),
        ("SELECT 1; DROP VIEW labels", "one statement at a time. Found: 2 statements"),
        ("", "one statement at a time. Found: 0 statements"),
        ("SELEC 1", "cannot be parsed.*syntax error"),
        ("SELECT * FROM lables", "Table with name lables does not exist.*tables: replay_log,"),
        ("SELECT lable FROM labels", 'the query failed.*column "lable" not found'),
    ],
)
def test_everything_else_is_refused_with_the_reason(lake: Lake, tmp_path: Path, query: str, reason: str) -> None:
    target = tmp_path / "target"
    with pytest.raises(LakeError, match=f"(?s){reason}"):
        run_sql(lake, query.replace("{target}", str(target)))
    assert not target.exists()


def test_the_file_holds_views_that_follow_new_days(lake: Lake, tmp_path: Path) -> None:
    put(lake)
    path = tmp_path / "warehouse.duckdb"
    open_warehouse(path, lake).close()
    put(lake, day=DAY + timedelta(days=1))
    with duckdb.connect(str(path), read_only=True) as analyst:
        assert analyst.execute("SELECT count(*) FROM labels").fetchone() == (4,)
        assert analyst.execute("SELECT count(*) FROM attributions").fetchone() == (0,)


def test_what_an_analyst_keeps_in_the_file_survives(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    open_warehouse(path, lake).close()
    with duckdb.connect(str(path)) as analyst:
        analyst.execute("CREATE TABLE mine AS SELECT 42 AS x")
    put(lake)
    open_warehouse(path, lake).close()
    with duckdb.connect(str(path), read_only=True) as analyst:
        assert analyst.execute("SELECT x, (SELECT count(*) FROM labels) FROM mine").fetchone() == (42, 2)


def test_another_process_that_holds_the_file_stops_nobody(lake: Lake, tmp_path: Path) -> None:
    path = tmp_path / "warehouse.duckdb"
    open_warehouse(path, lake).close()
    program = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('open', flush=True); sys.stdin.read()"
    analyst = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert analyst.stdout
        assert analyst.stdout.readline() == b"open\n"
        put(lake)
        with pytest.raises(duckdb.IOException):
            duckdb.connect(str(path))  # it does hold the file
        with open_warehouse(path, lake) as connection:
            assert connection.execute("SELECT count(*) FROM labels").fetchone() == (2,)
        assert run_sql(lake, "SELECT count(*) FROM labels").item() == 2
    finally:
        analyst.communicate()
    open_warehouse(path, lake).close()
    with duckdb.connect(str(path), read_only=True) as later:
        assert later.execute("SELECT count(*) FROM labels").fetchone() == (2,)
