"""Histograms as table rows, and rows as histograms.

Belongs here: the translation between dense blocks (arrays) and the sparse rows of `attribution_histograms`
and `reference_profile`. Does not belong here: filling a histogram, or comparing two.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from xai_assets.lake.tables import ATTRIBUTION_HISTOGRAMS
from xai_assets.records import Edges, HistogramBlock

Blocks = dict[tuple[str, str], HistogramBlock]
"""Histogram blocks by (role, population)."""
MOMENTS_BIN = -1


def blocks_to_frame(blocks: Mapping[tuple[str, str], HistogramBlock]) -> pl.DataFrame:
    """Rows of all blocks; a cell that no request fell into has no row."""
    parts = [_rows(role, population, block) for (role, population), block in blocks.items()]
    empty = pl.DataFrame(schema=ATTRIBUTION_HISTOGRAMS.schema)
    return pl.concat([empty, *parts])


def _rows(role: str, population: str, block: HistogramBlock) -> pl.DataFrame:
    s, j, k = np.nonzero(block.row_count)
    totals = block.row_count.sum(axis=2)
    ms, mj = np.nonzero(totals)
    columns = {
        "segment": np.concatenate([s, ms]),
        "feature": np.concatenate([j, mj]),
        "bin": np.concatenate([k, np.full(len(ms), MOMENTS_BIN)]),
        "row_count": np.concatenate([block.row_count[s, j, k], totals[ms, mj]]),
        "weight": np.concatenate([block.weight[s, j, k], block.weight.sum(axis=2)[ms, mj]]),
        "weight_squared": np.concatenate([block.weight_squared[s, j, k], block.weight_squared.sum(axis=2)[ms, mj]]),
        "phi_sum": np.concatenate([block.phi_sum[s, j, k], block.phi_sum.sum(axis=2)[ms, mj]]),
        "abs_sum": np.concatenate([np.zeros(len(s)), block.abs_sum[ms, mj]]),
        "squared_sum": np.concatenate([np.zeros(len(s)), block.squared_sum[ms, mj]]),
    }
    names = {
        "segment": pl.Series(block.segments, dtype=pl.String),
        "feature": pl.Series(block.features, dtype=pl.String),
    }
    frame = pl.DataFrame({c: names[c].gather(v) if c in names else v for c, v in columns.items()})
    frame = frame.with_columns(pl.lit(role).alias("role"), pl.lit(population).alias("population"))
    return frame.select(pl.col(c).cast(t) for c, t in ATTRIBUTION_HISTOGRAMS.schema.items())


def frame_to_blocks(
    frame: pl.DataFrame, segments: Sequence[str], edges: Mapping[str, Sequence[Edges]], populations: Sequence[str]
) -> Blocks:
    """Dense blocks of every role in `edges` and every population; what has no row is zero.

    Each role has the features of its own edges, in their order. Rows of other segments or features are left out.
    """
    parts = frame.partition_by("role", "population", as_dict=True)
    none = frame.clear()
    return {
        (role, population): _block(parts.get((role, population), none), segments, edges[role])
        for role in edges
        for population in populations
    }


def _block(rows: pl.DataFrame, segments: Sequence[str], edges: Sequence[Edges]) -> HistogramBlock:
    shape = (len(segments), len(edges), max(e.cells for e in edges))
    coded = rows.with_columns(
        _positions("segment", segments), _positions("feature", [e.feature for e in edges])
    ).drop_nulls(["segment", "feature"])
    cells = coded.filter(pl.col("bin") >= 0)
    moments = coded.filter(pl.col("bin") == MOMENTS_BIN)
    at = tuple(cells[c].to_numpy().astype(np.int64) for c in ("segment", "feature", "bin"))
    at_moments = tuple(moments[c].to_numpy().astype(np.int64) for c in ("segment", "feature"))

    def dense(source: pl.DataFrame, where: tuple[np.ndarray, ...], column: str) -> np.ndarray:
        out = np.zeros(shape[: len(where)])
        out[where] = source[column].to_numpy()
        return out

    return HistogramBlock(
        segments=tuple(segments),
        features=tuple(e.feature for e in edges),
        row_count=dense(cells, at, "row_count"),
        weight=dense(cells, at, "weight"),
        weight_squared=dense(cells, at, "weight_squared"),
        phi_sum=dense(cells, at, "phi_sum"),
        abs_sum=dense(moments, at_moments, "abs_sum"),
        squared_sum=dense(moments, at_moments, "squared_sum"),
    )


def _positions(column: str, names: Sequence[str]) -> pl.Expr:
    """The column's values as positions in `names`; null where one is not among them."""
    positions = {name: i for i, name in enumerate(names)}
    return pl.col(column).replace_strict(positions, default=None, return_dtype=pl.Int64)
