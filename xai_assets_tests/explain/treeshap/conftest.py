"""Random small ensembles and rows, and twins of the kernels in rational arithmetic.

Belongs here: makers that take a `random.Random` (shrinking those that Hypothesis makes takes minutes; seeds do not),
and Shapley values by their definition. Does not belong here: anything the package computes with.

Test modules cannot import each other, so every function is a fixture that returns it.
"""

import functools
import itertools
import math
import random
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from xai_assets.explain.treeshap.ensemble import TreeEnsemble

# Thresholds and values of rows share one grid, so that rows often lie exactly on a threshold.
GRID = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 0.1)
ODD = (-0.0, 1e-36, -1e-36, 1e-34, 3.4e38, -3.4e38, 16777217.0, math.inf, -math.inf)
CODES = (-1.0, -0.5, 0.0, 1.0, 2.0, 3.0, 3.7, 31.0, 32.0, 40.0, 63.0, 64.0, 1e6, -7.0)

Twin = tuple[list[list[Fraction]], list[Fraction]]
"""values[output][feature] and base[output]."""


# ---------------------------------------------------------------- makers


@dataclass
class Builder:
    """Nodes in the order they are added; what is not said gets a plain default."""

    n_features: int
    n_outputs: int = 1
    precision: str = "float32"
    nodes: list[dict[str, Any]] = field(default_factory=list)
    sets: list[tuple[tuple[int, ...], bool]] = field(default_factory=list)
    starts: list[int] = field(default_factory=lambda: [0])
    outputs: list[int] = field(default_factory=list)
    base_score: list[float] = field(default_factory=list)

    def leaf(self, value: float, cover: float = 1.0) -> int:
        self.nodes.append({"value": value, "cover": cover, "feature": -1})
        return len(self.nodes) - 1

    def split(self, feature: int, threshold: float = 0.0, **more: Any) -> int:
        """A split whose children `join` sets later. `categories=(words, other_left)` makes it categorical."""
        if "categories" in more:
            self.sets.append(more.pop("categories"))
            more["category_set"] = len(self.sets) - 1
        self.nodes.append({"feature": feature, "threshold": threshold, "value": 0.0, **more})
        return len(self.nodes) - 1

    def join(self, node: int, left: int, right: int, cover: float | None = None) -> None:
        both = self.nodes[left]["cover"] + self.nodes[right]["cover"]
        self.nodes[node].update(left=left, right=right, cover=both if cover is None else cover)

    def end_tree(self, output: int = 0) -> None:
        self.starts.append(len(self.nodes))
        self.outputs.append(output)

    def build(self) -> TreeEnsemble:
        def column(name: str, default: Any, dtype: Any) -> Any:
            return np.array([node.get(name, default) for node in self.nodes], dtype)

        return TreeEnsemble(
            n_features=self.n_features,
            tree_starts=np.array(self.starts, np.int64),
            tree_output=np.array(self.outputs, np.int32),
            left=column("left", -1, np.int32),
            right=column("right", -1, np.int32),
            feature=column("feature", -1, np.int32),
            threshold=column("threshold", 0.0, np.float64),
            missing_left=column("missing_left", False, np.bool_),
            zero_is_missing=column("zero_is_missing", False, np.bool_),
            category_set=column("category_set", -1, np.int32),
            category_starts=np.cumsum([0, *(len(words) for words, _ in self.sets)]).astype(np.int64),
            category_words=np.array([w for words, _ in self.sets for w in words], np.uint32),
            category_other_left=np.array([other for _, other in self.sets], np.bool_),
            value=column("value", 0.0, np.float64),
            cover=column("cover", 0.0, np.float64),
            base_score=np.array(self.base_score or [0.0] * self.n_outputs, np.float64),
            input_precision=self.precision,
        )


def random_split(rng: random.Random, features: int, categorical: frozenset[int]) -> dict[str, Any]:
    """Arguments of `Builder.split`: numbers and sets of categories, both missing directions, zeros as missing."""
    made: dict[str, Any] = {
        "feature": rng.randrange(features),
        "threshold": rng.choice(GRID) if rng.random() < 0.85 else rng.choice((1e30, -1e30, 1e-40, 16777216.0)),
        "missing_left": rng.random() < 0.5,
        "zero_is_missing": rng.random() < 0.2,
    }
    if made["feature"] in categorical:
        words = tuple(rng.getrandbits(32) for _ in range(rng.choice((1, 1, 2))))
        made["categories"] = (words, rng.random() < 0.3)
    return made


def random_categorical(rng: random.Random, features: int) -> frozenset[int]:
    """About a third of the features; no library splits one feature both ways."""
    return frozenset(f for f in range(features) if rng.random() < 0.3)


def random_leaf(rng: random.Random, build: Builder) -> int:
    return build.leaf(rng.randint(-40, 40) / 8, 0.0 if rng.random() < 0.15 else float(rng.randint(1, 12)))


def random_subtree(
    rng: random.Random, build: Builder, features: int, depth: int, bushy: float, categorical: frozenset[int]
) -> int:
    if depth == 0 or rng.random() > bushy:
        return random_leaf(rng, build)
    node = build.split(**random_split(rng, features, categorical))
    left = random_subtree(rng, build, features, depth - 1, bushy, categorical)
    right = random_subtree(rng, build, features, depth - 1, bushy, categorical)
    # What a library stores at a node need not be the sum of its children; the game is defined by the children.
    build.join(node, left, right, cover=float(rng.randint(0, 30)) if rng.random() < 0.1 else None)
    return node


def make_ensemble(
    rng: random.Random, *, features: int = 4, trees: int = 3, depth: int = 4, outputs: int = 2, bushy: float = 0.8
) -> TreeEnsemble:
    """Up to so many trees, levels and outputs, over exactly `features` columns; the root of a tree may be a leaf."""
    k = rng.randint(1, outputs)
    build = Builder(features, k, rng.choice(("float32", "float64")))
    build.base_score = [rng.randint(-8, 8) / 4 for _ in range(k)]
    categorical = random_categorical(rng, features)
    for _ in range(rng.randint(1, trees)):
        random_subtree(rng, build, features, depth, bushy, categorical)
        build.end_tree(rng.randrange(k))
    return build.build()


def make_chain(rng: random.Random, *, depth: int, features: int, side_depth: int = 1) -> TreeEnsemble:
    """One tree of exactly `depth` levels: a chain of splits whose other children are small; features run in a circle.

    With `features >= depth` the longest path meets `depth` distinct features.
    """
    build = Builder(features)
    order = rng.sample(range(features), features)
    spine: list[int] = []
    categorical = random_categorical(rng, features)
    for level in range(depth):
        own = order[level % features]
        made = random_split(rng, features, frozenset(range(features)) if own in categorical else frozenset())
        spine.append(build.split(**{**made, "feature": own}))
    below = random_leaf(rng, build)
    for level in range(depth - 1, -1, -1):
        side = random_subtree(rng, build, features, min(side_depth, depth - 1 - level), 0.5, categorical)
        left, right = (below, side) if rng.random() < 0.5 else (side, below)
        build.join(spine[level], left, right)
        below = spine[level]
    build.end_tree()
    return build.build()


def make_rows(rng: random.Random, ensemble: TreeEnsemble, n: int) -> Any:
    """[n, d], float32 or float64 at random: ties at thresholds, NaN, ±0, huge and infinite values, unseen codes."""

    def one() -> float:
        kind = rng.random()
        if kind < 0.5:
            return rng.choice(GRID)
        if kind < 0.65:
            return math.nan
        if kind < 0.75:
            return rng.choice(ODD)
        if kind < 0.9:
            return rng.choice(CODES)
        x, to = rng.choice(GRID), rng.choice((-math.inf, math.inf))
        # A double next to a whole number is a category's code only to who does not round; tested on its own.
        return float(np.nextafter(np.float32(x), np.float32(to))) if x == int(x) else math.nextafter(x, to)

    dtype = rng.choice((np.float32, np.float64))
    with np.errstate(over="ignore"):
        return np.array([[one() for _ in range(ensemble.n_features)] for _ in range(n)], np.float64).astype(dtype)


# ---------------------------------------------------------------- twins


def goes_left(ensemble: TreeEnsemble, node: int, value: float) -> bool:
    """The rule of `TreeEnsemble`'s docstring, word for word."""
    with np.errstate(over="ignore"):
        x = float(np.float32(value)) if ensemble.input_precision == "float32" else float(value)
    if math.isnan(x) or (ensemble.zero_is_missing[node] and abs(x) <= 1e-35):
        return bool(ensemble.missing_left[node])
    chosen = int(ensemble.category_set[node])
    if chosen < 0:
        return bool(x < ensemble.threshold[node])
    words = ensemble.category_words[ensemble.category_starts[chosen] : ensemble.category_starts[chosen + 1]]
    if math.isinf(x) or not 0 <= math.trunc(x) < 32 * len(words):
        return bool(ensemble.category_other_left[chosen])
    code = math.trunc(x)
    return bool((int(words[code // 32]) >> (code % 32)) & 1)


def edge_fractions(ensemble: TreeEnsemble, node: int) -> tuple[Fraction, Fraction]:
    left, right = (Fraction(float(ensemble.cover[child])) for child in (ensemble.left[node], ensemble.right[node]))
    if left + right == 0:
        return Fraction(1, 2), Fraction(1, 2)
    return left / (left + right), right / (left + right)


def expectation(ensemble: TreeEnsemble, node: int, x: Any, known: frozenset[int]) -> Fraction:
    """v(S) of one tree: follow the row at splits on S, else average the children by cover."""
    if ensemble.left[node] < 0:
        return Fraction(float(ensemble.value[node]))
    feature, children = int(ensemble.feature[node]), (int(ensemble.left[node]), int(ensemble.right[node]))
    if feature in known:
        return expectation(ensemble, children[0 if goes_left(ensemble, node, x[feature]) else 1], x, known)
    total = Fraction(0)
    for child, fraction in zip(children, edge_fractions(ensemble, node), strict=True):
        if fraction:
            total += fraction * expectation(ensemble, child, x, known)
    return total


def leaf_value(ensemble: TreeEnsemble, root: int, x: Any) -> Fraction:
    return expectation(ensemble, root, x, frozenset(range(ensemble.n_features)))


def shapley(players: list[int], game: Callable[[frozenset[int]], Fraction]) -> dict[int, Fraction]:
    """By the definition: Σ over S without j of |S|! (n−|S|−1)! / n! (v(S ∪ j) − v(S))."""
    n = len(players)
    worth = {
        frozenset(chosen): game(frozenset(chosen))
        for r in range(n + 1)
        for chosen in itertools.combinations(players, r)
    }
    values = dict.fromkeys(players, Fraction(0))
    for coalition, alone in worth.items():
        s = len(coalition)
        for j in players:
            if j not in coalition:
                weight = Fraction(math.factorial(s) * math.factorial(n - s - 1), math.factorial(n))
                values[j] += weight * (worth[coalition | {j}] - alone)
    return values


def each_tree(ensemble: TreeEnsemble) -> Iterator[tuple[int, int, list[int]]]:
    """Root, output and used features of each tree."""
    for t in range(ensemble.n_trees):
        start, stop = int(ensemble.tree_starts[t]), int(ensemble.tree_starts[t + 1])
        used = sorted({int(f) for f in ensemble.feature[start:stop] if f >= 0})
        yield start, int(ensemble.tree_output[t]), used


def summed(ensemble: TreeEnsemble, game_of: Callable[[int], Callable[[frozenset[int]], Fraction]]) -> Twin:
    """Shapley values tree by tree: the value is linear in the game, and a feature a tree does not use gets nothing."""
    values = [[Fraction(0)] * ensemble.n_features for _ in range(ensemble.n_outputs)]
    base = [Fraction(float(b)) for b in ensemble.base_score]
    for root, output, used in each_tree(ensemble):
        game = game_of(root)
        base[output] += game(frozenset())
        for j, value in shapley(used, game).items():
            values[output][j] += value
    return values, base


def path_dependent_twin(ensemble: TreeEnsemble, x: Any) -> Twin:
    """Path-dependent Shapley values of one row, by enumerating coalitions. For trees of up to about 8 features."""
    return summed(ensemble, lambda root: lambda known: expectation(ensemble, root, x, known))


def interventional_twin(ensemble: TreeEnsemble, x: Any, background: Any) -> Twin:
    """Shapley values of one row in the game v(S) = mean over background rows z of f(x on S, z elsewhere)."""

    def game_of(root: int) -> Callable[[frozenset[int]], Fraction]:
        def game(known: frozenset[int]) -> Fraction:
            mixed = ([x[j] if j in known else z[j] for j in range(len(x))] for z in background)
            return sum((leaf_value(ensemble, root, row) for row in mixed), Fraction(0)) / len(background)

        return game

    return summed(ensemble, game_of)


def margin_twin(ensemble: TreeEnsemble, x: Any) -> list[Fraction]:
    margin = [Fraction(float(b)) for b in ensemble.base_score]
    for root, output, _ in each_tree(ensemble):
        margin[output] += leaf_value(ensemble, root, x)
    return margin


def leaf_games(ensemble: TreeEnsemble, root: int, x: Any) -> Iterator[tuple[Fraction, dict[int, tuple[Fraction, int]]]]:
    """Per leaf its value and, per distinct feature of its path, (w: product of cover fractions, m: the row follows)."""
    stack: list[tuple[int, dict[int, tuple[Fraction, int]]]] = [(root, {})]
    while stack:
        node, path = stack.pop()
        if ensemble.left[node] < 0:
            yield Fraction(float(ensemble.value[node])), path
            continue
        feature = int(ensemble.feature[node])
        w, m = path.get(feature, (Fraction(1), 1))
        left = goes_left(ensemble, node, x[feature])
        below = edge_fractions(ensemble, node)
        stack.append((int(ensemble.left[node]), {**path, feature: (w * below[0], m * left)}))
        stack.append((int(ensemble.right[node]), {**path, feature: (w * below[1], m * (not left))}))


def multiply(polynomial: list[Fraction], low: Fraction, high: Fraction) -> list[Fraction]:
    """Coefficients, lowest first, of polynomial × (low + high t)."""
    made = [low * c for c in polynomial] + [Fraction(0)]
    for i, c in enumerate(polynomial):
        made[i + 1] += high * c
    return made


def divide(polynomial: list[Fraction], low: Fraction, high: Fraction) -> list[Fraction]:
    """The inverse of `multiply`; low or high is not 0."""
    if low == 0:
        return [c / high for c in polynomial[1:]]
    made: list[Fraction] = []
    before = Fraction(0)
    for c in polynomial[:-1]:
        before = (c - high * before) / low
        made.append(before)
    return made


def path_dependent_twin_deep(ensemble: TreeEnsemble, x: Any) -> Twin:
    """The same values for deep trees: φ_j = Σ leaves v ∫₀¹ (m_j − w_j) Π_{k≠j} (w_k + (m_k − w_k) t) dt, exactly."""
    values = [[Fraction(0)] * ensemble.n_features for _ in range(ensemble.n_outputs)]
    base = [Fraction(float(b)) for b in ensemble.base_score]
    for root, output, _ in each_tree(ensemble):
        for value, path in leaf_games(ensemble, root, x):
            base[output] += value * math.prod((w for w, _ in path.values()), start=Fraction(1))
            factors = {j: (w, m - w) for j, (w, m) in path.items()}
            zeros = [j for j, factor in factors.items() if factor == (0, 0)]
            if len(zeros) > 1:
                continue  # every product without one factor still holds a zero
            product = [Fraction(1)]
            for j, factor in factors.items():
                if j not in zeros:
                    product = multiply(product, *factor)
            for j in zeros or factors:
                others = product if zeros else divide(product, *factors[j])
                integral = sum((c / (i + 1) for i, c in enumerate(others)), Fraction(0))
                values[output][j] += value * factors[j][1] * integral
    return values, base


def many(twin: Callable[..., Twin], ensemble: TreeEnsemble, X: Any, *more: Any) -> tuple[Any, Any]:
    """values float64 [n, d, k] and base float64 [k] of the exact results, rounded once at the end."""
    shape = (len(X), ensemble.n_outputs, ensemble.n_features)
    values, base = np.zeros(shape), np.zeros(ensemble.n_outputs)
    for i, x in enumerate(X):
        exact, expected = twin(ensemble, x, *more)
        values[i] = [[float(v) for v in output] for output in exact]
        base = np.array([float(b) for b in expected])
    return values.transpose(0, 2, 1), base


# ---------------------------------------------------------------- fixtures


@pytest.fixture(scope="session")
def tree_builder() -> type[Builder]:
    """`tree_builder(n_features)`: nodes by hand."""
    return Builder


@pytest.fixture(scope="session")
def random_ensemble() -> Callable[..., TreeEnsemble]:
    """`random_ensemble(rng, features=, trees=, depth=, outputs=, bushy=)`."""
    return make_ensemble


@pytest.fixture(scope="session")
def random_chain() -> Callable[..., TreeEnsemble]:
    """`random_chain(rng, depth=, features=, side_depth=)`: one deep unbalanced tree."""
    return make_chain


@pytest.fixture(scope="session")
def random_rows() -> Callable[..., Any]:
    """`random_rows(rng, ensemble, n)`."""
    return make_rows


@pytest.fixture(scope="session")
def exact_path_dependent() -> Callable[..., tuple[Any, Any]]:
    """`exact_path_dependent(ensemble, X)` -> values float64 [n, d, k], base float64 [k]; by coalitions."""
    return functools.partial(many, path_dependent_twin)


@pytest.fixture(scope="session")
def exact_path_dependent_deep() -> Callable[..., tuple[Any, Any]]:
    """The same by integration of polynomials, for deep trees: cost leaves × depth²."""
    return functools.partial(many, path_dependent_twin_deep)


@pytest.fixture(scope="session")
def exact_interventional() -> Callable[..., tuple[Any, Any]]:
    """`exact_interventional(ensemble, X, background)` -> values [n, d, k], base [k]; by coalitions."""
    return functools.partial(many, interventional_twin)


@pytest.fixture(scope="session")
def exact_margin() -> Callable[..., Any]:
    """`exact_margin(ensemble, X)` -> float64 [n, k]."""

    def margin(ensemble: TreeEnsemble, X: Any) -> Any:
        return np.array([[float(m) for m in margin_twin(ensemble, x)] for x in X]).reshape(len(X), -1)

    return margin


@pytest.fixture(scope="session")
def shap_library() -> Any:
    """shap, whose import sets off warnings of matplotlib and numpy that are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import shap
    return shap


@pytest.fixture(scope="session")
def shap_interventional(shap_library: Any) -> Callable[..., tuple[Any, Any]]:
    """`shap_interventional(model, background, X)` -> values, base; against all rows, of which shap would draw 100."""

    def values(model: Any, background: Any, X: Any) -> tuple[Any, Any]:
        masker = shap_library.maskers.Independent(background, max_samples=len(background))
        explainer = shap_library.TreeExplainer(model, masker, feature_perturbation="interventional")
        return explainer.shap_values(X, check_additivity=False), explainer.expected_value

    return values
