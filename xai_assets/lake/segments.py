"""From context columns to segment names and codes.

Belongs here: how a column's values become at most K named segments plus `other` and `(missing)`.
Does not belong here: statistics per segment.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from xai_assets.records import OVERALL

OTHER, MISSING = "(other)", "(missing)"


def top_segments(counts: Mapping[str, Mapping[str | None, int]], top: int) -> tuple[str, ...]:
    """Names of all segments: `overall`, then per column its `top` most frequent values, `(other)`, `(missing)`.

    counts: per column, requests per value over the reference days. Ties go to the alphabetically first.

    >>> top_segments({"region": {"south": 5, "north": 9, None: 1}}, top=1)
    ('overall', 'region=north', 'region=(other)', 'region=(missing)')
    """
    names = [OVERALL]
    for column, values in counts.items():
        present = [(v, n) for v, n in values.items() if v is not None]
        ranked = sorted(present, key=lambda item: (-item[1], item[0]))[:top]
        names += [f"{column}={v}" for v, _ in ranked] + [f"{column}={OTHER}", f"{column}={MISSING}"]
    return tuple(names)


def value_counts(frame: pl.DataFrame, columns: Sequence[str]) -> dict[str, dict[str | None, int]]:
    """Requests per value of each column."""
    return {c: dict(frame.select(pl.col(c).cast(pl.String)).group_by(c).len().iter_rows()) for c in columns}


def segment_codes(frame: pl.DataFrame, columns: Sequence[str], segments: Sequence[str]) -> np.ndarray:
    """int32 [n, 1 + C]: position in `segments` of `overall` and of each column's value.

    A value that has no segment of its own counts as `(other)`, null as `(missing)`.
    """
    position = {name: i for i, name in enumerate(segments)}
    codes = np.zeros((frame.height, 1 + len(columns)), dtype=np.int32)
    codes[:, 0] = position[OVERALL]
    for i, column in enumerate(columns):
        known = {
            name.removeprefix(f"{column}="): code for name, code in position.items() if name.startswith(f"{column}=")
        }
        values = frame[column].cast(pl.String)
        mapped = values.replace_strict(known, default=position[f"{column}={OTHER}"], return_dtype=pl.Int32)
        codes[:, i + 1] = mapped.fill_null(position[f"{column}={MISSING}"]).to_numpy()
        codes[values.is_null().to_numpy(), i + 1] = position[f"{column}={MISSING}"]
    return codes
