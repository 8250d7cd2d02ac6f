"""Which requests of a day are drawn: stable keys, reservoirs that keep the smallest of them, shares of a budget.

Belongs here: a random sample that is the same in every run, on every machine, in any order of rows, in one pass.
Does not belong here: what makes a stratum, reading and writing rows (see `queries`), who sets a budget (see `flow`).
"""

import duckdb
import polars as pl
import pyarrow as pa

from xai_assets.errors import LakeError

KEY = "__key"


def stable_keys(request_ids: pl.Series, seed: int) -> pl.Series:
    """First 8 bytes (little-endian) of the MD5 of `seed:request_id`; in DuckDB, 10 times faster than hashlib.

    >>> stable_keys(pl.Series(["a", "b"]), seed=0).dtype
    UInt64
    """
    ids = pa.table({"id": request_ids.to_arrow(compat_level=pl.CompatLevel.oldest())})
    with duckdb.connect() as connection:
        connection.register("ids", ids)
        keys = connection.execute("SELECT md5_number_upper(? || ':' || id) FROM ids", [str(seed)]).to_arrow_table()
    series = pl.from_arrow(keys.column(0))
    assert isinstance(series, pl.Series)
    return series


class Reservoir:
    """The `capacity` rows with the smallest keys of all that were offered, in one pass.

    Bottom-k sampling (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007): keys are hashes of ids
    with a seed, so any n ≤ capacity smallest are a simple random sample without replacement, and the same one
    whatever the order of the rows and the size of the batches. Ties of keys (about N²/2⁶⁵) go by request id.

    Memory is that of 2 × capacity rows and one batch, however many rows are offered.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.offered = 0
        self._highest: int | None = None
        self._held: list[pa.Table] = []
        self._rows = 0

    def offer(self, rows: pl.DataFrame, keys: pl.Series) -> None:
        """Rows with a column `request_id`, and the key of each; every call has the same columns."""
        self.offered += rows.height
        candidates = rows.with_columns(keys.alias(KEY))
        if self._highest is not None:
            candidates = candidates.filter(pl.col(KEY) <= self._highest)
        self._hold(candidates)
        if self._rows > 2 * self.capacity:
            self._shrink()

    def smallest(self, count: int) -> pl.DataFrame:
        """The `count` rows with the smallest keys (fewer where fewer were offered), by rising key.

        Columns as offered; without any offer, none. Raises LakeError where `count` exceeds the capacity.
        """
        if count > self.capacity:
            raise LakeError(
                "a reservoir cannot give what it did not keep", expected=f"≤ {self.capacity}", found=str(count)
            )
        if not self._held:
            return pl.DataFrame()
        return self._sorted().head(count).drop(KEY)

    def _hold(self, rows: pl.DataFrame) -> None:
        # As Arrow's plain text: polars' text points into the batch it was read from, and a few rows of each batch
        # would keep all of them in memory.
        self._held.append(rows.to_arrow(compat_level=pl.CompatLevel.oldest()))
        self._rows += rows.height

    def _sorted(self) -> pl.DataFrame:
        frame = pl.from_arrow(pa.concat_tables(self._held))
        assert isinstance(frame, pl.DataFrame)
        return frame.sort(KEY, "request_id")

    def _shrink(self) -> None:
        kept = self._sorted().head(self.capacity)
        self._held, self._rows = [], 0
        self._highest = int(kept[KEY][-1])
        self._hold(kept)


def shares_of_budget(budget: int, divergent_share: float, divergent: int, rest: int) -> tuple[int, int]:
    """How many of the divergent rows and of the rest are taken.

    Divergent rows up to `divergent_share` of the budget, of the rest what remains; what one stratum does not need the
    other gets. Together min(budget, divergent + rest). From a budget of two on neither stratum is left out: weights of
    the drawn rows could not stand for it.

    >>> shares_of_budget(100, 0.5, divergent=400, rest=600)
    (50, 50)
    >>> shares_of_budget(100, 0.5, divergent=10, rest=600)
    (10, 90)
    >>> shares_of_budget(100, 0.5, divergent=400, rest=20)
    (80, 20)
    >>> shares_of_budget(50, 0.01, divergent=400, rest=600)
    (1, 49)
    """
    first = min(divergent, max(int(divergent_share * budget), min(1, budget - 1)))
    others = min(rest, budget - first)
    return min(divergent, budget - others), others
