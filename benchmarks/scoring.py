"""Cost of calibrated scores: calibrating on 28 days, scoring one day, scoring a year again.

    python benchmarks/scoring.py [--features 50] [--segments 20] [--days 365]

Histograms of made-up requests; every role and window that the platform scores (five roles, windows of 1, 7 and 28 days,
all requests and the divergent ones), and beside it the share of the two models' roles. The number of requests behind a
histogram plays no part.
"""

import argparse
import platform
import resource
import time
from collections.abc import Callable
from datetime import date, timedelta

import numpy as np

from xai_assets.config import DriftConfig
from xai_assets.flow.calibration import calibrate_days
from xai_assets.flow.histograms import Profile
from xai_assets.flow.scoring import score_windows, window_of
from xai_assets.lake.histogram_rows import Blocks
from xai_assets.records import MODEL_ROLES, OUTPUT, OUTPUT_FEATURES, POPULATIONS, ROLES
from xai_assets.stats.edges import EdgeSketch
from xai_assets.stats.histograms import accumulate, add_blocks, empty_block
from xai_assets.stats.scores import score_blocks

ROWS = 5_000


def draw(rng: np.random.Generator, role: str, features: int) -> np.ndarray:
    return rng.normal(size=(ROWS, len(OUTPUT_FEATURES) if role == OUTPUT else features)).astype(np.float32)


def make(features: int, segments: int) -> tuple[Profile, Callable[[], Blocks]]:
    rng = np.random.default_rng(0)
    names = {r: list(OUTPUT_FEATURES) if r == OUTPUT else [f"f{j}" for j in range(features)] for r in ROLES}
    edges = {}
    for role in ROLES:
        sketch = EdgeSketch(names[role])
        sketch.add(draw(rng, role, features))
        edges[role] = sketch.edges(20)
    places = ("overall", *(f"c={i}" for i in range(segments - 1)))

    def day() -> Blocks:
        codes = np.column_stack((np.zeros(ROWS, dtype=int), rng.integers(1, segments, ROWS)))
        found = {}
        for key in ((r, p) for r in ROLES for p in POPULATIONS):
            found[key] = empty_block(places, edges[key[0]])
            accumulate(found[key], edges[key[0]], draw(rng, key[0], features), np.ones(ROWS), codes)
        return found

    total = day()
    for _ in range(27):
        more = day()
        total = {key: add_blocks(total[key], more[key]) for key in total}
    return Profile("benchmark", places, edges, total), day


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("features", 50), ("segments", 20), ("days", 365)):
        arguments.add_argument(f"--{name}", type=int, default=default)
    given = arguments.parse_args()
    drift = DriftConfig()
    profile, day = make(given.features, given.segments)
    reference = [day() for _ in range(28)]
    print(f"{platform.machine()}; {given.features} features x {given.segments} segments x {drift.windows_days} days")
    started = time.perf_counter()
    first = date(2025, 1, 1)
    calibration = calibrate_days({first + timedelta(days=i): b for i, b in enumerate(reference)}, profile, drift)
    print(f"  calibrating on 28 days                        {time.perf_counter() - started:7.2f} s")
    one, year, pair, prepared = [], 0.0, [], {}
    for i in range(given.days):
        days = [reference[(i - k) % 28] for k in range(28)]
        started = time.perf_counter()
        windows = {w: window_of(days[:w]) for w in drift.windows_days}
        score_windows(windows, profile, calibration, drift, prepared)
        one.append(time.perf_counter() - started)
        year += one[-1]
        if i < 10:
            started = time.perf_counter()
            for role in MODEL_ROLES:
                for w, window in windows.items():
                    blocks, edges = window.blocks[role, "all"], profile.edges[role]
                    score_blocks(profile.blocks[role, "all"], blocks, edges, role=role, population="all", window_days=w)
            pair.append(time.perf_counter() - started)
    print(f"  one day, two models' roles                    {np.median(pair):7.3f} s")
    print(f"  one day, all five roles, both populations     {np.median(one):7.3f} s")
    print(f"  {given.days} days of that                                 {year:7.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"  peak memory                                   {peak:7.2f} GiB")


if __name__ == "__main__":
    main()
