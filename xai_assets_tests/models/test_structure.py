"""Checks of a model's document that no trained model of the installed XGBoost reaches."""

import copy
import math
from typing import Any

import pytest

from xai_assets.models.structure import check_structure


def learner() -> dict[str, Any]:
    """A categorical split at the root and a numeric one below it, as XGBoost up to 3.1 writes them."""
    tree = {
        "tree_param": {"num_nodes": "5", "size_leaf_vector": "1"},
        "left_children": [1, 3, -1, -1, -1],
        "right_children": [2, 4, -1, -1, -1],
        "parents": [2147483647, 0, 0, 1, 1],
        "split_indices": [1, 0, 0, 0, 0],
        "split_conditions": [math.nan, 0.5, 1.0, 2.0, 3.0],
        "default_left": [0, 0, 0, 0, 0],
        "base_weights": [0.0] * 5,
        "split_type": [1, 0, 0, 0, 0],
        "categories": [0, 2],
        "categories_nodes": [0],
        "categories_segments": [0],
        "categories_sizes": [2],
    }
    model = {"gbtree_model_param": {"num_trees": "1"}, "trees": [tree], "tree_info": [0]}
    return {
        "learner_model_param": {"num_feature": "2"},
        "gradient_booster": {"name": "gbtree", "model": model},
    }


def test_a_categorical_split_needs_no_threshold() -> None:
    check_structure(learner())


@pytest.mark.parametrize("node", [1, 2])
def test_numeric_splits_and_leaves_do(node: int) -> None:
    damaged = copy.deepcopy(learner())
    damaged["gradient_booster"]["model"]["trees"][0]["split_conditions"][node] = math.nan
    with pytest.raises(ValueError, match="not a number"):
        check_structure(damaged)
