"""`xai init` on real files: what it takes for what, what it refuses, and that its file is one the platform loads."""

import json
from datetime import date

import polars as pl
import pytest
import yaml

from xai_assets.cli.logfiles import find_logs, with_date
from xai_assets.cli.monitors import load_config
from xai_assets.lake.source import files_of_day


@pytest.fixture
def init(xai, healthy_source, tmp_path):
    """Runs `xai init` on the small service; keyword `logs` for other files."""

    def run(*more, logs=None, production=None):
        models = healthy_source / "data/demo/lending/models"
        logs = logs or [str(healthy_source / "data/demo/lending/logs/2025-01-03.parquet")]
        arguments = ["--logs", *map(str, logs), "--production", str(production or models / "production.ubj")]
        arguments += ["--experimental", str(models / "experimental.ubj"), "--out", str(tmp_path / "defs")]
        return xai("init", *arguments, "--name", "mine", *more)

    run.file = tmp_path / "defs/mine/defs.yaml"
    run.day = pl.read_parquet(healthy_source / "data/demo/lending/logs/2025-01-03.parquet")
    return run


def test_writes_a_file_of_twenty_lines_that_loads(init):
    code, _, err = init()
    assert code == 0, err
    assert len(init.file.read_text(encoding="utf-8").strip().splitlines()) <= 20
    config = load_config(str(init.file))
    assert config.reference.start_date == date(2025, 1, 1)
    assert config.reference.end_date == date(2025, 1, 6)  # half of twelve days
    assert set(config.context) == {"region", "channel", "customer_tier"}
    kinds = {f.name: f.kind for f in config.features}
    assert kinds["annual_income"] == "numeric"
    assert kinds["purpose"] == "categorical"
    assert kinds["has_guarantor"] == "boolean"
    assert config.columns.production_output == "production_output"
    assert len(files_of_day(config, date(2025, 1, 5))) == 1


def test_glob_gives_the_same_as_one_file(init, healthy_source):
    init()
    first = yaml.safe_load(init.file.read_text(encoding="utf-8"))
    code, _, _ = init("--force", logs=[healthy_source / "data/demo/lending/logs/*.parquet"])
    assert code == 0
    assert yaml.safe_load(init.file.read_text(encoding="utf-8")) == first


def test_never_overwrites_without_force(init):
    assert init()[0] == 0
    before = init.file.read_text(encoding="utf-8")
    code, _, err = init()
    assert code == 1
    assert "--force" in err
    assert init.file.read_text(encoding="utf-8") == before


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_other_names_and_formats(init, tmp_path, ending):
    names = {"request_id": "uuid", "requested_at": "timestamp", "annual_income": "AnnualIncome"}
    names |= {"production_output": "champion_score", "experimental_output": "shadow_score"}
    frame = init.day.rename(names).drop("production_latency_ms", "experimental_latency_ms")
    log = tmp_path / f"export.{ending}"
    (frame.write_csv if ending == "csv" else frame.write_ndjson)(log)
    code, out, err = init("--format", "json", logs=[log])
    assert code == 0, err
    document = json.loads(out)
    assert document["attributes"]["columns"] == {
        "request_id": "uuid",
        "requested_at": "timestamp",
        "production_output": "champion_score",
        "experimental_output": "shadow_score",
        "features": {"annual_income": "AnnualIncome"},
    }
    assert document["attributes"]["reference"] == {"start_date": "2025-01-03", "end_date": "2025-01-03"}
    assert any("AnnualIncome" in line for line in document["assumed"])
    assert any("labels" in line for line in document["not_found"])


def test_feature_in_no_column_is_refused_with_a_suggestion_and_renamed_on_request(init, tmp_path):
    log = tmp_path / "2025-01-03.parquet"
    init.day.rename({"annual_income": "yearly_income_eur"}).write_parquet(log)
    code, _, err = init(logs=[log])
    text = " ".join(err.split())
    assert code == 1
    assert "annual_income" in text
    assert "--rename" in text
    assert not init.file.exists()
    code, _, err = init("--rename", "annual_income=yearly_income_eur", logs=[log])
    assert code == 0, err
    assert load_config(str(init.file)).feature_column("annual_income") == "yearly_income_eur"


@pytest.mark.parametrize(
    "drop, wanted", [("request_id", "no column identifies a request"), ("requested_at", "no column tells when")]
)
def test_what_cannot_be_guessed_is_refused(init, tmp_path, drop, wanted):
    log = tmp_path / "log.parquet"
    init.day.drop(drop).select(pl.exclude("production_latency_ms", "experimental_latency_ms")).with_columns(
        pl.lit(0.5).alias("production_output"), pl.lit(0.5).alias("experimental_output")
    ).write_parquet(log)
    code, _, err = init(logs=[log])
    assert code == 1
    assert wanted in " ".join(err.split())


def test_pickle_and_missing_files_are_refused_with_the_reason(init, tmp_path):
    import pickle

    model = tmp_path / "model.pkl"
    model.write_bytes(pickle.dumps({"a": 1}))
    code, _, err = init(production=model)
    assert code == 1
    assert "pickle" in err
    code, _, err = init(production=tmp_path / "none.ubj")
    assert code == 1
    assert "does not exist" in " ".join(err.split())
    code, _, err = init(logs=[tmp_path / "none-*.csv"])
    assert code == 1
    assert "there is no file" in err


@pytest.mark.parametrize(
    "names, pattern",
    [
        (["2025-01-30.csv", "2025-01-31.csv"], "{date}.csv"),
        (["dt=2025-01-31/x.csv", "dt=2025-02-01/x.csv"], "dt={date}/x.csv"),
        (["2025/01/31/x.csv"], "{date:%Y/%m/%d}/x.csv"),
        (["log_20250131.csv"], "log_{date:%Y%m%d}.csv"),
        (["dt=2025-01-31/part-0.csv", "dt=2025-01-31/part-1.csv"], "dt={date}/part-*.csv"),
        (["all.csv"], "all.csv"),
    ],
)
def test_date_in_the_path(tmp_path, names, pattern):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a\n1\n", encoding="utf-8")
    logs = find_logs([str(tmp_path / n) for n in names])
    assert logs.pattern == f"{tmp_path}/{pattern}"
    assert len(logs.files) == len(names)


def test_one_file_finds_the_days_beside_it(tmp_path):
    for day in ("2025-01-30", "2025-01-31", "2025-02-02"):
        (tmp_path / f"{day}.csv").write_text("a\n", encoding="utf-8")
    (tmp_path / "notes-2025-01-01.csv").write_text("a\n", encoding="utf-8")
    assert find_logs([str(tmp_path / "2025-01-31.csv")]).days == (
        date(2025, 1, 30),
        date(2025, 1, 31),
        date(2025, 2, 2),
    )


def test_a_number_that_is_no_date_is_left_alone():
    assert with_date("logs/99999999.csv") == ("logs/99999999.csv", None)
