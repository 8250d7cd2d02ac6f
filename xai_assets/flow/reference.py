"""The reference profile: what normal looks like, made once from the reference days.

Belongs here: choosing segments and cells' borders from the reference days, its histograms, storing and loading it.
Does not belong here: the quantiles themselves (`stats.edges`), comparing a day with it (`flow.scoring`).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from xai_assets.errors import LakeError, ProvenanceError
from xai_assets.flow.histograms import Profile, day_blocks, explained_values, role_features
from xai_assets.flow.monitor import Monitor
from xai_assets.flow.provenance import Provenance, combine
from xai_assets.lake.histogram_rows import MOMENTS_BIN, Blocks, blocks_to_frame, frame_to_blocks
from xai_assets.lake.segments import top_segments, value_counts
from xai_assets.lake.tables import REFERENCE_PROFILE
from xai_assets.records import INPUT, MODEL_ROLES, OVERALL, POPULATIONS, ROLES, Edges
from xai_assets.stats.edges import EdgeSketch, category_edges
from xai_assets.stats.histograms import add_blocks

CELLS = 20
MOST_SEGMENT_VALUES = 10_000
"""Of a segment column with more different values than this it is not remembered which ones the reference had."""


def build_profile(monitor: Monitor, days: Sequence[date], identity: str = "") -> Profile:
    """Borders, segments and histograms over the reference days that hold explained requests.

    Two passes over the days' attributions: one for borders (a bounded sample), one for the histograms.
    Raises LakeError where no reference day holds a single explained request.
    """
    counts: dict[str, Counter[str | None]] = {c: Counter() for c in monitor.config.segment_columns}
    sketches = {r: EdgeSketch(role_features(monitor.config, r)) for r in ROLES}
    rows = 0
    for day in days:
        for batch in explained_values(monitor, day):
            rows += len(batch.weights)
            for role in ROLES:
                sketches[role].add(batch.values[role], batch.weights)
            for column, found in value_counts(batch.context, monitor.config.segment_columns).items():
                counts[column].update(found)
    if rows == 0:
        raise LakeError(
            f"the reference of '{monitor.name}' holds no explained request",
            expected=f"requests on {monitor.config.reference.start_date} … {monitor.config.reference.end_date}",
            found=f"{len(days)} stored days without rows",
            next_step="check the source files of these days, or choose other reference days",
        )
    segments = top_segments(counts, monitor.config.drift.top_segment_values)
    edges = {r: sketches[r].edges(CELLS) for r in ROLES}
    edges[INPUT] = _input_edges(monitor, edges[INPUT])
    blocks = _sum_of_days(monitor, days, segments, edges)
    return Profile(_hash(identity, segments, edges, blocks), segments, edges, blocks, _seen_values(counts))


def _seen_values(counts: Mapping[str, Counter[str | None]]) -> dict[str, frozenset[str]]:
    values = {column: frozenset(v for v in found if v is not None) for column, found in counts.items()}
    return {column: seen for column, seen in values.items() if len(seen) <= MOST_SEGMENT_VALUES}


def _input_edges(monitor: Monitor, numeric: tuple[Edges, ...]) -> tuple[Edges, ...]:
    """Inputs with levels get one cell per level; an unseen one falls above the last."""
    levels = [2 if f.kind == "boolean" else len(f.categories) for f in monitor.features]
    by_feature = zip(levels, numeric, strict=True)
    return tuple(category_edges(e.feature, n) if n > 0 else e for n, e in by_feature)


def _sum_of_days(
    monitor: Monitor, days: Sequence[date], segments: tuple[str, ...], edges: dict[str, tuple[Edges, ...]]
) -> Blocks:
    total: Blocks = {}
    for day in days:
        for key, block in day_blocks(monitor, day, segments, edges).items():
            total[key] = add_blocks(total[key], block) if key in total else block
    return total


def _hash(identity: str, segments: Sequence[str], edges: dict[str, tuple[Edges, ...]], blocks: Blocks) -> str:
    digest = hashlib.sha256(json.dumps([identity, segments]).encode())
    for role in ROLES:
        for e in edges[role]:
            digest.update(e.feature.encode() + np.ascontiguousarray(e.cuts).tobytes())
        for population in POPULATIONS:
            digest.update(np.ascontiguousarray(blocks[role, population].weight).tobytes())
    return digest.hexdigest()[:16]


def write_profile(monitor: Monitor, profile: Profile, provenance: str, days: Sequence[date], inputs: str) -> None:
    """Store the profile whole in one partition; footers of later tables carry its hash."""
    cuts = pl.DataFrame(
        [
            {"role": r, "population": POPULATIONS[0], "segment": OVERALL, "feature": e.feature, "cuts": e.cuts.tolist()}
            for r in ROLES
            for e in profile.edges[r]
        ],
        schema_overrides={"cuts": pl.List(pl.Float64)},
    )
    keys = ["role", "population", "segment", "feature", "bin"]
    moments = pl.lit(MOMENTS_BIN, dtype=pl.Int16).alias("bin")
    frame = blocks_to_frame(profile.blocks).join(cuts.with_columns(moments), on=keys, how="full", coalesce=True)
    frame = frame.with_columns(
        pl.col(c).fill_null(0.0)
        for c in REFERENCE_PROFILE.schema
        if c.endswith(("_sum", "weight", "_squared", "row_count"))
    )
    metadata = {
        "provenance": provenance,
        "profile_hash": profile.profile_hash,
        "segments": json.dumps(profile.segments),
        "segment_values": json.dumps({column: sorted(seen) for column, seen in profile.segment_values.items()}),
        "features": json.dumps({r: [e.feature for e in profile.edges[r]] for r in ROLES}),
        "days": json.dumps([str(d) for d in days]),
        "inputs": inputs,
    }
    frame = frame.select(list(REFERENCE_PROFILE.schema)).sort(keys)
    monitor.lake.write("reference_profile", monitor.name, None, frame, metadata)


def load_profile(monitor: Monitor, expected_identity: str | None = None) -> Profile:
    """The stored profile.

    Raises LakeError where there is none, ProvenanceError (with both hashes) where it was made under another
    configuration or for other models than `expected_identity`, or by a version that knew other roles.
    """
    lake, name = monitor.lake, monitor.name
    footer = lake.metadata("reference_profile", name)
    if expected_identity is not None and footer.get("provenance") != expected_identity:
        raise ProvenanceError(
            f"the reference profile of '{name}' was made under another configuration or for other models",
            expected=expected_identity,
            found=str(footer.get("provenance")),
            next_step=f"materialize {name}/reference_profile again",
        )
    features = _features_by_role(name, footer)
    frame = lake.read("reference_profile", name)
    segments = tuple(json.loads(footer["segments"]))
    with_cuts = frame.filter(pl.col("cuts").is_not_null())
    found = {(r, f): c for r, f, c in with_cuts.select("role", "feature", "cuts").iter_rows()}
    edges = {r: tuple(Edges(f, np.array(found[r, f], dtype=np.float64)) for f in features[r]) for r in ROLES}
    blocks = frame_to_blocks(frame.drop("cuts"), segments, edges, POPULATIONS)
    seen = {column: frozenset(values) for column, values in json.loads(footer.get("segment_values", "{}")).items()}
    return Profile(footer["profile_hash"], segments, edges, blocks, seen)


def check_same_reference(expected_hash: str, found_hash: str | None, *, what: str, next_step: str) -> None:
    """Refuse histograms over the cells of another reference: cell 7 of the one is not cell 7 of the other.

    Parameters
    ----------
    expected_hash, found_hash
        `profile_hash` of the reference in use, and of what was read (None where it carries none).
    what
        What was read, for the message, and what to do (`next_step`).

    Raises
    ------
    ProvenanceError
        With both hashes, where they differ.
    """
    if found_hash != expected_hash:
        raise ProvenanceError(
            f"{what} is over the cells of another reference profile",
            expected=expected_hash,
            found=found_hash or "no hash",
            next_step=next_step,
        )


def check_day(monitor: Monitor, day: date, profile: Profile) -> None:
    """Refuse a day whose stored `attribution_histograms` are over other cells than the profile's.

    A day without stored histograms passes. Raises ProvenanceError with both hashes.
    """
    if monitor.lake.exists("attribution_histograms", monitor.name, day):
        check_same_reference(
            profile.profile_hash,
            _hash_of_day(monitor, day),
            what=f"attribution_histograms of '{monitor.name}' on {day}",
            next_step=f"materialize {monitor.name}/attribution_histograms of {day} again",
        )


def comparable_days(monitor: Monitor, days: Sequence[date], profile: Profile) -> list[date]:
    """Those of the days whose stored histograms are over the profile's cells; a window is made of these."""
    stored = [d for d in days if monitor.lake.exists("attribution_histograms", monitor.name, d)]
    return [d for d in stored if _hash_of_day(monitor, d) == profile.profile_hash]


def load_day_blocks(monitor: Monitor, day: date, profile: Profile) -> Blocks:
    """The stored histograms of one day.

    Raises LakeError where there are none, ProvenanceError (with both hashes) where they are over other cells.
    """
    check_day(monitor, day, profile)
    frame = monitor.lake.read("attribution_histograms", monitor.name, day)
    return frame_to_blocks(frame, profile.segments, profile.edges, POPULATIONS)


def _hash_of_day(monitor: Monitor, day: date) -> str | None:
    return monitor.lake.metadata("attribution_histograms", monitor.name, day).get("profile_hash")


def _features_by_role(monitor: str, footer: Mapping[str, str]) -> dict[str, list[str]]:
    features = json.loads(footer["features"])
    known = tuple(features) if isinstance(features, dict) else ()
    if set(known) != set(ROLES):
        raise ProvenanceError(
            f"the reference profile of '{monitor}' was made by another version of the platform",
            expected=f"histograms of {', '.join(ROLES)}",
            found=", ".join(known) or "one list of features for all roles",
            next_step=f"materialize {monitor}/reference_profile again",
        )
    return {r: list(features[r]) for r in ROLES}


@dataclass(frozen=True)
class ProfileState:
    """Where the reference profile stands. `profile_hash` is None while reference days are still to come."""

    profile_hash: str | None
    days: int
    segments: int
    sentence: str


def ensure_profile(monitor: Monitor, *, force: bool = False) -> ProfileState:
    """Build the profile where it is due, keep it where it is there.

    Due: every reference day has been explained with the present models (or refused), and no profile of the present
    configuration and models is stored. A reference day that changed later does not rebuild it (scores before and after
    would not be comparable); `force` does.
    """
    provenance = Provenance(monitor)
    identity, days = provenance.reference_identity, monitor.config.reference_days
    waiting = [d for d in days if not _is_ready(provenance, d)]
    inputs = combine(*(provenance.stored(f"{r}_attributions", d) or "-" for d in days for r in MODEL_ROLES))
    if provenance.reference_hash() is not None and not force:
        profile = load_profile(monitor, identity)
        changed = provenance.footer("reference_profile", None)["inputs"] != inputs and not waiting
        note = "; a reference day changed since it was made (force a new one if that matters)" if changed else ""
        sentence = f"kept the profile of {len(days)} reference days{note}"
        return ProfileState(profile.profile_hash, len(days), len(profile.segments), sentence)
    if waiting:
        text = f"waiting for {len(waiting)} of {len(days)} reference days, the first is {waiting[0]}"
        return ProfileState(None, len(days), 0, text)
    used = [d for d in days if not provenance.is_refused(d)]
    profile = build_profile(monitor, used, identity)
    write_profile(monitor, profile, identity, used, inputs)
    return ProfileState(profile.profile_hash, len(used), len(profile.segments), f"made from {len(used)} reference days")


def _is_ready(provenance: Provenance, day: date) -> bool:
    """Whether a reference day was explained with the present models and explainers; a refused one is not waited for."""
    if provenance.is_refused(day):
        return True
    footers = {r: provenance.footer(f"{r}_attributions", day) for r in MODEL_ROLES}
    hashes = provenance.monitor.model_hashes
    return all(
        f.get("model_sha256") == hashes[r] and f.get("explainer_identity") == provenance.explainer_identity(r)
        for r, f in footers.items()
    )
