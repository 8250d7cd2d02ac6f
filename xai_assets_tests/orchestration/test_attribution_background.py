"""Explainers that need a background, through the whole chain: it is made before provenance is asked for."""

from collections.abc import Callable

import pytest

from xai_assets.config import MonitorConfig
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets_tests.conftest import day
from xai_assets_tests.orchestration.conftest import Deployment

pytestmark = pytest.mark.slow
TABLES = ("production_attributions", "experimental_attributions")


def test_sampled_days_settle_and_another_method_makes_them_anew(
    deploy: Callable[[MonitorConfig], Deployment], lending: Callable[..., MonitorConfig]
) -> None:
    sampled = {"method": "permutation", "budget_rows_per_day": 8, "background_rows": 5, "quality_sample_rows": 20}
    deployment = deploy(lending(explanation=sampled))
    assert deployment.run(day(1), day(2)).success
    monitor = Monitor(deployment.config, deployment.lake)

    def footers() -> dict[tuple[str, int], dict[str, str]]:
        return {(t, i): deployment.lake.metadata(t, "lending", day(i)) for t in TABLES for i in (1, 2)}

    first = footers()
    provenance = Provenance(monitor)
    for (table, number), footer in first.items():
        assert footer["explainer"].startswith("permutation ")
        assert footer["provenance"] == provenance.expected(table, day(number))
    assert deployment.metadata("production_attributions", day(1))["explainer"] == first[TABLES[0], 1]["explainer"]
    assert deployment.run(day(1), day(2)).success
    assert footers() == first

    exact = deploy(lending(explanation={**sampled, "method": "treeshap_interventional"}))
    assert exact.run(day(1), day(2)).success
    for key, footer in footers().items():
        assert footer["explainer"].startswith("treeshap_interventional ")
        assert footer["explainer_background"] == first[key]["explainer_background"]  # the stored one is kept
