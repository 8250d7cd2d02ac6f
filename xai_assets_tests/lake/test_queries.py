import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xai_assets.config import MonitorConfig
from xai_assets.errors import LakeError
from xai_assets.lake.queries import (
    DivergenceReport,
    divergence_threshold,
    labelled_rows,
    request_explanation,
    write_divergence_set,
)
from xai_assets.lake.sampling import stable_keys
from xai_assets.lake.store import Lake
from xai_assets.lake.tables import DIVERGENCE_SET
from xai_assets.lake.validate import stored_schema

DAY = date(2025, 1, 1)
Monitor = Callable[..., MonitorConfig]


def put_log(lake: Lake, config: MonitorConfig, day: date = DAY, **columns: Any) -> pl.DataFrame:
    """A replay_log partition of these columns; the others are null."""
    schema = stored_schema(config)
    frame = pl.DataFrame(columns)
    frame = frame.select(
        pl.col(n).cast(t) if n in columns else pl.lit(None, dtype=t).alias(n) for n, t in schema.items()
    )
    lake.write("replay_log", config.name, day, frame)
    return frame


def outputs(n: int, seed: int = 0, share: float = 0.3) -> dict[str, Any]:
    """n requests of which about `share` differ by more than 0.1; none changes sides of 0.5."""
    rng = np.random.default_rng(seed)
    production = rng.uniform(0, 0.2, n)
    differs = rng.random(n) < share
    return {
        "request_id": [f"r{i}" for i in range(n)],
        "production_output": production,
        "experimental_output": production + np.where(differs, 0.2, 0.05) * rng.choice([1, 1.1], n),
    }


def choose(lake: Lake, config: MonitorConfig, day: date = DAY) -> DivergenceReport:
    """The divergence set of a day under the configured budget."""
    return write_divergence_set(lake, config, day, 0.1, "p", budget=config.explanation.budget_rows_per_day)


def budget(rows: int, share: float = 0.5, seed: int = 0) -> dict[str, Any]:
    return {"explanation": {"budget_rows_per_day": rows, "divergent_share": share, "seed": seed}}


# --- divergence ------------------------------------------------------------------------------------------------------


def test_kinds_of_divergence(monitor: Monitor, lake: Lake) -> None:
    config = monitor()
    production, experimental = [0.1, 0.1, 0.45, 0.1, 0.45], [0.15, 0.3, 0.55, 0.2, 0.5]
    put_log(
        lake,
        config,
        request_id=list("abcde"),
        production_output=production,
        experimental_output=[*experimental[:2], 0.9, *experimental[3:]],
    )
    report = choose(lake, config)
    stored = lake.read("divergence_set", "shop", DAY)
    assert stored.schema == DIVERGENCE_SET.schema
    assert stored["divergence_kind"].to_list() == [
        "none",
        "magnitude",
        "magnitude+decision_flip",
        "none",
        "decision_flip",
    ]
    assert stored["is_divergent"].to_list() == [False, True, True, False, True]
    assert stored["row_index"].to_list() == [0, 1, 2, 3, 4]
    assert stored["inclusion_probability"].to_list() == [1.0] * 5
    np.testing.assert_allclose(stored["delta"], [0.05, 0.2, 0.45, 0.1, 0.05])
    assert (report.rows, report.divergent_rows, report.explained_rows) == (5, 3, 5)
    assert (report.magnitude_rows, report.flip_rows) == (2, 2)
    assert report.mean_abs_delta == pytest.approx(0.17)
    footer = lake.metadata("divergence_set", "shop", DAY)
    assert (footer["provenance"], float(footer["threshold"])) == ("p", 0.1)
    assert json.loads(footer["report"])["divergent_rows"] == 3


@pytest.mark.parametrize(
    "kinds, expected", [(["magnitude"], 1), (["decision_flip"], 1), (["magnitude", "decision_flip"], 2)]
)
def test_only_the_configured_kinds_count(monitor: Monitor, lake: Lake, kinds: list[str], expected: int) -> None:
    config = monitor(divergence={"kinds": kinds})
    put_log(lake, config, request_id=["a", "b"], production_output=[0.1, 0.49], experimental_output=[0.4, 0.51])
    assert choose(lake, config).divergent_rows == expected


@pytest.mark.parametrize("n", [0, 1])
def test_a_day_of_no_and_of_one_request(monitor: Monitor, lake: Lake, n: int) -> None:
    config = monitor()
    put_log(lake, config, request_id=["a"] * n, production_output=[0.1] * n, experimental_output=[0.9] * n)
    report = choose(lake, config)
    assert (report.rows, report.explained_rows, report.divergent_rows) == (n, n, n)
    assert np.isnan(report.mean_abs_delta) == (n == 0)
    assert lake.read("divergence_set", "shop", DAY).height == n


def test_a_day_that_is_not_stored_is_an_error(monitor: Monitor, lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"table 'replay_log' .* has no partition of 2025-01-01"):
        choose(lake, monitor())


@pytest.mark.parametrize("rows, share", [(1000, 0.5), (1000, 0.9), (4000, 0.5), (1, 0.5), (4999, 0.01)])
def test_a_sample_fills_the_budget_with_the_exact_probabilities(
    monitor: Monitor, lake: Lake, rows: int, share: float
) -> None:
    config = monitor(**budget(rows, share))
    log = put_log(lake, config, **outputs(5000))
    report = choose(lake, config)
    stored = lake.read("divergence_set", "shop", DAY)
    assert stored.height == report.explained_rows == rows
    total = {True: report.divergent_rows, False: report.rows - report.divergent_rows}
    first = min(total[True], int(share * rows))
    rest = min(total[False], rows - first)
    expected = {False: rest, True: min(total[True], rows - rest)}
    for divergent, group in stored.group_by("is_divergent"):
        assert group.height == expected[bool(divergent[0])]
        assert group["inclusion_probability"].unique().to_list() == [
            expected[bool(divergent[0])] / total[bool(divergent[0])]
        ]
    indices = stored["row_index"].to_list()
    assert indices == sorted(set(indices))
    assert stored["request_id"].to_list() == log["request_id"].gather(indices).to_list()
    delta = (log["experimental_output"] - log["production_output"]).gather(indices)
    np.testing.assert_array_equal(stored["delta"], delta)


def test_the_sample_is_the_rows_with_the_smallest_keys(monitor: Monitor, lake: Lake) -> None:
    """The ten-line twin, with hashlib instead of DuckDB."""
    config = monitor(**budget(300, 0.5, seed=7))
    log = put_log(lake, config, **outputs(2000))
    choose(lake, config)
    stored = lake.read("divergence_set", "shop", DAY)
    divergent = (log["experimental_output"] - log["production_output"]).abs() > 0.1
    expected = set()
    for stratum in (True, False):
        ids = log["request_id"].filter(divergent == stratum).to_list()
        expected |= set(sorted(ids, key=lambda i: key(i, 7))[:150])
    assert set(stored["request_id"]) == expected


def key(request_id: str, seed: int) -> int:
    return int.from_bytes(hashlib.md5(f"{seed}:{request_id}".encode()).digest()[:8], "little")


def test_keys_are_the_first_64_bits_of_md5() -> None:
    ids = ["a", "", "Zürich", "x" * 1000]
    expected = [key(i, 3) for i in ids]
    assert stable_keys(pl.Series(ids), seed=3).to_list() == expected


@given(order=st.permutations(range(200)), cut=st.integers(2, 150), batch_rows=st.sampled_from([23, 64, 1000]))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_sample_depends_neither_on_the_order_of_rows_nor_on_batches(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], cut: int, batch_rows: int
) -> None:
    class Batched(Lake):
        def batches(self, table: str, monitor: str, day: Any = None, columns: Any = None, batch_rows: int = batch_rows):
            return super().batches(table, monitor, day, columns, batch_rows)

    lake = Batched(str(tmp_path_factory.mktemp("order")))
    config = MonitorConfig.from_mapping(
        "shop",
        {
            "source": {"path": "a.csv"},
            "features": {"numeric": ["age"]},
            "models": {"production": "p.json", "experimental": "e.json"},
            "reference": {"start_date": DAY, "end_date": DAY},
            **budget(cut),
        },
        tmp_path_factory.getbasetemp(),
    )
    chosen = []
    for reader, positions in ((Lake(lake.root), list(range(200))), (lake, order)):
        put_log(lake, config, **{k: [v[i] for i in positions] for k, v in outputs(200).items()})
        report = choose(reader, config)
        stored = lake.read("divergence_set", "shop", DAY)
        assert (1 / stored["inclusion_probability"]).sum() == pytest.approx(200)
        chosen.append((report, dict(stored.select("request_id", "inclusion_probability").iter_rows())))
    assert chosen[0][1] == chosen[1][1]
    assert chosen[0][0] == replace(chosen[1][0], mean_abs_delta=chosen[0][0].mean_abs_delta)


@pytest.mark.parametrize("rows", [None, 300])
def test_one_pass_over_the_log_is_enough(monitor: Monitor, lake: Lake, rows: int | None) -> None:
    reads = []

    class Counting(Lake):
        def batches(self, table: str, *args: Any, **kwargs: Any) -> Any:
            reads.append(table)
            return super().batches(table, *args, **kwargs)

    config = monitor(**(budget(rows) if rows else {}))
    put_log(lake, config, **outputs(1000))
    choose(Counting(lake.root), config)
    assert reads == ["replay_log"]


def test_without_a_budget_every_request_is_chosen_in_order(monitor: Monitor, lake: Lake) -> None:
    config = monitor()
    log = put_log(lake, config, **outputs(1000))
    report = choose(lake, config)
    stored = lake.read("divergence_set", "shop", DAY)
    assert stored["request_id"].to_list() == log["request_id"].to_list()
    assert stored["inclusion_probability"].unique().to_list() == [1.0]
    assert report == replace(choose(lake, monitor(**budget(1000))), mean_abs_delta=report.mean_abs_delta)
    assert lake.read("divergence_set", "shop", DAY).equals(stored), "a budget that all fit into is no budget"


def test_a_log_without_divergent_requests_spends_the_budget_on_the_rest(monitor: Monitor, lake: Lake) -> None:
    config = monitor(**budget(50))
    put_log(lake, config, **outputs(200, share=0.0))
    assert choose(lake, config).explained_rows == 50
    put_log(lake, config, **outputs(200, share=1.0))
    assert choose(lake, config).explained_rows == 50
    assert lake.read("divergence_set", "shop", DAY)["inclusion_probability"].unique().to_list() == [0.25]


def test_another_seed_draws_other_rows_and_the_same_seed_the_same(monitor: Monitor, lake: Lake) -> None:
    drawn = []
    for seed in (0, 0, 1):
        config = monitor(**budget(500, seed=seed))
        put_log(lake, config, **outputs(5000))
        choose(lake, config)
        drawn.append(set(lake.read("divergence_set", "shop", DAY)["request_id"]))
    assert drawn[0] == drawn[1]
    assert len(drawn[0] & drawn[2]) < 150


def test_weights_reproduce_totals_of_the_unsampled_day(monitor: Monitor, lake: Lake) -> None:
    """Horvitz–Thompson: Σ1/π is the number of rows exactly (stratified), Σδ/π is Σδ within four standard errors, and
    the errors of many seeds average out."""
    data = outputs(5000)
    delta = data["experimental_output"] - data["production_output"]
    put_log(lake, monitor(), **data)
    errors = []
    for seed in range(30):
        choose(lake, monitor(**budget(500, seed=seed)))
        stored = lake.read("divergence_set", "shop", DAY)
        weight = 1 / stored["inclusion_probability"].to_numpy()
        assert weight.sum() == pytest.approx(5000)
        errors.append(float((weight * stored["delta"].to_numpy()).sum() - delta.sum()))
    strata = [delta[np.abs(delta) > 0.1], delta[np.abs(delta) <= 0.1]]
    variance = sum(len(s) ** 2 * s.var(ddof=1) / 250 * (1 - 250 / len(s)) for s in strata)
    assert np.abs(errors).max() < 4 * np.sqrt(variance)
    assert abs(np.mean(errors)) < 4 * np.sqrt(variance / 30)


def test_a_threshold_from_the_reference_is_the_quantile_of_its_rows(monitor: Monitor, lake: Lake) -> None:
    config = monitor(divergence={"threshold_quantile": 0.9})
    days = [outputs(n, seed=n) for n in (500, 0, 300)]
    for i, data in enumerate(days):
        put_log(lake, config, DAY + timedelta(days=i), **data)
    put_log(lake, config, date(2025, 3, 1), request_id=["z"], production_output=[0.0], experimental_output=[100.0])
    sizes = np.concatenate([np.abs(d["experimental_output"] - d["production_output"]) for d in days])
    assert divergence_threshold(lake, config) == pytest.approx(np.quantile(sizes, 0.9))
    assert divergence_threshold(lake, monitor(divergence={"threshold": 0.3})) == 0.3


def test_a_quantile_without_reference_is_an_error(monitor: Monitor, lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"quantile 0.9 of the divergence cannot be taken.*materialize replay_log"):
        divergence_threshold(lake, monitor(divergence={"threshold_quantile": 0.9}))


# --- labels ----------------------------------------------------------------------------------------------------------


def put_labels(lake: Lake, day: date, **labels: float | None) -> None:
    lake.write(
        "labels",
        "shop",
        day,
        pl.DataFrame(
            {"request_id": list(labels), "label": list(labels.values())},
            schema={"request_id": pl.String, "label": pl.Float64},
        ),
    )


def test_labels_are_joined_as_they_were_known(monitor: Monitor, lake: Lake) -> None:
    config = monitor()
    next_day = DAY + timedelta(days=1)
    put_log(
        lake,
        config,
        request_id=["a", "b", "c"],
        age=[1, 2, 3],
        label=[None, None, 0.0],
        production_output=[0.1, 0.2, 0.3],
    )
    put_log(lake, config, next_day, request_id=["d"], age=[4], label=[1.0])
    put_labels(lake, DAY + timedelta(days=3), b=1.0, unknown=1.0)
    put_labels(lake, DAY + timedelta(days=5), a=0.0, b=0.0, c=1.0)

    def known(by: int) -> list[tuple[str, float]]:
        rows = labelled_rows(lake, config, [DAY, next_day], DAY + timedelta(days=by), ["age", "production_output"])
        assert rows.columns == ["date", "request_id", "requested_at", "label", "age", "production_output"]
        return rows.select("request_id", "label").rows()

    assert known(0) == [("c", 0.0)], "the second day is not there yet"
    assert known(1) == [("c", 0.0), ("d", 1.0)]
    assert known(3) == [("b", 1.0), ("c", 0.0), ("d", 1.0)]
    assert known(9) == [("a", 0.0), ("b", 0.0), ("c", 1.0), ("d", 1.0)], "a later label corrects an earlier one"


def test_labels_of_before_the_request_are_not_its_labels(monitor: Monitor, lake: Lake) -> None:
    """The same id on a later day is another request."""
    config = monitor()
    put_log(lake, config, request_id=["a"])
    put_log(lake, config, DAY + timedelta(days=2), request_id=["a"])
    put_labels(lake, DAY + timedelta(days=1), a=1.0)
    rows = labelled_rows(lake, config, [DAY, DAY + timedelta(days=2)], DAY + timedelta(days=9), [])
    assert rows["date"].to_list() == [DAY]


def test_without_days_or_labels_the_columns_are_there(monitor: Monitor, lake: Lake) -> None:
    config = monitor()
    empty = labelled_rows(lake, config, [DAY], DAY, ["age", "region", "label"])
    put_log(lake, config, request_id=["a"])
    assert labelled_rows(lake, config, [DAY], DAY, ["age", "region"]).equals(empty)
    assert dict(empty.schema) | {"requested_at": None} == {
        "date": pl.Date(),
        "request_id": pl.String(),
        "requested_at": None,
        "label": pl.Float64(),
        "age": pl.Float32(),
        "region": pl.String(),
    }


# --- one request -----------------------------------------------------------------------------------------------------


def explain_all(lake: Lake, config: MonitorConfig, day: date = DAY) -> None:
    """Attributions of the divergence set: φ_age = 1 and −1, φ_income = 0 and 0.5."""
    ids = lake.read("divergence_set", "shop", day)["request_id"]
    for role, age, income, base in (("production", 1.0, 0.0, 0.25), ("experimental", -1.0, 0.5, 0.5)):
        frame = pl.DataFrame({"request_id": ids}).with_columns(
            role=pl.lit(role),
            model_version=pl.lit(f"{role}-v1"),
            base_value=pl.lit(base),
            margin=pl.lit(base + age + income),
            phi_age=pl.lit(age, dtype=pl.Float32),
            phi_income=pl.lit(income, dtype=pl.Float32),
        )
        lake.write(f"{role}_attributions", "shop", day, frame)


def test_an_explained_request_comes_with_everything(monitor: Monitor, lake: Lake) -> None:
    config = monitor(features={"numeric": ["age", "income"]}, context=["channel", "age"])
    put_log(
        lake,
        config,
        request_id=["a", "b"],
        age=[30, 40],
        channel=["web", "app"],
        production_output=[0.1, 0.2],
        experimental_output=[0.4, 0.2],
        label=[1.0, None],
    )
    choose(lake, config)
    explain_all(lake, config)
    found = request_explanation(lake, config, "a")
    assert found is not None
    assert found.pop("requested_at") is None
    assert found == {
        "request_id": "a",
        "monitor": "shop",
        "date": DAY,
        "other_dates": [],
        "features": {"age": 30.0, "income": None},
        "context": {"channel": "web", "age": 30.0},
        "production_output": 0.1,
        "experimental_output": 0.4,
        "label": 1.0,
        "delta": pytest.approx(0.3),
        "status": "explained",
        "is_divergent": True,
        "divergence_kind": "magnitude",
        "inclusion_probability": 1.0,
        "models": {
            "production": {
                "model_version": "production-v1",
                "base_value": 0.25,
                "margin": 1.25,
                "attributions": {"age": 1.0, "income": 0.0},
            },
            "experimental": {
                "model_version": "experimental-v1",
                "base_value": 0.5,
                "margin": 0.0,
                "attributions": {"age": -1.0, "income": 0.5},
            },
        },
        "difference": {"age": -2.0, "income": 0.5},
        "base_difference": 0.25,
    }


def test_not_found_pending_and_sampled_out_are_told_apart(monitor: Monitor, lake: Lake) -> None:
    config = monitor(**budget(2))
    put_log(lake, config, **outputs(10))
    status = {}
    for stage in ("log", "set", "attributions"):
        if stage == "set":
            choose(lake, config)
        if stage == "attributions":
            explain_all(lake, config)
        found = [request_explanation(lake, config, f"r{i}") for i in range(10)]
        status[stage] = sorted(f["status"] for f in found if f)
    assert status["log"] == status["set"] == ["pending"] * 10
    assert status["attributions"] == ["explained"] * 2 + ["sampled_out"] * 8
    assert request_explanation(lake, config, "r10") is None
    assert request_explanation(lake, monitor(), "r1' OR '1'='1") is None


def test_of_several_days_the_latest_is_shown_and_the_others_named(monitor: Monitor, lake: Lake) -> None:
    config = monitor()
    for i in range(3):
        put_log(
            lake,
            config,
            DAY + timedelta(days=i),
            request_id=["a" if i != 1 else "b"],
            production_output=[0.0],
            experimental_output=[float(i)],
        )
    found = request_explanation(lake, config, "a")
    assert found is not None
    assert (found["date"], found["other_dates"], found["delta"]) == (DAY + timedelta(days=2), [DAY], 2.0)
