"""The requests in which slices are looked for: bounded, seeded samples of days, and of the reference.

Belongs here: drawing explained requests with features, context and weights, turning them into the columns of rules,
attributions of the drawn ones, the stored sample of the reference.
Does not belong here: finding slices (see `flow.slices`).

A sample is the requests with the smallest seeded hash of their id among those explained, so it is the same in every run
and in any order of days. The hash is not that of `divergence_set`, in which strata end at different keys: with one hash
for both, requests of either stratum would be drawn with other probabilities than their weights say.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import polars as pl

from xai_assets.errors import ProvenanceError
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance
from xai_assets.lake.alignment import rows_at
from xai_assets.lake.sampling import stable_keys
from xai_assets.lake.tables import PHI, SLICE_REFERENCE
from xai_assets.records import MODEL_ROLES, FeatureSpec, Float64, Int64
from xai_assets.stats.rules import LevelColumn, NumberColumn, SliceColumn

TABLE = "slice_reference"
REFERENCE_ROWS = 8_000
"""Requests of the reference that are kept."""
_OUTPUTS = ("production_output", "experimental_output")


@dataclass(frozen=True)
class SampleRows:
    """n explained requests, by rising key.

    facts: day, position (in the day's divergence_set and attributions), key, delta, flipped, inclusion_probability.
    values: features and context as the replay log has them.
    """

    facts: pl.DataFrame
    values: pl.DataFrame

    @property
    def weights(self) -> Float64:
        """1/π, float64 [n]."""
        return np.asarray(1.0 / self.facts["inclusion_probability"].to_numpy())

    def smallest(self, rows: int) -> "SampleRows":
        """The `rows` requests with the smallest keys."""
        order = self.facts.select(pl.arg_sort_by("key", "request_id")).to_series().head(rows)
        return SampleRows(self.facts[order], self.values[order])


def odd_keys(keys: pl.Series) -> npt.NDArray[np.bool_]:
    """Half of the requests by the last bit of their keys, whatever else the keys decided; bool [n]."""
    return (keys.to_numpy() & np.uint64(1)).astype(np.bool_)


def join_samples(samples: Sequence[SampleRows], rows: int) -> SampleRows:
    """The `rows` requests with the smallest keys of several days."""
    return SampleRows(pl.concat(s.facts for s in samples), pl.concat(s.values for s in samples)).smallest(rows)


def rule_columns_of(monitor: Monitor) -> list[str]:
    """Names of features and context, each once."""
    return list(dict.fromkeys((*monitor.config.feature_names, *monitor.config.segment_columns)))


def draw_day(monitor: Monitor, day: date, rows: int) -> SampleRows:
    """A day's explained requests, at most `rows` of them.

    Raises
    ------
    LakeError
        The day's replay log or divergence set is not stored.
    ProvenanceError
        The two are not of the same requests.
    """
    lake, name, config = monitor.lake, monitor.name, monitor.config
    kept = ["row_index", "request_id", "delta", "inclusion_probability"]
    chosen = lake.read("divergence_set", name, day, columns=kept)
    keys = stable_keys(chosen["request_id"], config.explanation.seed + 1)
    facts = chosen.with_columns(keys.alias("key")).with_row_index("position").sort("key", "request_id").head(rows)
    facts = facts.sort("position")
    columns = ["request_id", *_OUTPUTS, *rule_columns_of(monitor)]
    values = rows_at(lake, "replay_log", name, day, columns, facts["row_index"].to_numpy())
    if not values["request_id"].equals(facts["request_id"]):
        raise _misaligned("divergence_set", "replay_log", day)
    cut = config.divergence.decision_threshold
    production, experimental = (values[c].to_numpy() >= cut for c in _OUTPUTS)
    facts = facts.with_columns(pl.lit(day).alias("day"), pl.Series("flipped", production != experimental, pl.Boolean))
    return SampleRows(facts.drop("row_index"), values.drop("request_id", *_OUTPUTS)).smallest(rows)


def attributions_of(
    monitor: Monitor, sample: SampleRows, role: str, features: Sequence[str]
) -> npt.NDArray[np.float32]:
    """Attributions of the sampled requests, float32 [n, len(features)]; only these columns are read.

    Raises ProvenanceError where a day's attributions are not of the requests of its divergence set.
    """
    columns, table = ["request_id", *(PHI + f for f in features)], f"{role}_attributions"
    found = np.empty((sample.facts.height, len(features)), np.float32)
    places = sample.facts.with_row_index("place")
    for (day,), part in places.sort("position").group_by("day", maintain_order=True):
        assert isinstance(day, date)
        rows = rows_at(monitor.lake, table, monitor.name, day, columns, part["position"].to_numpy())
        if not rows["request_id"].equals(part["request_id"]):
            raise _misaligned("divergence_set", table, day)
        found[part["place"].to_numpy()] = rows.drop("request_id").to_numpy()
    return found


def _misaligned(one: str, other: str, day: date) -> ProvenanceError:
    return ProvenanceError(
        f"{other} of {day} does not hold the requests of {one}",
        next_step="materialize the day again from divergence_set on",
    )


def slice_columns(values: pl.DataFrame, features: Sequence[FeatureSpec], context: Sequence[str]) -> list[SliceColumn]:
    """Features and context as columns that rules may speak of.

    Numbers as they are; levels of categories and of context as the rows have them, those that a model does not know
    too; a boolean has the levels false and true.
    """
    columns: list[SliceColumn] = []
    for spec in features:
        series = values[spec.name]
        columns.append(_number(series) if spec.kind == "numeric" else _levels(series))
    names = {f.name for f in features}
    return columns + [_levels(values[c]) for c in context if c not in names]


def _number(series: pl.Series) -> NumberColumn:
    return NumberColumn(series.name, series.cast(pl.Float64).fill_null(np.nan).to_numpy())


def _levels(series: pl.Series) -> LevelColumn:
    text = series.cast(pl.String)
    levels = tuple(text.drop_nulls().unique().sort().to_list())
    codes = text.cast(pl.Enum(levels)).to_physical().cast(pl.Int64).fill_null(-1)
    return LevelColumn(series.name, codes.to_numpy(), levels)


# --- the reference's sample ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReferenceSample:
    """Requests of the reference: keys, weights, features and context, and attributions by role and feature."""

    keys: pl.Series
    weights: Float64
    frame: pl.DataFrame

    def attributions(self, role: str, feature: str) -> npt.NDArray[np.float32]:
        return self.frame[phi_column(role, feature)].to_numpy()


def phi_column(role: str, feature: str) -> str:
    """Name of an attribution's column in `slice_reference`."""
    return f"{role}_{PHI}{feature}"


def reference_sample(monitor: Monitor) -> ReferenceSample | None:
    """The stored sample of the present reference, made now where there is none.

    None where there is no profile, or no reference day's rows are stored any more. Like the profile it is made once: a
    reference day that changes later does not change it.
    """
    provenance = Provenance(monitor)
    identity = provenance.slice_reference_identity()
    if identity is None:
        return None
    if provenance.stored(TABLE, None) != identity:
        frame = _draw_reference(monitor, provenance)
        if frame is None:
            return None
        days = json.dumps(sorted(str(d) for d in frame["requested_on"].unique()))
        monitor.lake.write(TABLE, monitor.name, None, frame, {"provenance": identity, "days": days})
    stored = monitor.lake.read(TABLE, monitor.name)
    keys = stable_keys(stored["request_id"], monitor.config.explanation.seed + 1)
    return ReferenceSample(keys, 1.0 / stored["inclusion_probability"].to_numpy(), stored)


def _draw_reference(monitor: Monitor, provenance: Provenance) -> pl.DataFrame | None:
    days = [d for d in monitor.config.reference_days if is_stored(provenance, d) and not provenance.is_refused(d)]
    drawn = [s for s in (draw_day(monitor, d, REFERENCE_ROWS) for d in days) if s.facts.height]
    if not drawn:
        return None
    sample = join_samples(drawn, REFERENCE_ROWS)
    fixed = sample.facts.select("request_id", pl.col("day").alias("requested_on"), "inclusion_probability")
    frame = fixed.select(list(SLICE_REFERENCE.schema)).hstack(sample.values)
    features = monitor.config.feature_names
    for role in MODEL_ROLES:
        phi = attributions_of(monitor, sample, role, features)
        frame = frame.hstack([pl.Series(phi_column(role, f), phi[:, j]) for j, f in enumerate(features)])
    return frame


def is_stored(provenance: Provenance, day: date, *, attributions: bool = True) -> bool:
    """Whether a day's rows are there, and their attributions of both models."""
    tables = ["replay_log", "divergence_set", *(f"{r}_attributions" for r in MODEL_ROLES if attributions)]
    return all(provenance.stored(t, day) is not None for t in tables)


def positions_by_day(facts: pl.DataFrame) -> Int64:
    """Number of each request's day among the days of the sample, the latest 0; int64 [n]."""
    return np.asarray(facts["day"].rank("dense", descending=True).to_numpy().astype(np.int64) - 1)
