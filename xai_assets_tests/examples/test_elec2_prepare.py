"""The replayed days are whole, labels come the next day, and the known difference of the two models is there."""

import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xgboost

from xai_assets.config import MonitorConfig
from xai_assets.errors import SourceError
from xai_assets.models.artifact import load_model

FIRST, LAST = date(1998, 1, 22), date(1998, 12, 6)


@pytest.fixture(scope="module")
def attributions(elec2):
    """SHAP values [n, 7] of both stored models for the replayed rows, base value left out."""
    log, values = elec2.stored("logs"), {}
    for role in ("production", "experimental"):
        model = load_model(elec2.out / "models" / f"{role}.ubj", features=elec2.module.FEATURES)
        types = ["c" if f.kind == "categorical" else "float" for f in model.features]
        rows = xgboost.DMatrix(
            model.encode(log), feature_names=list(model.feature_names), feature_types=types, enable_categorical=True
        )
        values[role] = model.native.predict(rows, pred_contribs=True)[:, :-1]
    return values


def test_every_half_hour_from_row_30000_is_in_the_log_of_its_day_once(elec2):
    raw = pl.read_parquet(elec2.source)
    log = elec2.stored("logs")
    assert log.height == raw.height - 30_000
    assert [t.replace(tzinfo=None) for t in log["requested_at"]] == raw["start_at"][30_000:].to_list()
    assert (log["requested_at"].dt.date() == log["file_date"]).all()
    assert log["request_id"].n_unique() == log.height
    assert log.group_by("file_date").len()["len"].to_list() == [48] * ((LAST - FIRST).days + 1)
    assert (log["file_date"].min(), log["file_date"].max()) == (FIRST, LAST)
    for feature in elec2.module.NUMERIC:
        assert log[feature].to_list() == raw[feature][30_000:].to_list()


def test_the_label_is_not_in_the_log_and_known_the_next_day(elec2):
    log, labels = elec2.stored("logs"), elec2.stored("labels")
    assert "price_up" not in log.columns
    assert "label" not in log.columns
    both = log.join(labels, on="request_id", suffix="_of_label", validate="1:1")
    assert both.height == log.height == labels.height
    assert (both["file_date_of_label"] - both["file_date"]).unique().to_list() == [timedelta(days=1)]
    truth = pl.read_parquet(elec2.source)["price_up"][30_000:].to_list()
    assert both.sort("requested_at")["label"].to_list() == truth


def test_named_weekdays_are_those_of_the_calendar(elec2):
    log = elec2.stored("logs")
    assert log["day_of_week"].to_list() == [elec2.module.WEEKDAYS[t.weekday()] for t in log["requested_at"]]


def test_what_production_could_not_learn_it_does_not_use_and_experimental_does(elec2, attributions):
    # M. Harries, UNSW 1999: no trade with Victoria in the first 17,424 half-hours, so these columns are constant.
    raw = pl.read_parquet(elec2.source)
    names = [f.name for f in elec2.module.FEATURES]
    for feature in ("vic_price", "vic_demand", "transfer"):
        assert raw[feature][:17_424].n_unique() == 1
        column = names.index(feature)
        assert not attributions["production"][:, column].any()
        assert np.abs(attributions["experimental"][:, column]).mean() > 0.05
    used = set(names) - {"vic_price", "vic_demand", "transfer"}
    assert all(np.abs(attributions["production"][:, names.index(f)]).mean() > 0.05 for f in used)


def test_the_largest_difference_is_the_use_of_the_price(elec2, attributions):
    difference = np.abs(attributions["experimental"] - attributions["production"]).mean(axis=0)
    assert elec2.module.FEATURES[int(difference.argmax())].name == "nsw_price"


def test_about_23_percent_are_decided_differently(elec2):
    assert elec2.found["share of replayed half-hours decided differently"] == pytest.approx(0.23, abs=0.02)


def test_the_script_writes_the_same_bytes_again(elec2, tmp_path):
    run = subprocess.run(
        [sys.executable, elec2.script, elec2.source, tmp_path], capture_output=True, text=True, check=True, timeout=120
    )
    assert "15,312" in run.stdout
    files = sorted(f.relative_to(tmp_path) for f in tmp_path.rglob("*") if f.is_file())
    assert files == sorted(f.relative_to(elec2.out) for f in elec2.out.rglob("*") if f.is_file())
    assert all((tmp_path / f).read_bytes() == (elec2.out / f).read_bytes() for f in files)


def test_the_definition_is_valid_short_and_names_what_was_prepared(elec2):
    assert len(elec2.script.with_name("defs.yaml").read_text().splitlines()) <= 40
    config = MonitorConfig.from_mapping("elec2", elec2.attributes, elec2.root)
    assert [(f.name, f.kind) for f in config.features] == [(f.name, f.kind) for f in elec2.module.FEATURES]
    assert (config.first_date, config.end_date, len(config.reference_days)) == (FIRST, LAST, 60)
    assert config.labels is not None
    assert Path(config.resolve(config.source.path).format(date=FIRST)).exists()
    assert Path(config.resolve(config.labels.path).format(date=LAST + timedelta(days=1))).exists()
    for model in (config.models.production, config.models.experimental):
        assert Path(config.resolve(model.path)).exists()


def test_another_file_or_a_part_of_a_day_is_refused(elec2, tmp_path):
    raw = pl.read_parquet(elec2.source)
    other = tmp_path / "other.parquet"
    with pytest.raises(SourceError, match="is not there"):
        elec2.module.read_half_hours(other)
    raw.drop("transfer").write_parquet(other)
    with pytest.raises(SourceError, match="columns transfer"):
        elec2.module.read_half_hours(other)
    raw.head(47).write_parquet(other)
    with pytest.raises(SourceError, match="47 rows"):
        elec2.module.read_half_hours(other)
    late_first = raw.head(48).with_columns(start_at=pl.lit(datetime(1997, 1, 1)))
    pl.concat([late_first, raw.head(48)]).write_parquet(other)
    with pytest.raises(SourceError, match="in order"):
        elec2.module.read_half_hours(other)
