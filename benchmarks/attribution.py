"""Exact SHAP values of tree ensembles: this project's kernel beside its peers, in one run.

    .venv/bin/python benchmarks/attribution.py                    # the table of README (about 12 minutes)
    .venv/bin/python benchmarks/attribution.py --models 100x6 --rows 1,1000,10000

Every figure is a median over repetitions in which the engines take turns, so that a slow minute of the machine hits
all of them. xgboost and shap get as many rows as they explain in about `--peer-seconds`: they are linear in rows.
A peer that is not installed is left out, and the run says so: `pip install woodelf-explainer`.
"""

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FEATURES = 50
WOODELF = "woodelf"
"""It prepares the whole model anew in every call, so it is measured on whole, large batches; it has one thread."""
Engine = Callable[[Any], Any]


def data(rows: int, features: int = FEATURES, seed: int = 0) -> tuple[Any, Any]:
    """Rows with 5 % missing values, and a label that every tenth feature and some interactions decide."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, features)).astype(np.float32)
    X[rng.random(X.shape) < 0.05] = np.nan
    z = np.nan_to_num(X)
    score = z[:, 0] * z[:, 1] + z[:, 2] + np.sin(3 * z[:, 3]) + 0.4 * z[:, ::10].sum(axis=1)
    return X, (score + rng.normal(size=rows) > 0).astype(np.int8)


def booster(trees: int, depth: int, features: int = FEATURES) -> Any:
    import xgboost

    kept = Path(tempfile.gettempdir()) / f"xai-assets-benchmark-{trees}x{depth}x{features}.ubj"
    if not kept.exists():
        X, y = data(60_000, features)
        settings = {"max_depth": depth, "eta": 0.1, "objective": "binary:logistic"}
        xgboost.train(settings, xgboost.DMatrix(X, y), trees).save_model(kept)
    return xgboost.Booster(model_file=kept)


def engines(model: Any, threads: int) -> dict[str, Engine]:
    import shap
    import xgboost

    from xai_assets.explain.treeshap import TreeEnsemble, TreeShap

    model.set_param({"nthread": threads})
    ours = TreeShap(TreeEnsemble.from_xgboost(model), threads=threads)
    explainer = shap.TreeExplainer(model)
    found: dict[str, Engine] = {
        "xai_assets": lambda X: ours.explain(X).values,
        f"xgboost {xgboost.__version__} pred_contribs": lambda X: model.predict(
            xgboost.DMatrix(X, nthread=threads), pred_contribs=True
        ),
        f"shap {shap.__version__} TreeExplainer": lambda X: explainer.shap_values(X),
    }
    try:
        import pandas as pd
        import woodelf

        wood = woodelf.WoodelfExplainer(model, feature_perturbation="tree_path_dependent")
        names = model.feature_names or [f"f{i}" for i in range(model.num_features())]
        found[WOODELF] = lambda X: quietly(lambda: wood.shap_values(pd.DataFrame(X, columns=names)))
    except ImportError:
        print("woodelf is not installed: left out")
    return found


def quietly(run: Callable[[], Any]) -> Any:
    """Without the progress that woodelf prints."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        return run()


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def compare(trees: int, depth: int, threads: int, sizes: list[int], repeats: int, peer_seconds: float) -> list[dict]:
    """One row per engine and number of rows: rows per second, and the ratio to ours in the same repetition."""
    model = booster(trees, depth)
    X, _ = data(max(sizes), seed=1)
    runs = engines(model, threads)
    speed = {}
    for name, run in runs.items():
        if name == WOODELF:
            continue
        run(X[:64])  # compiles, allocates, builds
        probe = 64
        took = seconds(lambda: run(X[:probe]))  # noqa: B023
        while took < 0.2 and probe < 20_000:
            probe *= 4
            took = seconds(lambda: run(X[:probe]))  # noqa: B023
        speed[name] = probe / took
    found = []
    for size in sizes:
        rows_for = {name: max(1, min(size, int(speed[name] * peer_seconds))) for name in speed}
        rows_for["xai_assets"] = size
        if WOODELF in runs and threads == 1 and 10_000 <= size <= 100_000:
            rows_for[WOODELF] = size
        times: dict[str, list[float]] = {name: [] for name in rows_for}
        for turn in range(repeats if size < 1_000_000 else min(repeats, 3)):
            for name, rows in rows_for.items():
                if name == WOODELF and turn > 1:
                    continue  # it is slow, and never near
                times[name].append(seconds(lambda: runs[name](X[:rows])) / rows)  # noqa: B023
        for name in rows_for:
            ratios = [theirs / ours for theirs, ours in zip(times[name], times["xai_assets"], strict=False)]
            found.append(
                {
                    "model": f"{trees} x {depth}",
                    "threads": threads,
                    "rows": size,
                    "measured_on_rows": rows_for[name],
                    "engine": name,
                    "rows_per_second": 1 / statistics.median(times[name]),
                    "ours_is_faster_by": statistics.median(ratios),
                }
            )
            print("{model:>9} {threads} thread(s) {rows:>9,} rows  {engine:<32}".format(**found[-1]), end="")
            print("{rows_per_second:>12,.0f} rows/s   x {ours_is_faster_by:,.1f}".format(**found[-1]), flush=True)
    return found


def growth(repeats: int) -> None:
    """Cost per unit when one thing grows and all others stay."""
    from xai_assets.explain.treeshap import TreeEnsemble, TreeShap

    X, _ = data(20_000, seed=1)
    print("\nGrowth (one thread): microseconds per row and tree, and nanoseconds per row and leaf")
    by_trees = [(50, 6, 50), (200, 6, 50), (800, 6, 50)]
    by_leaves = [(100, 4, 50), (100, 8, 50), (100, 10, 50)]
    by_features = [(100, 6, 10), (100, 6, 1000)]
    for trees, depth, features in by_trees + by_leaves + by_features:
        model = booster(trees, depth, features)
        shap = TreeShap(TreeEnsemble.from_xgboost(model), threads=1)
        rows = X if features == FEATURES else data(20_000, features, seed=1)[0]
        rows = rows[: max(1_000, min(20_000, 40_000_000 // (trees * 2**depth)))]
        shap.explain(rows[:64])
        per_row = statistics.median(seconds(lambda: shap.explain(rows)) / len(rows) for _ in range(repeats))  # noqa: B023
        leaves = int((shap.ensemble.left < 0).sum())
        print(
            f"{trees:>5} trees x depth {depth:<2} {features:>5} features  {1e6 * per_row:>8.2f} µs/row"
            f"  {1e6 * per_row / trees:>7.4f} µs/row/tree  {1e9 * per_row / leaves:>6.3f} ns/row/leaf"
        )


def threads_scale(repeats: int) -> None:
    from xai_assets.explain.treeshap import TreeEnsemble, TreeShap

    X, _ = data(100_000, seed=1)
    for trees, depth in ((100, 6), (500, 6)):
        ensemble = TreeEnsemble.from_xgboost(booster(trees, depth))
        one, two = TreeShap(ensemble, threads=1), TreeShap(ensemble, threads=2)
        one.explain(X[:64]), two.explain(X[:64])
        ratios = [seconds(lambda: one.explain(X)) / seconds(lambda: two.explain(X)) for _ in range(repeats)]  # noqa: B023
        print(f"two threads against one, {trees} x {depth}: x {statistics.median(ratios):.2f}")


def memory(rows: int) -> None:
    """Peak beyond input and output, in a process of its own."""
    code = (
        "import sys, numpy as np\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from attribution import booster, data\n"
        "from xai_assets.explain.treeshap import TreeEnsemble, TreeShap\n"
        "def status(key):\n"
        "    return next(int(l.split()[1]) for l in open('/proc/self/status') if l.startswith(key)) / 1024\n"
        "shap = TreeShap(TreeEnsemble.from_xgboost(booster(100, 6)))\n"
        f"X = np.resize(data(10_000)[0], ({rows}, {FEATURES}))\n"
        "shap.explain(X[:1000])\n"
        "open('/proc/self/clear_refs', 'w').write('5')  # the peak starts anew\n"
        "before = status('VmRSS')\n"
        "values = shap.explain(X).values\n"
        "print(status('VmHWM') - before - values.nbytes / 2**20)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print(f"\npeak above input and output at {rows:,} rows: {float(done.stdout):.0f} MiB")


def start() -> None:
    """First call of a process: compiling (empty cache), then reading the cache."""
    code = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from attribution import booster, data\n"
        "X, model = data(1)[0], booster(100, 6)\n"
        "started = time.perf_counter()\n"
        "from xai_assets.explain.treeshap import TreeEnsemble, TreeShap\n"
        "shap = TreeShap(TreeEnsemble.from_xgboost(model)); shap.explain(X); shap.margin(X)\n"
        "print(time.perf_counter() - started)\n"
    )
    with tempfile.TemporaryDirectory() as cache:
        for what in ("compiling", "from the cache"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                env={**os.environ, "NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            print(f"first row of a process, imports of numba included, {what}: {float(done.stdout):.1f} s")


def single_row() -> None:
    from xai_assets.explain.treeshap import TreeEnsemble, TreeShap

    X, _ = data(200, seed=1)
    for trees, depth in ((100, 6), (500, 6), (1000, 8)):
        shap = TreeShap(TreeEnsemble.from_xgboost(booster(trees, depth)))
        shap.explain(X[:1])
        times = [seconds(lambda i=i: shap.explain(X[i : i + 1])) for i in range(len(X))]  # noqa: B023
        print(f"one row, {trees} x {depth}: median {1e3 * statistics.median(times):.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="100x6,500x6,1000x8")
    parser.add_argument("--rows", default="1,1000,10000,100000,1000000")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peer-seconds", type=float, default=2.0)
    parser.add_argument("--only-comparison", action="store_true")
    parser.add_argument("--json", type=Path, help="write the comparison to this file")
    chosen = parser.parse_args()
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    )
    found = []
    for name in chosen.models.split(","):
        trees, depth = map(int, name.split("x"))
        largest = 1_000_000 if trees * 2**depth < 20_000 else 100_000 if trees * 2**depth < 100_000 else 10_000
        sizes = [int(n) for n in chosen.rows.split(",") if int(n) <= largest]
        for threads in map(int, chosen.threads.split(",")):
            found += compare(trees, depth, threads, sizes, chosen.repeats, chosen.peer_seconds)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1))
    if not chosen.only_comparison:
        print()
        single_row()
        threads_scale(chosen.repeats)
        growth(chosen.repeats)
        memory(1_000_000)
        start()


if __name__ == "__main__":
    main()
