"""Artifacts are stored whole, under the name of their content, and never twice."""

import dataclasses
import hashlib
import threading
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from xai_assets.errors import ModelError
from xai_assets.lake.tables import TABLES
from xai_assets.models.registry import ModelVersion, register_artifact

RAW = b"{L" + bytes(range(200))
DIGEST = hashlib.sha256(RAW).hexdigest()


def test_named_by_content(tmp_path):
    path, digest = register_artifact(tmp_path, "lending", "experimental", RAW)
    assert Path(path) == tmp_path / "lending" / f"experimental-{DIGEST[:12]}.ubj"
    assert digest == DIGEST
    assert Path(path).read_bytes() == RAW


def test_from_a_file_and_json_by_its_ending(tmp_path):
    source = tmp_path / "m.json"
    source.write_bytes(b'{"learner": {}}')
    path, _ = register_artifact(tmp_path / "models", "lending", "production", source)
    assert path.endswith(".json")


def test_twice_writes_once(tmp_path):
    path, _ = register_artifact(tmp_path, "lending", "production", RAW)
    before = Path(path).stat()
    assert register_artifact(tmp_path, "lending", "production", RAW)[0] == path
    after = Path(path).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_damaged_file_at_its_place_is_replaced(tmp_path):
    path, _ = register_artifact(tmp_path, "lending", "production", RAW)
    Path(path).write_bytes(RAW[:-1] + b"x")
    register_artifact(tmp_path, "lending", "production", RAW)
    assert Path(path).read_bytes() == RAW


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path, _ = register_artifact(tmp_path, "lending", "production", RAW)
    Path(path).write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ModelError, match=r"cannot be stored.*No space left on device"):
        register_artifact(tmp_path, "lending", "production", RAW)
    assert Path(path).read_bytes() == b"old"
    assert [p.name for p in Path(path).parent.iterdir()] == [Path(path).name]


def test_many_at_once(tmp_path):
    threads = [threading.Thread(target=register_artifact, args=(tmp_path, "m", "production", RAW)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [p.read_bytes() for p in (tmp_path / "m").iterdir()] == [RAW]


def test_to_a_uri(tmp_path):
    (tmp_path / "models" / "m").mkdir(parents=True)
    uri = (tmp_path / "models").as_uri()
    for _ in range(2):
        path, _ = register_artifact(uri, "m", "production", RAW)
    assert path == f"{uri}/m/production-{DIGEST[:12]}.ubj"
    assert (tmp_path / "models" / "m" / f"production-{DIGEST[:12]}.ubj").read_bytes() == RAW


@pytest.mark.parametrize("artifact", [b"", Path("nowhere.ubj")])
def test_nothing_to_register(tmp_path, artifact):
    with pytest.raises(ModelError, match=r"empty artifact|cannot be read"):
        register_artifact(tmp_path, "m", "production", artifact)


def test_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be stored"):
        register_artifact(tmp_path / "file", "m", "production", RAW)


def test_a_version_is_a_row_of_the_table():
    table = TABLES["model_versions"]
    day = date(2025, 2, 1)
    version = ModelVersion(
        registered_at=datetime(2025, 2, 1, tzinfo=UTC),
        role="experimental",
        sha256=DIGEST,
        artifact="models/x.ubj",
        recommendation_id="r",
        trained_from=day,
        trained_to=day,
        tested_from=day,
        tested_to=day,
        train_rows=1,
        test_rows=1,
        focus_segments=("region=south",),
        focus_features=(),
        metric="auc",
        candidate_metric=0.7,
        incumbent_metric=0.6,
        decision="better",
        provenance="p",
    )
    assert [f.name for f in dataclasses.fields(version)] == list(table.schema)
    frame = pl.DataFrame([version.row()], schema=table.schema)
    assert frame.row(0, named=True)["focus_segments"] == ["region=south"]
