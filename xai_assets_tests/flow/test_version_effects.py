"""Two real versions of a model over the small service: which effects are rows', which are the version's; provenance."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.decide.causes import VersionFacts
from xai_assets.demo.service import FEATURES, SHADOW_ONLY, draw
from xai_assets.errors import ModelError
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.background import TABLE as BACKGROUND
from xai_assets.flow.decisions import AlertFolder
from xai_assets.flow.histograms import write_day_histograms
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.flow.reference import ensure_profile, load_profile
from xai_assets.flow.replay import ingest
from xai_assets.flow.version_effects import TABLE, VersionJudge
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import VERSION_EFFECTS
from xai_assets.models.training import TrainSettings, train_classifier, train_regressor
from xai_assets.records import MODEL_ROLES
from xai_assets_tests.conftest import day, lending_attributes

FIRST, REFERENCE, CLEAN, FAULTY = 1, 2, 3, 4
"""Two reference days, a clean one, and one on which all incomes are logged in thousands."""
NEW, BROKEN = "interest_rate_percent", "annual_income"
"""The earlier version did not use the one; the other one's values break."""
OLDER = "data/demo/lending/models/older.ubj"


def older_version(path: Path) -> None:
    """A real earlier version: the production model's history and settings, without the feature `NEW`."""
    features = tuple(f for f in FEATURES if f.name not in (*SHADOW_ONLY, NEW))
    rows = draw(np.random.default_rng([42, 1_000_000]), 20_000, interest_offset=-1.0)
    settings = TrainSettings(rounds=60, parameters={"max_depth": 3, "learning_rate": 0.25}, threads=1)
    path.write_bytes(train_classifier(rows.frame(), rows.label, None, features, settings=settings).raw)


def expected(monitor: Monitor, table: str, number: int) -> str | None:
    return Provenance(monitor).expected(table, day(number))


@pytest.fixture(scope="module")
def explained(healthy_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Monitor:
    root = tmp_path_factory.mktemp("versions") / "project"
    shutil.copytree(healthy_source, root)
    older_version(root / OLDER)
    path = root / f"data/demo/lending/logs/{day(FAULTY)}.parquet"
    pl.read_parquet(path).with_columns(pl.col(BROKEN) / 1_000).write_parquet(path)
    production = {"path": "data/demo/lending/models/production.ubj", "previous": OLDER}
    attributes = lending_attributes(
        reference={"start_date": day(FIRST), "end_date": day(REFERENCE)},
        end_date=day(FAULTY),
        models={"production": production},
    )
    monitor = Monitor(MonitorConfig.from_mapping("lending", attributes, root), Lake(str(root / "lake")))
    threshold = divergence_threshold(monitor.lake, monitor.config)
    for number in range(FIRST, FAULTY + 1):
        ingest(monitor, day(number), expected(monitor, "replay_log", number) or "")
        provenance = expected(monitor, "divergence_set", number) or ""
        write_divergence_set(monitor.lake, monitor.config, day(number), threshold, provenance, budget=None)
        for role in MODEL_ROLES:
            explain_day(monitor, role, day(number), expected(monitor, f"{role}_attributions", number) or "")
    ensure_profile(monitor)
    return monitor


@pytest.fixture
def monitor(explained: Monitor, tmp_path: Path) -> Monitor:
    """A copy of the lake that a test may write into."""
    shutil.copytree(explained.lake.root, tmp_path / "lake")
    return Monitor(explained.config, Lake(str(tmp_path / "lake")))


def with_previous(monitor: Monitor, path: str | None) -> Monitor:
    """The same lake under another earlier version of the production model."""
    models = monitor.config.models
    previous = None if path is None else replace(models.production, path=path, previous=None)
    production = replace(models.production, previous=previous)
    return Monitor(replace(monitor.config, models=replace(models, production=production)), monitor.lake)


def judged(monitor: Monitor, number: int) -> pl.DataFrame:
    provenance = expected(monitor, TABLE, number)
    assert provenance is not None
    return VersionJudge(monitor).judge_day(day(number), provenance).frame


def verdicts(frame: pl.DataFrame) -> dict[str, str]:
    return dict(frame.select("feature", "verdict").iter_rows())


def test_rows_and_version_are_told_apart(monitor: Monitor) -> None:
    clean, faulty = judged(monitor, CLEAN), judged(monitor, FAULTY)
    assert dict(clean.schema) == VERSION_EFFECTS.schema
    assert clean["feature"].to_list() == list(monitor.config.feature_names)
    assert clean["role"].unique().to_list() == ["production"], "of the other role no earlier version is configured"
    assert verdicts(clean)[NEW] == "model", "a feature that only the new version uses"
    assert set(clean["verdict"]) == {"model", "none"}, "nothing happened to the rows"
    assert verdicts(clean)[SHADOW_ONLY[0]] == "none", "neither version uses it"
    assert verdicts(faulty)[NEW] == "model"
    assert verdicts(faulty)[BROKEN] in ("data", "both")
    row = faulty.row(by_predicate=pl.col("feature") == BROKEN, named=True)
    assert row["data_effect_nats"] > 1 > row["model_effect_nats"]
    new = faulty.row(by_predicate=pl.col("feature") == NEW, named=True)
    assert (new["importance_before"], new["importance_old_model"], new["data_effect_nats"]) == (0, 0, 0)
    assert new["importance_after"] > 0
    assert row["previous_version"] == monitor.previous_model("production").version
    assert row["model_version"] == monitor.model("production").version
    log = monitor.lake.read("replay_log", monitor.name, day(FAULTY))
    assert row["row_count"] == log.height
    reference = monitor.lake.read_days("replay_log", monitor.name, [day(FIRST), day(REFERENCE)])
    assert row["row_count_reference"] == reference.height
    assert monitor.lake.read(TABLE, monitor.name, day(FAULTY)).equals(faulty)


def test_importance_of_the_new_version_is_that_of_what_is_stored(monitor: Monitor) -> None:
    found = judged(monitor, CLEAN)
    stored = monitor.lake.read("production_attributions", monitor.name, day(CLEAN))
    for feature, value in found.select("feature", "importance_after").iter_rows():
        assert value == pytest.approx(float(stored[f"phi_{feature}"].cast(pl.Float64).abs().mean()), abs=1e-9)


def test_the_same_version_has_no_model_effect_at_all(monitor: Monitor) -> None:
    same = with_previous(monitor, monitor.config.models.production.path)
    found = judged(same, FAULTY)
    assert found["model_effect_nats"].to_list() == [0.0] * found.height
    assert found["importance_old_model"].equals(found["importance_after"].rename("importance_old_model"))
    assert verdicts(found)[BROKEN] == "data"
    assert set(found["verdict"]) == {"data", "none"}


@pytest.mark.parametrize("every, said", [(50, ""), (10, "no verdict, for these differ by more than 5 %")])
def test_refused_requests_are_counted_apart_and_are_no_effect(monitor: Monitor, every: int, said: str) -> None:
    lake, name, table = monitor.lake, monitor.name, "production_attributions"
    stored, footer = lake.read(table, name, day(CLEAN)), lake.metadata(table, name, day(CLEAN))
    refused = pl.int_range(pl.len()) % every == 0
    phi = pl.selectors.starts_with("phi_")
    lake.write(
        table,
        name,
        day(CLEAN),
        stored.with_columns(pl.when(refused).then(None).otherwise(phi).name.keep()),
        {"provenance": footer["provenance"]},
    )
    same = with_previous(monitor, monitor.config.models.production.path)
    found = VersionJudge(same).effects(day(CLEAN))
    share = -(-stored.height // every) / stored.height
    assert set(found.frame["model_effect_nats"]) == {0.0}
    assert set(found.frame["verdict"]) == {"none"}
    assert f"earlier version refuses 0.0 % of the day's requests, the new one {100 * share:.1f} %" in found.note
    assert ("no verdict" in found.note) == bool(said)
    assert said in found.note
    other = VersionJudge(monitor).effects(day(CLEAN)).frame
    assert verdicts(other)[NEW] == ("none" if said else "model")


def test_without_refusals_the_note_does_not_speak_of_them(monitor: Monitor) -> None:
    assert "refuses" not in VersionJudge(monitor).effects(day(CLEAN)).note


def test_days_are_the_same_whatever_was_judged_before_them(monitor: Monitor) -> None:
    judge = VersionJudge(monitor)
    judge.effects(day(CLEAN))
    assert judge.effects(day(FAULTY)).frame.equals(VersionJudge(monitor).effects(day(FAULTY)).frame)


def test_what_makes_a_day_stale(monitor: Monitor) -> None:
    judged(monitor, CLEAN)
    now = expected(monitor, TABLE, CLEAN)
    assert Provenance(monitor).stored(TABLE, day(CLEAN)) == now
    other = with_previous(monitor, "data/demo/lending/models/experimental.ubj")
    assert expected(other, TABLE, CLEAN) not in (None, now)
    assert expected(with_previous(monitor, None), TABLE, CLEAN) is None
    floors = replace(monitor.config.drift, effect_floors=replace(monitor.config.drift.effect_floors, noted=0.2))
    assert expected(Monitor(replace(monitor.config, drift=floors), monitor.lake), TABLE, CLEAN) not in (None, now)
    for table in ("replay_log", "divergence_set", "production_attributions"):
        assert expected(other, table, CLEAN) == expected(monitor, table, CLEAN), "no earlier version changes a row"


def test_days_whose_rows_are_gone_hold_nothing_up(monitor: Monitor) -> None:
    lake, name = monitor.lake, monitor.name
    judged(monitor, CLEAN)
    kept = lake.read(TABLE, name, day(CLEAN))
    profile = load_profile(monitor)
    for number in (CLEAN, FAULTY):
        write_day_histograms(monitor, day(number), profile, expected(monitor, "attribution_histograms", number) or "")
        lake.delete("production_attributions", name, day(number))
    assert expected(monitor, TABLE, CLEAN) == Provenance(monitor).stored(TABLE, day(CLEAN)), "what was made stays"
    assert lake.read(TABLE, name, day(CLEAN)).equals(kept)
    provenance = expected(monitor, TABLE, FAULTY)
    assert provenance is not None
    found = VersionJudge(monitor).judge_day(day(FAULTY), provenance)
    assert found.frame.is_empty()
    assert "not stored any more" in found.note
    assert expected(monitor, TABLE, FAULTY) == provenance


def test_a_version_that_needs_a_background_gets_one(monitor: Monitor) -> None:
    explanation = replace(monitor.config.explanation, method="treeshap_interventional", background_rows=20)
    interventional = Monitor(replace(monitor.config, explanation=explanation), monitor.lake)
    assert not monitor.lake.exists(BACKGROUND, monitor.name)
    VersionJudge(monitor).prepare()
    assert not monitor.lake.exists(BACKGROUND, monitor.name)
    VersionJudge(interventional).prepare()
    assert monitor.lake.exists(BACKGROUND, monitor.name)


def test_an_earlier_version_of_something_else_is_refused(monitor: Monitor, tmp_path: Path) -> None:
    rows = draw(np.random.default_rng(1), 300)
    regression = train_regressor(rows.frame(), rows.true[BROKEN], None, FEATURES, settings=TrainSettings(rounds=3))
    (tmp_path / "regression.ubj").write_bytes(regression.raw)
    with pytest.raises(ModelError, match="cannot be compared") as refused:
        VersionJudge(with_previous(monitor, str(tmp_path / "regression.ubj"))).prepare()
    assert "a classifier" in str(refused.value)
    assert "a regression" in str(refused.value)
    gone = with_previous(monitor, "data/demo/lending/models/oldest.ubj")
    with pytest.raises(ModelError, match="does not exist"):
        VersionJudge(gone).prepare()
    with pytest.raises(ModelError, match="no earlier version is configured"):
        monitor.previous_model("experimental")


def test_alerts_read_only_what_compares_the_present_two_versions(monitor: Monitor) -> None:
    found = judged(monitor, FAULTY)
    versions = AlertFolder(monitor)._versions(day(FAULTY))
    row = found.row(by_predicate=pl.col("feature") == NEW, named=True)
    assert versions["production", NEW] == VersionFacts(row["data_effect_nats"], row["model_effect_nats"], "model")
    assert len(versions) == found.height
    other = with_previous(monitor, "data/demo/lending/models/experimental.ubj")
    assert AlertFolder(other)._versions(day(FAULTY)) == {}
    assert AlertFolder(with_previous(monitor, None))._versions(day(FAULTY)) == {}
    assert AlertFolder(monitor)._versions(day(CLEAN)) == {}
