"""False alarms on days without drift: what an alarm budget of one day in 30 becomes over 1,000 stationary days.

    python benchmarks/false_alarms.py [--days 1000] [--references 3] [--only NAME]

Each setting draws a reference of 28 days, calibrates on it, and judges every later day in windows of 1, 7 and 28 days.
Printed: days with an alarm per 30, over several references, by the evidence alone and with the effect floor.
"""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from xai_assets.records import Float64
from xai_assets.stats import drift
from xai_assets.stats.calibration import Calibration, DailyCounts, calibrate
from xai_assets.stats.dispersion import evidence
from xai_assets.stats.homogeneity import comparison_size, homogeneity

CELLS = 23
WINDOWS = (1, 7, 28)


@dataclass(frozen=True)
class Stream:
    """A stationary stream as daily histograms. day_effect: spread of the log shares between days; weekly: the same,
    by weekday; burst: requests that come as one; weight_spread: of lognormal inverse-probability weights."""

    requests: Any = 1000
    features: int = 12
    segments: int = 3
    day_effect: float = 0.0
    weekly: float = 0.0
    burst: int = 1
    weight_spread: float = 0.0

    def days(self, count: int, seed: int) -> tuple[Float64, Float64, Float64]:
        """Weights [T, S+1, d, K] (the first segment is overall), Σw and Σw² [T, S+1]."""
        rng = np.random.default_rng(seed)
        base = np.full((self.features, CELLS), 0.05)
        base[:, [0, -2]], base[:, -1] = 1e-4, 0.01
        base[self.features // 2 :] *= rng.random((self.features - self.features // 2, CELLS)) ** 3 + 1e-3
        x = np.linspace(-1.7, 1.7, CELLS)
        shapes = np.stack([x, x**2 - 1, np.sin(3 * x)])
        of_weekday = self.weekly * rng.normal(size=(7, 3, self.features))
        shares = np.array([0.6, 0.3, 0.1])[: self.segments] / sum((0.6, 0.3, 0.1)[: self.segments])
        weight = np.zeros((count, self.segments + 1, self.features, CELLS))
        total, squares = np.zeros((count, self.segments + 1)), np.zeros((count, self.segments + 1))
        for t in range(count):
            tilt = self.day_effect * rng.normal(size=(3, self.features)) + of_weekday[t % 7]
            p = base * np.exp(np.einsum("ed,ek->dk", tilt, shapes))
            p /= p.sum(axis=1, keepdims=True)
            n = self.requests(t, rng) if callable(self.requests) else self.requests
            for s, m in enumerate(rng.multinomial(n // self.burst, shares), start=1):
                weight[t, s], total[t, s], squares[t, s] = self._segment(rng, int(m), p)
        weight[:, 0], total[:, 0], squares[:, 0] = weight.sum(axis=1), total.sum(axis=1), squares.sum(axis=1)
        return weight, total, squares

    def _segment(self, rng: np.random.Generator, m: int, p: Float64) -> tuple[Float64, float, float]:
        if not self.weight_spread:
            return rng.multinomial(m, p) * float(self.burst), float(m * self.burst), float(m * self.burst)
        w = np.exp(self.weight_spread * rng.normal(size=m))
        cells = (rng.random((m, len(p), 1)) > np.cumsum(p, axis=1)).sum(axis=2)
        counts = np.stack([np.bincount(c, w, minlength=p.shape[1]) for c in cells.T])
        return counts, float(w.sum()), float((w**2).sum())


def calibrated(weight: Float64, total: Float64, squares: Float64, **more: Any) -> Calibration:
    counts = DailyCounts(weight.astype(np.float32), total, squares, np.ones(weight.shape[1:3], dtype=bool))
    arguments: dict[str, Any] = {"windows_days": WINDOWS, "alarm_rate": 1 / 30, "min_effective_rows": 30}
    return calibrate({"production": counts}, rng=np.random.default_rng(0), **arguments | more)


def judged(
    stream: tuple[Float64, Float64, Float64], reference_days: int, calibration: Calibration
) -> dict[int, tuple[Float64, Float64]]:
    """Evidence and corrected PSI of every day after the reference, [days, S+1, d], by window; NaN where too small."""
    weight, total, squares = stream
    q, m = weight[:reference_days].sum(axis=0), _n(total[:reference_days], squares[:reference_days])
    found = {}
    for w in WINDOWS:
        u, effect = [], []
        for t in range(reference_days, len(weight)):
            days = slice(t - w + 1, t + 1)
            p, n = weight[days].sum(axis=0), _n(total[days], squares[days])
            x2, freedom = homogeneity(q, p, n_effective_reference=m[:, None], n_effective=n[:, None])
            each = total[days] ** 2 / np.maximum(squares[days], 1e-300)
            share = (each**2).sum(axis=0) / each.sum(axis=0) ** 2
            size = comparison_size(n, m, share, calibration.day_share_reference)[:, None]
            of = calibration.dispersions["production", w]
            fine = (n >= 30)[:, None] & (freedom >= 1)
            u.append(np.where(fine, evidence(x2 / np.maximum(freedom, 1), freedom, size, of), np.nan))
            sizes = {"n_effective_reference": m[:, None], "n_effective": n[:, None]}
            effect.append(np.where(fine, drift.psi_corrected(q, p, **sizes), np.nan))
        found[w] = np.stack(u), np.stack(effect)
    return found


def _n(total: Float64, squares: Float64) -> Float64:
    return np.asarray(total.sum(axis=0) ** 2 / np.maximum(squares.sum(axis=0), 1e-300))


def alarm_days(stream: Stream, seed: int, days: int, reference_days: int = 28) -> tuple[float, float]:
    """Days with an alarm per 30, by evidence alone and with the effect floor."""
    drawn = stream.days(reference_days + days, seed)
    calibration = calibrated(*(a[:reference_days] for a in drawn))
    scores = judged(drawn, reference_days, calibration)
    loud = [np.nan_to_num(u) >= calibration.threshold.at(w) for w, (u, _) in scores.items()]
    material = [a & (np.nan_to_num(effect) >= 0.10) for a, (_, effect) in zip(loud, scores.values(), strict=True)]
    return tuple(30 * float(np.any(np.stack(x), axis=(0, 2, 3)).mean()) for x in (loud, material))


STATIONARY = {
    "independent requests": Stream(),
    "one feature": Stream(features=1, segments=1),
    "200 features": Stream(features=200, segments=1, day_effect=0.05),
    "days differ": Stream(day_effect=0.1),
    "bursts": Stream(burst=5, day_effect=0.05),
    "weekly season": Stream(requests=lambda t, _: 400 if t % 7 > 4 else 1000, weekly=0.15, day_effect=0.05),
    "30 requests": Stream(requests=40, segments=1),
    "a million requests": Stream(requests=1_000_000, day_effect=0.03),
    "sampled": Stream(requests=300, features=4, segments=1, weight_spread=1.0, day_effect=0.05),
}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--days", type=int, default=1000)
    arguments.add_argument("--references", type=int, default=3)
    arguments.add_argument("--only", default="")
    given = arguments.parse_args()
    print(f"alarm days per 30 over {given.days} days, budget 1; mean (largest) of {given.references} references")
    for name, stream in STATIONARY.items():
        if given.only in name:
            started = time.perf_counter()
            rates = np.array([alarm_days(stream, seed, given.days) for seed in range(given.references)])
            texts = [f"{r.mean():.2f} ({r.max():.2f})" for r in rates.T]
            seconds = time.perf_counter() - started
            print(
                f"  {name:22s} evidence {texts[0]:>12s}   with effect floor {texts[1]:>12s}   {seconds:4.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
