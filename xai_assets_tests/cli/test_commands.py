"""The commands on a real small lake: what they print, their JSON, and their exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import duckdb
import polars as pl
import pytest

from xai_assets.cli.entry import ALERTING, COMMANDS, FAILED, OK, USAGE
from xai_assets.lake.store import Lake

LAST = "2025-01-12"


def first_id(stored):
    lake = Lake(str(stored / "data/lake"))
    return lake.read("replay_log", "lending", lake.days("replay_log", "lending")[-1])["request_id"][0]


def test_help_answers_at_once_and_loads_nothing_heavy():
    code = (
        "import sys, time; started = time.perf_counter()\n"
        "from xai_assets.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'dagster', 'xgboost', 'pandas', 'polars', 'duckdb', 'numba', 'scipy', 'matplotlib'}\n"
        "heavy &= set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert time.perf_counter() - started < 3  # 0.2 s on a quiet machine\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "exit codes:" in done.stdout
    for module in COMMANDS:
        assert module.__name__.rsplit(".", 1)[-1] in done.stdout


@pytest.mark.parametrize(
    "arguments", [[], ["runn"], ["run"], ["run", "m", "--from", "x", "--to", "y"], ["demo", "--days"]]
)
def test_wrong_usage(xai, arguments):
    code, out, err = xai(*arguments)
    assert (code, out) == (USAGE, "")
    assert "usage:" in err


def test_unknown_monitor_is_refused_with_the_nearest_name(xai, environment):
    code, out, err = xai("run", "lendin", "--from", LAST, "--to", LAST)
    assert (code, out) == (FAILED, "")
    assert "did you mean 'lending'?" in " ".join(err.split())
    assert "Traceback" not in err


@pytest.mark.parametrize("days", [("2025-01-02", "2025-01-01"), ("2024-12-31", LAST), (LAST, "2025-01-13")])
def test_days_outside_the_monitor_are_refused(xai, environment, monitor, days):
    code, _, err = xai("run", monitor, "--from", days[0], "--to", days[1])
    assert code == FAILED
    assert "Nothing was written" in " ".join(err.split())


@pytest.mark.slow
def test_up_to_date_days_need_no_run(xai, stored, monitor):
    code, out, _ = xai("run", monitor, "--from", "2025-01-01", "--to", LAST, "--format", "json")
    document = json.loads(out)
    assert (code, document["run_id"], document["tables"]) == (OK, "", {})
    assert any(a["feature"] == "annual_income" for a in document["alerts"])


def test_forced_day_is_computed_again_and_the_reference_is_not(xai, stored, monitor):
    (profile,) = stored.glob("data/lake/reference_profile/*/part-0.parquet")
    before = profile.stat().st_mtime_ns
    code, out, _ = xai("run", monitor, "--from", LAST, "--to", LAST, "--force", "--format", "json")
    tables = json.loads(out)["tables"]
    assert code == OK
    assert tables["replay_log"] == {"computed": 1, "unchanged": 0}
    assert tables["drift_scores"]["computed"] == 1
    assert profile.stat().st_mtime_ns == before


def test_status_counts_days_and_alerts(xai, stored, monitor):
    code, out, _ = xai("status", monitor, "--format", "json", "--exit-code")
    facts = json.loads(out)["monitors"][0]
    assert code == ALERTING
    assert facts["days"] == {"complete": 12, "empty": 0, "missing": 0, "waiting": 0}
    assert facts["reference"] == "made from 6 days"
    assert facts["open_alerts"]["critical"] > 0
    assert facts["quarantined_rows"] == 0
    assert facts["explanations"]["day"] == facts["last_day"]
    # how fast this machine is just now must not decide
    assert set(facts["explanations"]["missed"]) <= {"median_ms", "p95_ms"}
    code, out, _ = xai("status", monitor)
    assert code == OK
    assert "12 complete" in out
    assert "on target" in out or "_ms missed" in out


def test_alerts_name_the_planted_fault_and_not_before_it_began(xai, stored, monitor):
    code, out, _ = xai("alerts", monitor, "--format", "json", "--exit-code")
    alerts = json.loads(out)["alerts"]
    assert code == ALERTING
    assert {"annual_income"} <= {a["feature"] for a in alerts}
    assert all(a["monitor"] == "lending" for a in alerts)
    code, out, _ = xai("alerts", monitor, "--day", "2025-01-07", "--exit-code")
    assert code == OK
    assert "no alert is open on 2025-01-07" in out


def test_explain_shows_both_models_and_sums_up(xai, stored, deployment, monitor):
    code, out, _ = xai("explain", first_id(stored), "--monitor", monitor, "--format", "json")
    facts = json.loads(out)
    assert code == OK
    for role in ("production", "experimental"):
        model = facts["models"][role]
        assert len(model["model_version"]) == 12
        assert model["base_value"] + sum(model["attributions"].values()) == pytest.approx(model["margin"], abs=1e-4)
    _, out, _ = xai("explain", first_id(stored), "--monitor", monitor)
    shown = [line.split()[0] for line in out.splitlines() if line.strip() and line.split()[0] in facts["difference"]]
    assert shown == sorted(facts["difference"], key=lambda f: -abs(facts["difference"][f]))


def test_explain_anew_by_another_method(xai, stored, deployment, monitor):
    arguments = ("explain", first_id(stored), "--monitor", monitor, "--method", "treeshap_interventional")
    code, out, _ = xai(*arguments, "--format", "json")
    facts = json.loads(out)
    assert code == OK
    for role in ("production", "experimental"):
        model = facts["models"][role]
        assert model["explainer"].startswith("treeshap_interventional ")
        assert model["base_value"] + sum(model["attributions"].values()) == pytest.approx(model["margin"], abs=1e-4)
    code, out, _ = xai(*arguments)
    assert "by treeshap_interventional" in out
    assert "not stored" in out
    _, out, _ = xai("explain", first_id(stored), "--monitor", monitor, "--format", "json")
    assert "explainer" not in json.loads(out)["models"]["production"]  # what is stored is as it was
    assert not Lake(str(stored / "data/lake")).exists("explanation_background", "lending")
    code, _, err = xai("explain", first_id(stored), "--monitor", monitor, "--method", "linear")
    assert code == FAILED
    assert "no closed form" in err


def test_explain_of_an_unknown_request(xai, stored, monitor):
    code, out, err = xai("explain", "nobody", "--monitor", monitor, "--format", "json")
    assert (code, out) == (FAILED, "")
    assert "'nobody' is in no stored day" in " ".join(err.split())


def test_sql_reads_and_refuses_to_write(xai, stored):
    code, out, _ = xai("sql", "SELECT count(*) AS n, min(date) AS first FROM replay_log", "--format", "json")
    document = json.loads(out)
    assert code == OK
    assert document["rows"][0]["first"] == "2025-01-01"
    assert document["rows"][0]["n"] == sum(
        pl.scan_parquet(f).select(pl.len()).collect().item()
        for f in (stored / "data/demo/lending/logs").glob("*.parquet")
    )
    for query in ("DELETE FROM replay_log", "SELECT nothing FROM nowhere", "SELEC 1"):
        code, out, err = xai("sql", query)
        assert (code, out) == (FAILED, "")
        assert err.startswith("xai: ")


def test_run_leaves_the_views_in_the_warehouse_file(stored):
    with duckdb.connect(str(stored / "data/warehouse.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(DISTINCT date) FROM drift_scores").fetchone() == (12,)


def test_text_with_brackets_is_printed_as_it_is(xai, environment):
    code, out, _ = xai("sql", "SELECT '[bold]a[/bold]' AS \"x[y]\"")
    assert code == OK
    assert "[bold]a[/bold]" in out
    assert "x[y]" in out


def test_report_is_self_contained_and_escaped(xai, stored, monitor, tmp_path):
    target = tmp_path / "report.html"
    code, out, _ = xai("report", monitor, "--out", str(target), "--without-evidently", "--format", "json")
    page = target.read_text(encoding="utf-8")
    assert code == OK
    assert json.loads(out)["file"] == str(target)
    assert "annual_income" in page
    assert "Drift of the outputs" in page
    assert "<td>output_difference</td>" in page
    assert page.count("data:image/png;base64,") >= 5
    assert "src='http" not in page
    assert "href=" not in page


def test_report_of_a_day_that_was_not_judged(xai, stored, monitor):
    code, _, err = xai("report", monitor, "--day", "2030-01-01")
    assert code == FAILED
    assert "was not judged on 2030-01-01" in " ".join(err.split())


@pytest.mark.slow
def test_evidently_view_stands_in_a_frame_of_its_own(stored, monitor):
    from xai_assets.cli.monitors import load_config, open_lake
    from xai_assets.flow.evidently_view import raw_inputs_section, sample_features
    from xai_assets.flow.monitor import Monitor

    bound = Monitor(load_config(monitor), open_lake())
    days = bound.lake.days("replay_log", "lending")
    section = raw_inputs_section(bound, days[-5:])
    assert "sandbox='allow-scripts'" in section
    assert section.count("<iframe") == 1
    assert "Raw inputs by Evidently" in section
    assert os.environ["DO_NOT_TRACK"] == "1"
    sample = sample_features(bound, days, rows=100)
    assert 100 <= sample.height <= 100 + len(days)
    assert sample.equals(sample_features(bound, days, rows=100))
    assert "at least 30 each are needed" in raw_inputs_section(bound, [date(2030, 1, 1)])


@pytest.mark.slow
def test_killed_run_does_not_hold_up_the_next_one(stored, monitor):
    """A pool slot that a killed run took would make every later run wait for ever."""
    command = [sys.executable, "-c", "import sys; from xai_assets.cli import main; sys.exit(main(sys.argv[1:]))"]
    command += ["run", monitor, "--from", "2025-01-01", "--to", LAST, "--force", "--format", "json"]
    runs = Path(os.environ["XAI_ASSETS_DATA"]) / "dagster/history/runs"
    before = set(runs.glob("*.db"))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (set(runs.glob("*.db")) - before) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    command[command.index("2025-01-01")] = LAST
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tables"]["recommendations"] == {"computed": 1, "unchanged": 0}
