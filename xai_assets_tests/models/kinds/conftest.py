"""Rows that every library is trained on: a numeric column with missing values, a categorical one, a label.

Numbers are float32 values, so that libraries that compare float64 see the same as the platform's matrices.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from xai_assets.errors import ModelError
from xai_assets.models.artifact import load_model
from xai_assets.records import FeatureSpec

LEVELS = ("pear", "apple", "fig")  # not in alphabetical order, so that sorting would show


@dataclass(frozen=True)
class Rows:
    """table: as the platform stores it; frame: as a user would train on it (fruit is a pandas category)."""

    table: pl.DataFrame
    frame: pd.DataFrame
    label: np.ndarray
    features: tuple[FeatureSpec, ...]
    listed: tuple[FeatureSpec, ...]

    @property
    def numbers(self) -> np.ndarray:
        """size and weight without missing values, float64 [400, 2]."""
        return np.nan_to_num(self.table.select("size", "weight").to_numpy())

    @property
    def numeric(self) -> tuple[FeatureSpec, ...]:
        return (self.features[0], self.features[2])

    def text(self, missing: Any) -> pd.DataFrame:
        """The frame with fruit as text."""
        fruit = self.frame["fruit"].astype(object)
        return self.frame.assign(fruit=fruit.where(fruit.notna(), missing))


@pytest.fixture(scope="session")
def rows() -> Rows:
    rng = np.random.default_rng(5)
    n = 400
    size, weight = (rng.normal(size=n).astype(np.float32).astype(float) for _ in range(2))
    codes = rng.integers(0, 3, n)
    label = (size * weight + 1.5 * (codes == 0) + rng.normal(size=n) > 0.5).astype(int)
    size[rng.random(n) < 0.1] = np.nan
    codes[rng.random(n) < 0.1] = -1
    fruit = pd.Categorical.from_codes(codes, categories=list(LEVELS))
    texts = [None if c < 0 else LEVELS[c] for c in codes]
    features = (FeatureSpec("size", "numeric"), FeatureSpec("fruit", "categorical"), FeatureSpec("weight", "numeric"))
    return Rows(
        table=pl.DataFrame({"size": size, "fruit": texts, "weight": weight}),
        frame=pd.DataFrame({"size": size, "fruit": fruit, "weight": weight}),
        label=label,
        features=features,
        listed=(features[0], FeatureSpec("fruit", "categorical", LEVELS), features[2]),
    )


@pytest.fixture
def refused_wherever_it_ends(tmp_path: Path) -> Callable[..., None]:
    """Cuts a file at many places; each must be refused with an error of ours."""

    def check(raw: bytes, name: str, features: tuple[FeatureSpec, ...], *, cuts: int = 25) -> None:
        place = tmp_path / name
        for end in (*np.linspace(0, len(raw) - 1, cuts).astype(int), len(raw) - 1):
            place.write_bytes(raw[:end])
            with pytest.raises(ModelError, match=r"damaged|is not a model file that can be read"):
                load_model(place, features=features)
        place.write_bytes(raw)
        load_model(place, features=features)  # the healthy twin

    return check
