"""Bounded, seeded samples of attributions: of a day, of a window's days, of the reference.

Belongs here: which explained requests stand for a day, for how many each stands, storing them.
Does not belong here: comparing samples (`flow.explanation_shift`), the keys themselves (`lake.sampling`).

A day's sample is the `DAY_ROWS` explained requests with the smallest seeded hash of their id. It is drawn once, from
one pass over the day, and stored: a window of 28 days of a million requests reads 28 small files. It is row-level data
and has the retention of the attributions. A window takes from each of its days as many as the day's share of the
window's explained requests, again those with the smallest hashes: the same inputs give the same rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import STAGE_VERSION, Provenance, combine
from xai_assets.lake.sampling import Reservoir, stable_keys
from xai_assets.lake.tables import EXPLANATION_SHIFT_REFERENCE, PHI
from xai_assets.records import DIFFERENCE, EXPERIMENTAL, MODEL_ROLES, PRODUCTION, Float32, Float64, Int64

TABLE = "explanation_shift_sample"
DAY_ROWS = WINDOW_ROWS = 1_000
REFERENCE_ROWS = 2_000
_OWN_KEYS = 2**32
"""Added to the seed. A configured seed is below it: with the same keys as the divergence set's draw, the rest of the
requests, of which that took those with small keys, would come before the divergent ones."""


@dataclass(frozen=True)
class DaySample:
    """A day's sampled rows by rising key, and how many explained requests the day has."""

    rows: pl.DataFrame
    explained: int


class Sampler:
    """Samples of one monitor's days; keeps what it read, so that windows of one run read each day once."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._provenance = Provenance(monitor)
        self._held: dict[date, DaySample | None] = {}

    def day(self, day: date) -> DaySample | None:
        """The sample of a day, stored or drawn and stored now.

        None where attributions are not stored (any more), or are not those of the present models and explainers.
        """
        if day not in self._held:
            self._held[day] = self._load(day) if self._is_comparable(day) else None
        return self._held[day]

    def forget_before(self, day: date) -> None:
        """Let go of the days before `day`."""
        self._held = {d: s for d, s in self._held.items() if d >= day}

    def rows(self, days: Sequence[date], count: int) -> pl.DataFrame:
        """At most about `count` rows of the days, with the columns of `explanation_shift_reference`.

        Of each day its share of the explained requests, at least one and at most what its sample holds. weight: how
        many requests of the window the row stands for, 1/π × explained ÷ taken.
        """
        samples = [(d, s) for d in days if (s := self.day(d)) is not None and s.explained]
        total = sum(s.explained for _, s in samples)
        parts = []
        for day, sample in samples:
            share = round(count * sample.explained / total) if total > count else sample.explained
            taken = sample.rows.head(max(1, share))
            weight = pl.col("weight") * (sample.explained / taken.height)
            parts.append(taken.select(pl.lit(day).alias("requested_on"), weight, pl.col(f"^{PHI}.*$")))
        return pl.concat(parts) if parts else pl.DataFrame(schema=EXPLANATION_SHIFT_REFERENCE.schema)

    def _is_comparable(self, day: date) -> bool:
        footers = {r: self._provenance.footer(f"{r}_attributions", day) for r in MODEL_ROLES}
        return all(
            f.get("model_sha256") == self.monitor.model_hashes[r]
            and f.get("explainer_identity") == self._provenance.explainer_identity(r)
            and self.monitor.lake.exists("divergence_set", self.monitor.name, day)
            for r, f in footers.items()
        )

    def _load(self, day: date) -> DaySample:
        lake, name = self.monitor.lake, self.monitor.name
        made_from = (self._provenance.stored(f"{r}_attributions", day) or "-" for r in MODEL_ROLES)
        seed = self.monitor.config.explanation.seed
        identity = combine(STAGE_VERSION["explanation_shift"], str(seed), str(DAY_ROWS), *made_from)
        footer = self._provenance.footer(TABLE, day)
        if footer.get("provenance") == identity:
            return DaySample(lake.read(TABLE, name, day), int(footer["explained"]))
        sample = _draw(self.monitor, day, seed)
        lake.write(TABLE, name, day, sample.rows, {"provenance": identity, "explained": str(sample.explained)})
        self._provenance.forget(TABLE, day)
        return sample


def role_values(rows: pl.DataFrame, features: Sequence[str]) -> dict[str, Float32]:
    """φ of both roles and their difference, float32 [n, d], from the columns of a sample."""
    values = {r: rows.select(_columns(r, features)).to_numpy().astype(np.float32, copy=False) for r in MODEL_ROLES}
    return values | {DIFFERENCE: values[EXPERIMENTAL] - values[PRODUCTION]}


def weights_of(rows: pl.DataFrame) -> Float64:
    """Requests that each row stands for, float64 [n]."""
    return rows["weight"].to_numpy()


def _columns(role: str, features: Sequence[str]) -> list[str]:
    return [f"{PHI}{role}_{f}" for f in features]


def _draw(monitor: Monitor, day: date, seed: int) -> DaySample:
    lake, name = monitor.lake, monitor.name
    chosen = lake.read("divergence_set", name, day, columns=["request_id", "inclusion_probability"])
    numbered = chosen.select("request_id", (1.0 / pl.col("inclusion_probability")).alias("weight"))
    reservoir = Reservoir(DAY_ROWS)
    reservoir.offer(numbered.with_row_index("at"), stable_keys(chosen["request_id"], seed + _OWN_KEYS))
    drawn = reservoir.smallest(DAY_ROWS)
    at = drawn["at"].to_numpy().astype(np.int64)
    values = [_gathered(monitor, r, day, at) for r in MODEL_ROLES]
    return DaySample(pl.concat([drawn.select("request_id", "weight"), *values], how="horizontal"), chosen.height)


def _gathered(monitor: Monitor, role: str, day: date, at: Int64) -> pl.DataFrame:
    """A role's φ at positions `at` of the day, in that order, with the columns of a sample."""
    features = monitor.config.feature_names
    stored = [f"{PHI}{f}" for f in features]
    order = np.argsort(at, kind="stable")
    wanted, offset, done = at[order], 0, 0
    parts = [pl.DataFrame(schema=dict.fromkeys(stored, pl.Float32))]
    for batch in monitor.lake.batches(f"{role}_attributions", monitor.name, day, stored):
        end = int(wanted.searchsorted(offset + batch.height))
        parts.append(batch[wanted[done:end] - offset])
        offset, done = offset + batch.height, end
    found = pl.concat(parts)[np.argsort(order)]
    return found.rename(dict(zip(stored, _columns(role, features), strict=True)))
