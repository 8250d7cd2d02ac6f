"""`xai demo` on a small scale; what it finds at full size is tested with the simulator."""

import json

import pytest

from xai_assets.cli import runs


@pytest.mark.slow
def test_demo_runs_starts_afresh_and_says_that_nothing_is_planted_in_few_days(xai, tmp_path, monkeypatch):
    monkeypatch.setenv("XAI_ASSETS_DATA", str(tmp_path))
    monkeypatch.delenv("XAI_ASSETS_LAKE", raising=False)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    arguments = ["demo", "--days", "2", "--requests-per-day", "60"]
    code, out, err = xai(*arguments, "--format", "json")
    document = json.loads(out)
    assert (code, document["faults"], document["false_alarms"]) == (0, [], []), err
    assert document["tables"]["replay_log"] == {"computed": 2, "unchanged": 0}
    code, out, _ = xai(*arguments, "--format", "json")
    assert json.loads(out)["tables"]["replay_log"] == {"computed": 0, "unchanged": 2}
    code, out, err = xai(*arguments, "--fresh")
    assert code == 0, err
    assert "No fault is planted in so few days" in out
    with runs.open_instance() as instance:
        assert len(instance.get_runs()) == 1
