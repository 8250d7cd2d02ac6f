"""What a command prints on a terminal of a given width."""

import pytest

from xai_assets.cli.output import Output
from xai_assets.cli.sql import EXAMPLE
from xai_assets.lake.tables import TABLES


def test_a_table_too_wide_for_the_terminal_is_printed_row_by_row(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [f"column_number_{i}" for i in range(40)]
    Output().table(columns, [[f"value {i}" for i in range(40)], [None, *range(39)]])
    lines = capsys.readouterr().out.splitlines()
    assert "column_number_7   value 7" in lines
    assert sum(line.startswith("column_number_0 ") for line in lines) == 1, "an empty value is left out"
    assert sum(line.startswith("— ") for line in lines) == 2


def test_a_table_that_fits_has_one_line_per_row(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["n", "a_long_name_of_a_column", "sentence"]
    Output().table(columns, [[1, "x", "words " * 30]])
    assert "— 1 —" not in capsys.readouterr().out


def test_the_example_of_the_help_asks_for_columns_there_are() -> None:
    named = EXAMPLE.removeprefix("SELECT ").split(" FROM ")[0].split(", ")
    assert set(named) <= {"date", *(c.name for c in TABLES["drift_alerts"].columns)}
