"""Feature values as the float32 matrix that a model and the input histograms read.

Belongs here: the one rule that turns stored columns into numbers.
Does not belong here: validation of source rows (see `lake`), fitting anything: an encoding refitted on each batch
would manufacture drift.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl

from xai_assets.errors import ModelError, nearest
from xai_assets.records import FeatureSpec, Float32

Unseen = Literal["missing", "own_code"]


def encode_features(frame: pl.DataFrame, features: Sequence[FeatureSpec], unseen: Unseen = "missing") -> Float32:
    """Features as numbers: numeric as they are, boolean 0/1, categorical as the level's position.

    Parameters
    ----------
    frame
        One column per feature, under the feature's name. Null and NaN both mean missing.
    features
        Order of the columns of the result, and the levels of the categorical ones.
    unseen
        What a level that is not in `FeatureSpec.categories` becomes: NaN, as the model would see it
        ("missing"), or the code after the last level, so that it can be counted ("own_code").

    Returns
    -------
    float32 [n, len(features)], C-contiguous; NaN where missing.

    Raises
    ------
    ModelError
        A column is not in the frame, its values are not what its kind says, or a categorical feature has no levels.

    >>> frame = pl.DataFrame({"age": [30, None], "home": ["own", "yurt"]})
    >>> specs = (FeatureSpec("age", "numeric"), FeatureSpec("home", "categorical", ("rent", "own")))
    >>> encode_features(frame, specs).tolist()
    [[30.0, 1.0], [nan, nan]]
    >>> encode_features(frame, specs, unseen="own_code").tolist()
    [[30.0, 1.0], [nan, 2.0]]
    """
    for feature in features:
        if feature.name not in frame.columns:
            raise ModelError(
                f"feature '{feature.name}' is not in the data", next_step=nearest(feature.name, frame.columns)
            )
    if not features:
        return np.empty((frame.height, 0), np.float32)
    try:
        encoded = frame.select(_expression(feature, unseen) for feature in features)
    except (pl.exceptions.InvalidOperationError, pl.exceptions.ComputeError, pl.exceptions.SchemaError) as error:
        raise ModelError(
            "a feature's values are not what its kind says",
            expected=", ".join(f"{f.name} ({f.kind})" for f in features),
            found=str(error).splitlines()[0],
            next_step="correct the feature's kind in the configuration, or the values in the source",
        ) from error
    return np.ascontiguousarray(encoded.to_numpy(order="c"), dtype=np.float32)


def _expression(feature: FeatureSpec, unseen: Unseen) -> pl.Expr:
    column = pl.col(feature.name)
    if feature.kind != "categorical":
        return column.cast(pl.Float32)
    if not feature.categories:
        raise ModelError(
            f"categorical feature '{feature.name}' has no levels",
            expected="levels, in the order of the model's codes",
            next_step=f"list them in the configuration: features.categorical.{feature.name}: [level, ...]",
        )
    text = column.cast(pl.String)
    code = text.cast(pl.Enum(feature.categories), strict=False).to_physical().cast(pl.Float32)
    if unseen == "own_code":
        code = pl.when(text.is_not_null()).then(code.fill_null(float(len(feature.categories))))
    return code.alias(feature.name)
