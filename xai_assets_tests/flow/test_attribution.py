"""What a day's attributions carry of their explainer, and what makes them stale."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from xai_assets.explain import selection
from xai_assets.explain.protocol import Explainer
from xai_assets.flow.attribution import explain_day, explain_request
from xai_assets.flow.background import TABLE, ensure_background, monitor_explainer
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.lake.tables import PHI
from xai_assets.records import MODEL_ROLES, Attributions, Float32
from xai_assets_tests.conftest import day

Explained = Callable[..., Monitor]
PARTITION = "production_attributions"


def changed(monitor: Monitor, **explanation: object) -> Monitor:
    config = monitor.config
    return Monitor(replace(config, explanation=replace(config.explanation, **explanation)), monitor.lake)  # type: ignore[arg-type]


def expected(monitor: Monitor, table: str = PARTITION) -> str | None:
    return Provenance(monitor).expected(table, day(1))


def test_the_footer_says_what_explained(explained: Explained):
    monitor = explained()
    footer = monitor.lake.metadata(PARTITION, "lending", day(1))
    assert footer["explainer"].startswith("treeshap ")
    assert (footer["explainer_exact"], footer["explainer_background"], footer["explainer_seed"]) == ("true", "-", "-")
    assert float(footer["additivity_error"]) < 1e-5
    assert float(footer["explain_seconds"]) > 0
    assert footer["explainer_identity"] == Provenance(monitor).explainer_identity("production")


def test_a_sampled_day_says_background_and_seed(explained: Explained):
    monitor = explained(
        explanation={"method": "permutation", "budget_rows_per_day": 6, "background_rows": 5, "seed": 3}
    )
    footer = monitor.lake.metadata(PARTITION, "lending", day(1))
    assert footer["explainer"].startswith("permutation ")
    assert "shap-" in footer["explainer"]
    assert (footer["explainer_exact"], footer["explainer_seed"]) == ("false", "3")
    assert len(footer["explainer_background"]) == 16
    assert float(footer["additivity_error"]) < 1e-5
    assert monitor.lake.row_count(PARTITION, "lending", day(1)) == 6
    exact = changed(monitor, method="treeshap_interventional")
    explain_day(exact, "production", day(1), "p")
    assert monitor.lake.metadata(PARTITION, "lending", day(1))["explainer_background"] == footer["explainer_background"]


def test_sampled_attributions_are_the_same_in_every_run(explained: Explained):
    monitor = explained(explanation={"method": "permutation", "budget_rows_per_day": 6, "background_rows": 5})
    first = monitor.lake.read(PARTITION, "lending", day(1))
    explain_day(monitor, "production", day(1), "p")
    assert monitor.lake.read(PARTITION, "lending", day(1)).equals(first)


def test_interventional_and_sampled_attributions_agree(explained: Explained):
    """Two roads to one game: the kernel's exact values and shap's estimate over the same stored background."""
    monitor = explained(explanation={"method": "permutation", "budget_rows_per_day": 20, "background_rows": 20})
    columns = [f"{PHI}{f}" for f in monitor.config.feature_names]
    sampled = monitor.lake.read(PARTITION, "lending", day(1), columns).to_numpy()
    explain_day(changed(monitor, method="treeshap_interventional"), "production", day(1), "p")
    exact = monitor.lake.read(PARTITION, "lending", day(1), columns).to_numpy()
    assert np.abs(exact).max() > 0.3
    assert np.abs(exact - sampled).mean() < 0.02


def test_what_makes_attributions_stale(explained: Explained, monkeypatch: pytest.MonkeyPatch):
    monitor = explained()
    first = expected(monitor)
    assert first == expected(changed(monitor, seed=1)) == expected(changed(monitor, background_rows=7))  # not used
    assert first == expected(changed(monitor, method="treeshap"))  # what auto chose
    others = [expected(changed(monitor, method=m)) for m in ("treeshap_interventional", "permutation", "kernel")]
    assert len({first, *others}) == 4
    newer = replace(selection.METHODS["treeshap"], version="another")
    monkeypatch.setitem(selection.METHODS, "treeshap", newer)
    assert expected(monitor) != first


def test_another_background_or_seed_makes_sampled_attributions_stale(explained: Explained):
    monitor = changed(explained(), method="permutation")
    waiting = expected(monitor)
    assert waiting is not None  # due, and unlike anything that is stored
    ensure_background(monitor)
    first = expected(monitor)
    assert first != waiting
    assert expected(monitor) == first
    reseeded = changed(monitor, seed=1)
    ensure_background(reseeded)
    assert expected(reseeded) not in (first, waiting)
    ensure_background(monitor)
    assert expected(monitor) == first  # the same requests are drawn again
    monitor.lake.delete(TABLE, "lending")
    assert expected(monitor) == waiting


def test_a_reference_of_another_explainer_is_another_reference(explained: Explained):
    monitor = explained()
    identity = Provenance(monitor).reference_identity
    assert identity == Provenance(changed(monitor, method="treeshap")).reference_identity
    assert identity != Provenance(changed(monitor, method="permutation")).reference_identity


def test_provenance_builds_no_explainer(explained: Explained, monkeypatch: pytest.MonkeyPatch):
    monitor = explained()

    def refuse(*_: object) -> None:
        raise AssertionError("an explainer was built")

    monkeypatch.setattr(selection, "_build", refuse)
    for method in ("auto", "permutation", "treeshap_interventional"):
        assert expected(changed(monitor, method=method)) is not None


def test_one_request_by_another_method_is_not_stored(explained: Explained):
    monitor = explained()
    before = monitor.lake.metadata(PARTITION, "lending", day(1))
    log = monitor.lake.read("replay_log", "lending", day(1))
    features = log.select(monitor.config.feature_names).row(0, named=True)
    stored = monitor.lake.read(PARTITION, "lending", day(1)).row(0, named=True)
    for method in ("treeshap", "permutation"):
        found, made_by = explain_request(monitor, "production", features, method)
        assert made_by["explainer"].startswith(method)
        assert found.margin[0] == pytest.approx(stored["margin"], abs=1e-6)
        if method == "treeshap":
            expected = [stored[f"{PHI}{f}"] for f in monitor.config.feature_names]
            np.testing.assert_allclose(found.values[0], expected, atol=1e-6)
    assert monitor.lake.metadata(PARTITION, "lending", day(1)) == before


def test_an_empty_day_is_stored_with_its_columns(explained: Explained):
    monitor = explained()
    empty = monitor.lake.read("divergence_set", "lending", day(1)).head(0)
    footer = monitor.lake.metadata("divergence_set", "lending", day(1))
    monitor.lake.write("divergence_set", "lending", day(1), empty, footer)
    for role in MODEL_ROLES:
        report = explain_day(monitor, role, day(1), "p")
        assert (report.rows, report.additivity_error) == (0, 0.0)
        assert monitor.lake.row_count(f"{role}_attributions", "lending", day(1)) == 0


class Failing:
    """An explainer that has no finite answer for every `every`th request of a batch."""

    def __init__(self, explainer: Explainer, every: int) -> None:
        self.explainer, self.every = explainer, every

    def __getattr__(self, name: str) -> object:
        return getattr(self.explainer, name)

    def explain(self, X: Float32) -> Attributions:
        found = self.explainer.explain(X)
        values = found.values.copy()
        values[:: self.every, 0] = np.nan
        return replace(found, values=values)


def test_requests_without_an_explanation_are_counted_and_hide_nothing_of_the_others(
    explained: Explained, monkeypatch: pytest.MonkeyPatch
):
    monitor = explained()
    healthy = explain_day(monitor, "production", day(1), "p")
    assert healthy.failed_rows == 0
    real = monitor_explainer(monitor, "production")
    monkeypatch.setattr("xai_assets.flow.attribution.monitor_explainer", lambda *_: Failing(real, 10))
    report = explain_day(monitor, "production", day(1), "p")
    assert report.rows == healthy.rows
    assert report.failed_rows == -(-report.rows // 10)
    assert report.additivity_error < 1e-5
    assert all(np.isfinite(v) for v in report.mean_absolute.values())
    assert monitor.lake.metadata(PARTITION, "lending", day(1))["failed_rows"] == str(report.failed_rows)
