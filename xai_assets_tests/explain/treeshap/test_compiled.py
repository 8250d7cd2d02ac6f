"""Compiled code is kept: a second process does not compile again; without a cache folder it still works."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ONE_ROW = """
import logging, sys, time
import numpy as np
logging.basicConfig()
from numba.core import event
from xai_assets.explain.treeshap import TreeEnsemble, TreeShap
zeros, none = np.zeros(3), np.full(3, -1, np.int32)
ensemble = TreeEnsemble(
    n_features=1, tree_starts=np.array([0, 3]), tree_output=np.zeros(1, np.int32), left=np.array([1, -1, -1], np.int32),
    right=np.array([2, -1, -1], np.int32), feature=np.array([0, -1, -1], np.int32), threshold=zeros,
    missing_left=np.zeros(3, bool), zero_is_missing=np.zeros(3, bool), category_set=none,
    category_starts=np.zeros(1, np.int64), category_words=np.zeros(0, np.uint32), category_other_left=np.zeros(0, bool),
    value=np.array([0.0, -1.0, 3.0]), cover=np.array([4.0, 2.0, 2.0]), base_score=np.zeros(1),
)
with event.install_recorder("numba:compile") as compilations:
    values = TreeShap(ensemble).explain(np.array([[1.0]], np.float32)).values
assert values.tolist() == [[2.0]], values
print(len(compilations.buffer))
"""


def compilations(environment: dict[str, str], code: str = ONE_ROW) -> tuple[int, str]:
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return int(run.stdout.split()[-1]), run.stderr


@pytest.mark.slow
def test_a_second_process_reads_what_the_first_one_compiled_unless_a_module_changed(tmp_path: Path) -> None:
    """The kernel has constants of other modules built in: machine code of before must not meet programs of after."""
    cache = {"NUMBA_CACHE_DIR": str(tmp_path)}
    first, said = compilations(cache)
    assert first > 0
    assert said == ""
    assert compilations(cache) == (0, "")
    changed = ONE_ROW.replace(
        "from xai_assets.explain.treeshap import",
        "from xai_assets.explain.treeshap import compiled\ncompiled._SOURCES = 'other'\n"
        "from xai_assets.explain.treeshap import",
        1,
    )
    assert compilations(cache, changed)[0] == first


@pytest.mark.slow
def test_without_a_cache_folder_it_works_and_says_so(tmp_path: Path) -> None:
    """Numba finds no place for its cache: what a read-only installation without a home looks like."""
    code = (
        "from numba.core import caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "caching.CodeLibraryCacheImpl._locator_classes = []\n" + ONE_ROW
    )
    compiled, said = compilations({}, code)
    assert compiled > 0
    assert "cannot be kept" in said
    assert "NUMBA_CACHE_DIR" in said
