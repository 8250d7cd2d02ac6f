"""The asset and its checks in real runs: healthy, under a small budget, and with targets that nothing can meet."""

from collections.abc import Callable

import dagster as dg
import pytest

from xai_assets.config import MonitorConfig
from xai_assets.decide.service_levels import CHECKED
from xai_assets_tests.conftest import day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
Deploy = Callable[[MonitorConfig], Deployment]
Configure = Callable[..., MonitorConfig]
PATIENT = {"median_ms": 5_000, "p95_ms": 10_000}


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    found = result.get_asset_check_evaluations()
    return {e.check_name: e for e in found if e.asset_key.path[-1] == "explanation_quality" and e.check_name in CHECKED}


def test_a_healthy_range_passes_every_check_and_is_left_alone_afterwards(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(explanation={"targets": PATIENT, "quality_sample_rows": 30}))
    found = evaluations(deployment.run(day(1), day(2)))
    assert set(found) == set(CHECKED)
    assert all(e.passed and e.severity == dg.AssetCheckSeverity.WARN for e in found.values())
    assert deployment.lake.days("explanation_quality", "lending") == [day(1), day(2)]
    metadata = deployment.metadata("explanation_quality", day(2))
    assert metadata["production_coverage"] == 1.0
    assert metadata["experimental_stability"] > 0.8
    before = deployment.lake.read("explanation_quality", "lending", day(1))
    assert set(evaluations(deployment.run(day(1), day(2)))) == set(CHECKED), "checks are there in every run"
    assert deployment.metadata("explanation_quality", day(1))["unchanged"]
    assert deployment.lake.read("explanation_quality", "lending", day(1)).equals(before)
    (request,) = deployment.sensor("stale_days").run_requests
    assert request.tags["dagster/asset_partition_range_start"] == str(day(3)), "measured days are not stale"


def test_a_small_budget_fails_coverage_says_which_would_do_and_blocks_nothing(
    deploy: Deploy, lending: Configure
) -> None:
    settings = {"targets": PATIENT, "quality_sample_rows": 30, "budget_rows_per_day": 200}
    deployment = deploy(lending(explanation=settings))
    result = deployment.run(day(1), day(7))
    assert result.success
    found = evaluations(result)
    assert [name for name, e in found.items() if not e.passed] == ["coverage"]
    needed = found["coverage"].metadata["budget_rows_per_day_needed"].value
    rows = [deployment.lake.row_count("replay_log", "lending", day(i)) for i in range(1, 8)]
    assert needed == -(-max(rows) * 95 // 100)
    missed = found["coverage"].metadata["missed"].value
    assert len(missed) == 2 * 7, "per role and day"
    assert deployment.lake.exists("drift_scores", "lending", day(7))


def test_targets_that_nothing_can_meet_fail_without_new_measurements(deploy: Deploy, lending: Configure) -> None:
    deployment = deploy(lending(explanation={"targets": PATIENT, "quality_sample_rows": 30}))
    deployment.run(day(1))
    impossible = {"median_ms": 1e-6, "p95_ms": 1e-6, "stability": 0.999999}
    again = deploy(lending(explanation={"targets": impossible, "quality_sample_rows": 30}))
    found = evaluations(again.run(day(1)))
    assert {name for name, e in found.items() if not e.passed} == {"median_ms", "p95_ms", "stability"}
    assert again.metadata("explanation_quality", day(1))["unchanged"]
    assert "the target is 1e-06 ms" in found["p95_ms"].metadata["missed"].value[0]
