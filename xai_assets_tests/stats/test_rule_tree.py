"""The tree against scikit-learn's and against ten obvious lines."""

import numpy as np
import pytest

from xai_assets.stats.rule_tree import grow
from xai_assets.stats.rules import LevelColumn, NumberColumn, SliceColumn, rule_mask, rule_sentence


def numbers(rows: int, count: int, seed: int) -> list[SliceColumn]:
    rng = np.random.default_rng(seed)
    return [NumberColumn(f"x{j}", rng.normal(size=rows).astype(np.float32).astype(np.float64)) for j in range(count)]


@pytest.mark.parametrize("seed", range(4))
def test_on_numbers_it_is_the_tree_of_scikit_learn(seed: int) -> None:
    from sklearn.tree import DecisionTreeRegressor

    rng = np.random.default_rng(seed)
    columns = numbers(1500, 4, seed)
    X = np.column_stack([c.values for c in columns])  # type: ignore[union-attr]
    y = np.abs(rng.normal(size=1500) * 0.2 + (X[:, 0] < 0.3) * (X[:, 1] > -0.5) + 0.4 * (X[:, 2] > 1))
    weights = rng.uniform(1, 3, 1500)
    tree = grow(columns, y, weights, max_depth=3, min_rows=50, give=0.0)
    oracle = DecisionTreeRegressor(max_depth=3, min_samples_leaf=50, random_state=0).fit(X, y, sample_weight=weights)
    leaves = np.empty(1500)
    for i, leaf in enumerate(tree.leaves()):
        leaves[rule_mask(leaf.rule, columns)] = i
    theirs = oracle.apply(X)
    assert len(tree.leaves()) == oracle.get_n_leaves()
    assert len({*zip(leaves.tolist(), theirs.tolist(), strict=True)}) == oracle.get_n_leaves(), "the same partition"


def test_leaves_share_the_rows_among_them_whatever_is_missing() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(size=2000)
    gaps = np.where(rng.random(2000) < 0.3, np.nan, x)
    levels = LevelColumn("c", rng.integers(-1, 4, 2000), ("a", "b", "c", "d"))
    columns: list[SliceColumn] = [NumberColumn("x", gaps), levels]
    y = np.isnan(gaps) * 1.0 + (levels.codes == 2) * 2.0 + (gaps < 0.4) * 0.5 + rng.normal(0, 0.1, 2000)
    tree = grow(columns, y, np.ones(2000), max_depth=3, min_rows=30)
    hits = sum(rule_mask(leaf.rule, columns).astype(int) for leaf in tree.leaves())
    assert (hits == 1).all()
    assert all(rule_mask(leaf.rule, columns).sum() >= 30 for leaf in tree.leaves())
    assert any("missing" in rule_sentence(leaf.rule) for leaf in tree.leaves())


def test_what_is_missing_alone_can_be_the_rule() -> None:
    rng = np.random.default_rng(6)
    x = np.where(rng.random(1000) < 0.2, np.nan, rng.normal(size=1000))
    tree = grow([NumberColumn("x", x)], np.isnan(x) * 1.0, np.ones(1000), max_depth=1, min_rows=50)
    assert [rule_sentence(leaf.rule) for leaf in tree.leaves()] == ["x is present", "x is missing"]
    text = LevelColumn("c", np.where(np.isnan(x), -1, 0), ("only",))
    tree = grow([text], np.isnan(x) * 1.0, np.ones(1000), max_depth=1, min_rows=50)
    assert [rule_sentence(leaf.rule) for leaf in tree.leaves()] == ["c is missing", "c = only"]


def test_an_infinity_goes_where_what_is_missing_goes() -> None:
    rng = np.random.default_rng(7)
    x = rng.normal(size=600)
    x[:100] = np.inf
    tree = grow([NumberColumn("x", x)], np.isinf(x) * 1.0, np.ones(600), max_depth=1, min_rows=50)
    assert [rule_sentence(leaf.rule) for leaf in tree.leaves()] == ["x is present", "x is missing"]


def test_columns_without_anything_to_split_by_make_no_tree() -> None:
    rng = np.random.default_rng(8)
    y = rng.normal(size=500)
    columns: list[SliceColumn] = [
        NumberColumn("constant", np.ones(500)),
        NumberColumn("never_known", np.full(500, np.nan)),
        LevelColumn("one_level", np.zeros(500, np.int64), ("a",)),
        LevelColumn("no_level", np.full(500, -1), ()),
        LevelColumn("identifier", np.arange(500), tuple(map(str, range(500)))),
    ]
    assert grow(columns, y, np.ones(500), min_rows=20).parts == ()
    assert grow([], y, np.ones(500), min_rows=20).parts == ()


def best_split_of_two_groups(x: np.ndarray, y: np.ndarray, second: np.ndarray, least: int) -> tuple[float, float]:
    """The obvious twin: every cut, four means."""
    best = (-np.inf, np.nan)
    for cut in np.unique(x)[1:]:
        sides = [x < cut, x >= cut]
        counts = [[(s & g).sum() for g in (~second, second)] for s in sides]
        if min(map(min, counts)) < least:
            continue
        d = [y[s & ~second].mean() - y[s & second].mean() for s in sides]
        h = [1 / (1 / n + 1 / m) for n, m in counts]
        best = max(best, (h[0] * h[1] / sum(h) * (d[0] - d[1]) ** 2, float(cut)))
    return best


def test_a_cut_gives_up_a_hundredth_of_its_gain_to_be_round() -> None:
    rng = np.random.default_rng(3)
    x = rng.lognormal(10.6, 0.5, 4000)
    y = (x < 30_000) * 0.2 + rng.normal(0, 0.1, 4000)
    cuts = {
        give: grow([NumberColumn("x", x)], y, np.ones(4000), max_depth=1, min_rows=40, give=give) for give in (0, 0.01)
    }
    exact, rounded = (rule_sentence(tree.parts[0].rule) for tree in cuts.values())
    assert rounded == "x < 30,000" != exact


@pytest.mark.parametrize("seed", range(3))
def test_with_a_second_group_the_difference_of_means_is_split(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, second = rng.normal(size=800), rng.random(800) < 0.4
    y = 3 * x + rng.normal(size=800) + (~second & (x > 0.5)) * 2.0  # both groups rise with x: not a difference
    _, cut = best_split_of_two_groups(x, y, second, 40)
    tree = grow([NumberColumn("x", x)], y, np.ones(800), second, max_depth=1, min_rows=40, min_second_rows=40, give=0)
    left = rule_mask(tree.parts[0].rule, [NumberColumn("x", x)])
    assert (left == (x < cut)).all()
    alone = grow([NumberColumn("x", x)], y, np.ones(800), max_depth=1, min_rows=40)
    assert (rule_mask(alone.parts[0].rule, [NumberColumn("x", x)]) != left).any()


def test_neither_the_order_of_rows_nor_of_columns_nor_the_unit_of_weights_matters() -> None:
    rng = np.random.default_rng(9)
    columns = [*numbers(900, 3, 9), LevelColumn("c", rng.integers(0, 3, 900), ("a", "b", "c"))]
    y, weights = rng.normal(size=900), rng.uniform(1, 2, 900)
    wanted = [leaf.rule for leaf in grow(columns, y, weights, min_rows=40).leaves()]
    assert len(wanted) > 4
    order = rng.permutation(900)
    moved = [c.taken(order) for c in columns]  # type: ignore[arg-type]
    assert [leaf.rule for leaf in grow(moved, y[order], weights[order], min_rows=40).leaves()] == wanted
    assert [leaf.rule for leaf in grow(columns[::-1], y, 7 * weights, min_rows=40).leaves()] == wanted
