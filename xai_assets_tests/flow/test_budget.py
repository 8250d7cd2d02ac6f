"""How many requests of a day are explained, and what that does to the provenance of the divergence set."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from xai_assets.flow.budget import SLOW_BUDGET_ROWS, explanation_budget
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets_tests.conftest import day

Explained = Callable[..., Monitor]


def changed(monitor: Monitor, **explanation: object) -> Monitor:
    config = monitor.config
    return Monitor(replace(config, explanation=replace(config.explanation, **explanation)), monitor.lake)  # type: ignore[arg-type]


def test_trees_are_explained_whole_and_a_number_is_a_budget(explained: Explained) -> None:
    monitor = explained()
    assert explanation_budget(monitor) is None
    assert monitor.lake.row_count("divergence_set", "lending", day(1)) == monitor.lake.row_count(
        "replay_log", "lending", day(1)
    )
    assert explanation_budget(changed(monitor, budget_rows_per_day=7)) == 7


def test_a_slow_explainer_gets_a_budget_of_its_own(explained: Explained) -> None:
    monitor = changed(explained(), method="permutation")
    assert explanation_budget(monitor) == SLOW_BUDGET_ROWS


def test_only_what_chooses_rows_makes_a_divergence_set_stale(explained: Explained) -> None:
    monitor = explained()

    def expected(**explanation: object) -> str | None:
        return Provenance(changed(monitor, **explanation)).expected("divergence_set", day(1))

    targets = replace(monitor.config.explanation.targets, coverage=0.5)
    assert expected() == expected(targets=targets) == expected(seed=1) == expected(quality_sample_rows=9)
    assert expected(budget_rows_per_day=50) == expected(budget_rows_per_day=50, targets=targets)
    others = {expected(budget_rows_per_day=50, seed=1), expected(budget_rows_per_day=51), expected()}
    assert expected(budget_rows_per_day=50) not in others
    assert len(others) == 3


@pytest.mark.parametrize("key, is_stale", [("targets", False), ("quality_sample_rows", True), ("seed", True)])
def test_a_changed_target_does_not_make_measured_levels_stale(explained: Explained, key: str, is_stale: bool) -> None:
    monitor = explained()
    value = {"targets": replace(monitor.config.explanation.targets, coverage=0.5)}.get(key, 7)
    before = Provenance(monitor).expected("explanation_quality", day(1))
    after = Provenance(changed(monitor, **{key: value})).expected("explanation_quality", day(1))
    assert before is not None
    assert (before != after) == is_stale


def test_levels_wait_for_both_models_attributions(explained: Explained) -> None:
    monitor = explained()
    monitor.lake.delete("experimental_attributions", "lending", day(1))
    assert Provenance(monitor).expected("explanation_quality", day(1)) is None
