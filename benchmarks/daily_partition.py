"""One day of N requests × d features through every stage, two models: seconds per stage and peak memory.

Run: python benchmarks/daily_partition.py --rows 1000000 --features 50 [--budget 100000] [--trees 100 --depth 6]
The SHAP computation itself is reported apart: it depends on the models (see `attribution.py`).
A second process per measurement is not needed: peak memory is read after each stage and only grows.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from xai_assets.config import MonitorConfig
from xai_assets.flow.attribution import explain_day
from xai_assets.flow.decisions import AlertFolder, Recommender
from xai_assets.flow.histograms import write_day_histograms
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.reference import ensure_profile, load_profile
from xai_assets.flow.replay import ingest
from xai_assets.flow.scoring import Scorer
from xai_assets.flow.service_levels import measure_day
from xai_assets.lake.queries import divergence_threshold, write_divergence_set
from xai_assets.lake.store import Lake
from xai_assets.records import MODEL_ROLES

REFERENCE, DAY = date(2025, 1, 1), date(2025, 1, 2)
BATCH = 100_000


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write_models(folder: Path, features: list[str], trees: int, depth: int) -> None:
    import xgboost

    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, len(features))).astype(np.float32)
    y = (X[:, 0] + X[:, 1] * X[:, 2] + 0.5 * X[:, 3:].sum(axis=1) / len(features) + rng.normal(size=len(X)) > 0).astype(
        int
    )
    for role, rows in (("production", slice(0, 10_000)), ("experimental", slice(10_000, None))):
        matrix = xgboost.DMatrix(X[rows], y[rows], feature_names=features)
        parameters = {"objective": "binary:logistic", "max_depth": depth, "seed": 0, "eta": 0.1}
        xgboost.train(parameters, matrix, trees).save_model(folder / f"{role}.ubj")


def write_log(path: Path, day: date, rows: int, features: list[str], outputs: Any) -> None:
    """A day's log in batches; the writer's memory must not hide the platform's."""
    rng = np.random.default_rng(day.toordinal())
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    writer = None
    for offset in range(0, rows, BATCH):
        n = min(BATCH, rows - offset)
        X = rng.normal(size=(n, len(features))).astype(np.float32)
        frame = pl.DataFrame(X, schema=features)
        production, experimental = outputs(frame)
        seconds = (np.arange(offset, offset + n) * (86_400 / rows)).astype(np.int64)
        frame = frame.with_columns(
            pl.Series("request_id", [f"{day}-{i:09d}" for i in range(offset, offset + n)]),
            pl.Series("requested_at", [start] * n) + pl.Series("s", [timedelta(seconds=int(s)) for s in seconds]),
            pl.Series("region", rng.choice(["north", "south", "east", "west"], n)),
            pl.Series("channel", rng.choice(["web", "app", "branch", "broker"], n)),
            pl.Series("tier", rng.choice(["a", "b", "c"], n)),
            pl.Series("production_output", production),
            pl.Series("experimental_output", experimental),
        )
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None
    writer.close()


def config(base: Path, features: list[str], budget: int | None) -> MonitorConfig:
    attributes = {
        "source": {"path": "logs/{date}.parquet"},
        "columns": {"production_output": "production_output", "experimental_output": "experimental_output"},
        "features": {"numeric": features},
        "context": ["region", "channel", "tier"],
        "models": {"production": "production.ubj", "experimental": "experimental.ubj"},
        "reference": {"start_date": REFERENCE, "end_date": REFERENCE},
        "explanation": {"budget_rows_per_day": budget},
    }
    return MonitorConfig.from_mapping("bench", attributes, base)


def run(base: Path, rows: int, features: int, budget: int | None, trees: int, depth: int) -> dict[str, Any]:
    names = [f"f{i:02d}" for i in range(features)]
    write_models(base, names, trees, depth)
    monitor = Monitor(config(base, names, budget), Lake(str(base / "lake")))
    models = [monitor.model(r) for r in MODEL_ROLES]
    (base / "logs").mkdir()
    for day, n in ((REFERENCE, min(rows, 200_000)), (DAY, rows)):
        write_log(
            base / "logs" / f"{day}.parquet", day, n, names, lambda f: [m.predict_output(m.encode(f)) for m in models]
        )
    prepared = peak_mib()
    for day in (REFERENCE,):
        through_attributions(monitor, day)
    ensure_profile(monitor)
    write_day_histograms(monitor, REFERENCE, load_profile(monitor), "bench")
    stages: dict[str, float] = {}
    shap = through_attributions(monitor, DAY, stages)
    timed(stages, "explanation_quality", lambda: measure_day(monitor, DAY, "bench"))
    timed(stages, "attribution_histograms", lambda: write_day_histograms(monitor, DAY, load_profile(monitor), "bench"))
    timed(stages, "drift_scores", lambda: Scorer(monitor).score_day(DAY, "bench"))
    timed(stages, "drift_alerts", lambda: AlertFolder(monitor).write_day(DAY, "bench"))
    timed(stages, "recommendations", lambda: Recommender(monitor).write_day(DAY, "bench"))
    return {
        "rows": rows,
        "features": features,
        "explained": monitor.lake.row_count("divergence_set", "bench", DAY),
        "stages_s": {k: round(v, 2) for k, v in stages.items()},
        "all_but_shap_s": round(sum(stages.values()) - shap, 2),
        "shap_s": round(shap, 2),
        "peak_mib": round(peak_mib()),
        "peak_before_mib": round(prepared),
    }


def timed(stages: dict[str, float], name: str, work: Any) -> Any:
    started = time.perf_counter()
    result = work()
    stages[name] = time.perf_counter() - started
    print(f"{name:28} {stages[name]:7.2f} s   peak so far {peak_mib():6.0f} MiB", file=sys.stderr)
    return result


def through_attributions(monitor: Monitor, day: date, stages: dict[str, float] | None = None) -> float:
    stages = {} if stages is None else stages
    lake, settings = monitor.lake, monitor.config
    timed(stages, "replay_log", lambda: ingest(monitor, day, "bench"))
    timed(
        stages,
        "divergence_set",
        lambda: write_divergence_set(
            lake,
            settings,
            day,
            divergence_threshold(lake, settings),
            "bench",
            budget=settings.explanation.budget_rows_per_day,
        ),
    )
    shap = 0.0
    for role in MODEL_ROLES:
        report = timed(stages, f"{role}_attributions", lambda role=role: explain_day(monitor, role, day, "bench"))
        shap += report.explain_seconds
    return shap


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=50)
    parser.add_argument("--budget", type=int, default=None, help="rows to explain; every request by default")
    parser.add_argument("--trees", type=int, default=100)
    parser.add_argument("--depth", type=int, default=6)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(run(Path(folder), a.rows, a.features, a.budget, a.trees, a.depth), indent=2))


if __name__ == "__main__":
    main()
