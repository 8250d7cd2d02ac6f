"""A stage's refusal reaches the user as its own message, without Dagster's traceback."""

import json
import shutil

import pytest


@pytest.fixture
def broken(deployment, tmp_path, monkeypatch):
    """A copy of the deployment that a test may damage, as the one in use."""
    root = tmp_path / "copy"
    shutil.copytree(deployment, root, ignore=shutil.ignore_patterns("lake", "dagster"))
    monkeypatch.setenv("XAI_ASSETS_DATA", str(root / "data"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.delenv("XAI_ASSETS_LAKE", raising=False)
    return root


def run(xai, root, *more):
    return xai("run", str(root / "lending/defs.yaml"), "--from", "2025-01-01", "--to", "2025-01-01", *more)


def test_corrupt_model(xai, broken):
    model = broken / "data/demo/lending/models/production.ubj"
    model.write_bytes(model.read_bytes()[:500])
    code, out, err = run(xai, broken)
    assert (code, out) == (1, "")
    assert "production.ubj" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 12


def test_truncated_log(xai, broken):
    log = broken / "data/demo/lending/logs/2025-01-01.parquet"
    log.write_bytes(log.read_bytes()[:-200])
    code, _, err = run(xai, broken)
    assert code == 1
    assert "2025-01-01.parquet" in err
    assert "Traceback" not in err


def test_verbose_gives_the_traceback(xai, broken):
    (broken / "data/demo/lending/models/production.ubj").unlink()
    with pytest.raises(Exception, match="does not exist"):
        run(xai, broken, "--verbose")


def test_missing_day_is_stored_as_missing_and_waits(xai, broken):
    (broken / "data/demo/lending/logs/2025-01-01.parquet").unlink()
    code, _, _ = run(xai, broken, "--format", "json")
    assert code == 0
    code, out, _ = xai("status", str(broken / "lending/defs.yaml"), "--format", "json")
    facts = json.loads(out)["monitors"][0]
    assert facts["days"] == {"complete": 0, "empty": 0, "missing": 1, "waiting": 11}
    assert facts["reference"].startswith("waiting for 5 of 6")


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("a: [1", "is not YAML"),
        ("type: dagster.Other\nattributes: {}", "does not describe a monitor"),
        ("type: xai_assets.DriftMonitor\nattributes: {sourc: {}}", "did you mean 'source'?"),
    ],
)
def test_wrong_defs_file(xai, broken, text, wanted):
    (broken / "lending/defs.yaml").write_text(text, encoding="utf-8")
    code, _, err = run(xai, broken)
    assert code == 1
    assert wanted in " ".join(err.split())
