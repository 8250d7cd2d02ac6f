"""Compiled loops of interventional SHAP: which way rows go, tables per unit of a tree, the walk without tables.

Belongs here: every loop over rows, nodes or patterns. Does not belong here: what the values mean and the choice between
tables and walk (see `interventional`; the mathematics is in docs/treeshap.md), the split rule (see `walk`). Importing
this module imports numba.
"""

# Intrinsics take one argument more than their calls show.
# mypy: disable-error-code="call-arg, var-annotated"
# mypy: no-warn-unreachable

from typing import Any, NamedTuple

import numpy as np

from xai_assets.explain.treeshap.compiled import compiled
from xai_assets.explain.treeshap.simd import LANES, add, at_least, load, mul, select, splat, store, sub
from xai_assets.explain.treeshap.walk import goes_left

MAX_BITS = 11
"""Of a unit's index. A table holds 2^bits numbers per feature, and making it takes 3^(features of a leaf) steps."""
MAX_SLOTS = 64
"""Distinct features on a path: one bit each in a 64-bit word."""
CHUNK = 1024
"""Background rows that the walk carries down a tree at once."""
BLOCK = 256
"""Rows that the tables are read for at once: inner loops run over a block."""

# What a unit costs per row, in additions, beside one addition per feature; a table entry's share of cache misses.
UNIT_COST, SPLIT_COST, ENTRY_COST = 1.5, 0.5, 0.002


class Trees(NamedTuple):
    """Arrays of a `TreeEnsemble`; thresholds as wide as the rows they are compared with.

    plain: bool [N], numeric splits of float32 rows, sixteen of which are compared at once: where NaN goes right
    x < threshold is x ≤ limit, limit being float32 [N] next below the threshold.
    """

    left: Any
    right: Any
    feature: Any
    value: Any
    threshold: Any
    missing_left: Any
    zero_is_missing: Any
    category_set: Any
    category_starts: Any
    category_words: Any
    category_other_left: Any
    plain: Any
    limit: Any


class Paths(NamedTuple):
    """What a node knows of the path above it, int32 [N] each.

    above: distinct features on the path to the node. slot: position of the node's own feature among them, or `above`
    where it is new; repeated: it is not new. depth, parent (-1 at a root). is_unit, size, cost: see `choose_units`.
    """

    above: Any
    slot: Any
    repeated: Any
    depth: Any
    parent: Any
    is_unit: Any
    size: Any
    cost: Any


class Plan(NamedTuple):
    """Operations of the trees that have tables: tree t owns starts[t] … starts[t+1]-1.

    ops int32 [O, 10], columns below; table int64 [O], where the entries of a unit begin: [features, 2^bits] each.
    nodes, features: of the units, one after another. outputs int32 [T].
    """

    starts: Any
    outputs: Any
    ops: Any
    table: Any
    nodes: Any
    features: Any
    entries: Any


class Weights(NamedTuple):
    """gain[u, v] = (u−1)! v! / (u+v)! and loss[u, v] = u! (v−1)! / (u+v)!, 0 where a factorial has no meaning."""

    gain: Any
    loss: Any


DESCEND, UNIT = 0, 1
# Columns of an operation. SLOT of a unit: distinct features above it, whose bits come first in its index.
# PREVIOUS: depth of the last node above with the same feature, or -1.
KIND, DEPTH, NODE, SIDE, SLOT, PREVIOUS, NODES, FEATURES, FIRST_NODE, FIRST_FEATURE = range(10)
COLUMNS = 10


# ---------------------------------------------------------------- which way


@compiled()
def add_special(node: Any, worth: Any, columns: Any, rows: Any, trees: Any, out: Any, at: Any) -> None:
    """out[at + r] += worth where row r of the block goes left at a node that is not plain."""
    column = trees.feature[node] * BLOCK
    for r in range(rows):
        if goes_left(columns[column + r], node, trees):
            out[at + r] += worth


# ---------------------------------------------------------------- plan


@compiled()
def trace(root: Any, trees: Any, paths: Any, order: Any) -> Any:
    """Fill `paths` and `order` (parents first) for one tree; its nodes, depth and most distinct features of a path."""
    count, deepest, widest = 0, 0, 0
    order[0] = root
    paths.parent[root], paths.above[root], paths.depth[root] = -1, 0, 0
    pending = 1
    while count < pending:
        n = order[count]
        count += 1
        deepest, widest = max(deepest, paths.depth[n]), max(widest, paths.above[n])
        if trees.left[n] < 0:
            continue
        paths.slot[n], paths.repeated[n] = paths.above[n], 0
        up = paths.parent[n]
        while up >= 0:
            if trees.feature[up] == trees.feature[n]:
                paths.slot[n], paths.repeated[n] = paths.slot[up], 1
                break
            up = paths.parent[up]
        for child in (trees.left[n], trees.right[n]):
            order[pending] = child
            pending += 1
            paths.parent[child], paths.depth[child] = n, paths.depth[n] + 1
            paths.above[child] = paths.above[n] + 1 - paths.repeated[n]
    return count, deepest, widest


@compiled()
def unit_parts(root: Any, trees: Any, paths: Any, nodes: Any, features: Any) -> Any:
    """Inner nodes of a subtree (parents first) and distinct features of its leaves' paths; how many of each."""
    width = paths.above[root]
    up = paths.parent[root]
    while up >= 0:
        features[paths.slot[up]] = trees.feature[up]
        up = paths.parent[up]
    count = 0
    if trees.left[root] >= 0:
        nodes[0] = root
        count = 1
    at = 0
    while at < count:
        n = nodes[at]
        at += 1
        known = False
        for k in range(width):
            known = known or features[k] == trees.feature[n]
        if not known:
            features[width] = trees.feature[n]
            width += 1
        for child in (trees.left[n], trees.right[n]):
            if trees.left[child] >= 0:
                nodes[count] = child
                count += 1
    return count, width


@compiled()
def choose_units(count: Any, trees: Any, paths: Any, order: Any) -> None:
    """Cut one tree at its cheapest: is_unit[n] where the subtree of n becomes one table.

    Bottom-up: a subtree is one unit (a table over the bits of its path's features and its own nodes), or a split whose
    two sides are cut on their own. size[n] counts table entries; cost[n] is infinite where no cut keeps to MAX_BITS.
    """
    nodes, features = np.zeros(MAX_BITS + 2, np.int64), np.zeros(2 * MAX_BITS + 4, np.int64)
    root = order[0]
    below = np.zeros(count, np.int64)  # inner nodes of the subtree
    for i in range(count - 1, -1, -1):
        n = order[i]
        left, right = trees.left[n], trees.right[n]
        below[n - root] = 0 if left < 0 else 1 + below[left - root] + below[right - root]
        bits = paths.above[n] + below[n - root]
        paths.cost[n], paths.size[n], paths.is_unit[n] = np.inf, 0, 1
        if bits <= MAX_BITS:
            _, width = unit_parts(n, trees, paths, nodes, features)
            paths.size[n] = width << bits
            paths.cost[n] = UNIT_COST + width + ENTRY_COST * paths.size[n]
        if left >= 0:
            apart = SPLIT_COST + paths.cost[left] + paths.cost[right]
            if apart < paths.cost[n]:
                paths.cost[n], paths.size[n], paths.is_unit[n] = apart, paths.size[left] + paths.size[right], 0


@compiled()
def write_plan(root: Any, count: Any, trees: Any, paths: Any, plan: Any, at: Any) -> None:
    """Append the operations of one tree, depth first. `at` counts ops, nodes, features and entries so far."""
    stack = np.empty(count + 2, np.int64)
    nodes, features = np.zeros(MAX_BITS + 2, np.int64), np.zeros(2 * MAX_BITS + 4, np.int64)
    stack[0] = root
    pending = 1
    while pending > 0:
        pending -= 1
        n = stack[pending]
        up = paths.parent[n]
        if up >= 0:
            op = plan.ops[at[0]]
            at[0] += 1
            op[KIND], op[DEPTH], op[NODE], op[SIDE] = DESCEND, paths.depth[up], up, trees.left[up] != n
            same = paths.parent[up]
            while same >= 0 and trees.feature[same] != trees.feature[up]:
                same = paths.parent[same]
            op[SLOT], op[PREVIOUS] = paths.slot[up], paths.depth[same] if same >= 0 else -1
        if not paths.is_unit[n]:
            stack[pending], stack[pending + 1] = trees.right[n], trees.left[n]
            pending += 2
            continue
        within, width = unit_parts(n, trees, paths, nodes, features)
        plan.table[at[0]] = at[3]
        op = plan.ops[at[0]]
        at[0] += 1
        op[KIND], op[DEPTH], op[NODE], op[SLOT] = UNIT, paths.depth[n], n, paths.above[n]
        op[NODES], op[FEATURES], op[FIRST_NODE], op[FIRST_FEATURE] = within, width, at[1], at[2]
        plan.nodes[at[1] : at[1] + within] = nodes[:within]
        plan.features[at[2] : at[2] + width] = features[:width]
        at[1] += within
        at[2] += width
        at[3] += width << (paths.above[n] + within)


# ---------------------------------------------------------------- index of a unit


class Block(NamedTuple):
    """A block of rows, and where they are in a tree. All flat, BLOCK numbers per feature, level or unit.

    columns: the values, feature after feature. Planes, float32 (exact: an index has at most MAX_BITS bits), by depth:
    left: 1 where the row goes left at the path's node; on: 1 where it also follows all earlier edges of that node's
    feature; path: bits of the features above; sum: of the unit at hand. index: uint32, unit after unit of a tree.
    """

    columns: Any
    left: Any
    on: Any
    path: Any
    sum: Any
    index: Any


@compiled()
def block_for(X: Any, plan: Any, depth: Any) -> Any:
    """Room for rows of X in trees of such a depth; the path at the root is empty."""
    longest = 0
    for t in range(len(plan.starts) - 1):
        longest = max(longest, plan.starts[t + 1] - plan.starts[t])
    return Block(
        np.zeros(X.shape[1] * BLOCK, X.dtype),
        np.zeros((depth + 1) * BLOCK, np.float32),
        np.zeros((depth + 1) * BLOCK, np.float32),
        np.zeros((depth + 2) * BLOCK, np.float32),
        np.zeros(BLOCK, np.float32),
        np.zeros(longest * BLOCK, np.uint32),
    )


@compiled()
def fill_columns(X: Any, first: Any, rows: Any, columns: Any) -> Any:
    """Rows of X as columns; how many rows to work on, a multiple of LANES (what the last ones hold does not matter)."""
    for r in range(rows):
        for f in range(X.shape[1]):
            columns[f * BLOCK + r] = X[first + r, f]
    return (rows + LANES - 1) // LANES * LANES


@compiled()
def find_indices(t: Any, rows: Any, plan: Any, trees: Any, block: Any) -> None:
    """Fill block.index for all units of tree t: the bits of the path's features, then one per node, set for left.

    One long function on whole arrays: handing views of them to smaller ones, per node, took longer than the work.
    """
    ops, feature, plain, missing_left = plan.ops, trees.feature, trees.plain, trees.missing_left
    columns, left, on, path, total = block.columns, block.left, block.on, block.path, block.sum
    zero, one, unit = splat(np.float32(0.0)), splat(np.float32(1.0)), 0
    for o in range(plan.starts[t], plan.starts[t + 1]):
        here, slot = ops[o, DEPTH] * BLOCK, ops[o, SLOT]
        if ops[o, KIND] == DESCEND:
            node, right, previous = ops[o, NODE], ops[o, SIDE], ops[o, PREVIOUS] * BLOCK
            column = feature[node] * BLOCK
            if right:  # the left side came earlier in the same tree, and the answer is still there
                pass
            elif not plain[node]:
                left[here : here + rows] = np.float32(0.0)
                add_special(node, np.float32(1.0), columns, rows, trees, left, here)
            elif missing_left[node]:
                limit = splat(np.float32(trees.threshold[node]))
                for r in range(0, rows, LANES):
                    store(left, here + r, select(at_least(load(columns, column + r), limit), zero, one))
            else:
                limit = splat(np.float32(trees.limit[node]))
                for r in range(0, rows, LANES):
                    store(left, here + r, select(at_least(limit, load(columns, column + r)), one, zero))
            worth = splat(np.float32(1 << slot))
            for r in range(0, rows, LANES):
                follows = load(left, here + r)
                if right:
                    follows = sub(one, follows)
                change = follows
                if previous >= 0:
                    before = load(on, previous + r)
                    follows = mul(follows, before)
                    change = sub(follows, before)
                store(on, here + r, follows)
                store(path, here + BLOCK + r, add(load(path, here + r), mul(change, worth)))
            continue
        for r in range(0, rows, LANES):
            store(total, r, load(path, here + r))
        for i in range(ops[o, NODES]):
            node = plan.nodes[ops[o, FIRST_NODE] + i]
            column = feature[node] * BLOCK
            worth = splat(np.float32(1 << (slot + i)))
            if not plain[node]:
                add_special(node, np.float32(1 << (slot + i)), columns, rows, trees, total, 0)
            elif missing_left[node]:
                limit = splat(np.float32(trees.threshold[node]))
                for r in range(0, rows, LANES):
                    bit = select(at_least(load(columns, column + r), limit), zero, worth)
                    store(total, r, add(load(total, r), bit))
            else:
                limit = splat(np.float32(trees.limit[node]))
                for r in range(0, rows, LANES):
                    bit = select(at_least(limit, load(columns, column + r)), worth, zero)
                    store(total, r, add(load(total, r), bit))
        for r in range(rows):
            block.index[unit + r] = np.uint32(np.int32(total[r]))
        unit += BLOCK


@compiled()
def index_bits(op: Any) -> Any:
    """Bits of a unit's index."""
    return op[SLOT] + op[NODES]


# ---------------------------------------------------------------- tables


@compiled()
def leaf_table(width: Any, frequency: Any, weights: Any, table: Any) -> None:
    """table[α, k]: what a leaf of value 1 gives its k-th feature for a row with pattern α.

    Only background patterns β with α ∪ β = all count, so β runs over ¬α ∪ (subsets of α).
    """
    full = (1 << width) - 1
    for a in range(full + 1):
        missing = full & ~a
        v, lost = 0, 0.0
        for k in range(width):
            table[a, k] = 0.0
            v += (missing >> k) & 1
        s = a
        while True:
            share = frequency[missing | s]
            if share != 0:
                u, only = 0, a & ~s
                for k in range(width):
                    u += (only >> k) & 1
                lost += share * weights.loss[u, v]
                won = share * weights.gain[u, v]
                for k in range(width):
                    table[a, k] += won * ((only >> k) & 1)
            if s == 0:
                break
            s = (s - 1) & a
        for k in range(width):
            if (missing >> k) & 1:
                table[a, k] = -lost


@compiled()
def add_leaf_table(bits: Any, yes: Any, no: Any, counts: Any, scale: Any, weights: Any, sums: Any) -> None:
    """Add one leaf to its unit's sums [features, 2^bits].

    A row follows the leaf's k-th feature iff all bits yes[k] of its index are set and all bits no[k] are clear.
    """
    chosen, width = np.empty(len(yes), np.int64), 0
    for k in range(len(yes)):
        if yes[k] or no[k]:
            chosen[width] = k
            width += 1
    pattern, frequency = np.empty(1 << bits, np.int64), np.zeros(1 << width)
    for x in range(1 << bits):
        a = 0
        for q in range(width):
            k = chosen[q]
            a |= int((x & yes[k]) == yes[k] and (x & no[k]) == 0) << q
        pattern[x] = a
        frequency[a] += counts[x]
    table = np.empty((1 << width, width))
    leaf_table(width, frequency, weights, table)
    for q in range(width):
        row = sums[chosen[q]]
        for x in range(1 << bits):
            row[x] += scale * table[pattern[x], q]


@compiled()
def unit_table(op: Any, plan: Any, trees: Any, counts: Any, total: Any, weights: Any) -> Any:
    """float64 [features of the unit, 2^bits] from how often the background has each index."""
    given, inner, width, bits = op[SLOT], op[NODES], op[FEATURES], index_bits(op)
    nodes = plan.nodes[op[FIRST_NODE] : op[FIRST_NODE] + inner]
    features = plan.features[op[FIRST_FEATURE] : op[FIRST_FEATURE] + width]
    sums = np.zeros((width, 1 << bits))
    yes, no = np.zeros((inner + 1, width), np.int64), np.zeros((inner + 1, width), np.int64)
    for k in range(given):
        yes[0, k] = 1 << k
    if inner == 0:
        add_leaf_table(bits, yes[0], no[0], counts, trees.value[op[NODE]] / total, weights, sums)
    for i in range(inner):  # parents first: what a row must satisfy to reach node i is known
        column = 0
        while features[column] != trees.feature[nodes[i]]:
            column += 1
        for side in range(2):
            child = trees.left[nodes[i]] if side == 0 else trees.right[nodes[i]]
            own_yes, own_no = yes[i].copy(), no[i].copy()
            (own_yes if side == 0 else own_no)[column] |= 1 << (given + i)
            if trees.left[child] < 0:
                add_leaf_table(bits, own_yes, own_no, counts, trees.value[child] / total, weights, sums)
            else:
                j = i + 1
                while nodes[j] != child:
                    j += 1
                yes[j], no[j] = own_yes, own_no
    return sums


@compiled()
def count_indices(t: Any, plan: Any, trees: Any, background: Any, block: Any) -> Any:
    """How often the background has each index, unit after unit of one tree."""
    ops = plan.ops[plan.starts[t] : plan.starts[t + 1]]
    size = 0
    for o in range(len(ops)):
        size += (1 << index_bits(ops[o])) if ops[o, KIND] == UNIT else 0
    counts = np.zeros(size, np.int64)
    for start in range(0, len(background), BLOCK):
        rows = min(BLOCK, len(background) - start)
        find_indices(t, fill_columns(background, start, rows, block.columns), plan, trees, block)
        at, unit = 0, 0
        for o in range(len(ops)):
            if ops[o, KIND] == UNIT:
                for r in range(rows):
                    counts[at + np.int64(block.index[unit + r])] += 1
                unit += BLOCK
                at += 1 << index_bits(ops[o])
    return counts


@compiled()
def build_tables(first: Any, last: Any, plan: Any, trees: Any, background: Any, deepest: Any, weights: Any) -> None:
    """Fill the entries of trees first … last-1 of the plan."""
    block = block_for(background, plan, deepest)
    for t in range(first, last):
        counts = count_indices(t, plan, trees, background, block)
        at = 0
        for o in range(plan.starts[t], plan.starts[t + 1]):
            op = plan.ops[o]
            if op[KIND] == UNIT:
                n = 1 << index_bits(op)
                sums = unit_table(op, plan, trees, counts[at : at + n], len(background), weights)
                at += n
                for k in range(op[FEATURES]):
                    for x in range(n):
                        plan.entries[plan.table[o] + k * n + x] = sums[k, x]


@compiled()
def add_tables(X: Any, plan: Any, trees: Any, deepest: Any, phi: Any) -> None:
    """phi[i, o, f] += the tables' values, float64, in the order of the trees."""
    ops, entries, features = plan.ops, plan.entries, plan.features
    block, d = block_for(X, plan, deepest), phi.shape[2]
    index, sums = block.index, np.empty(phi.shape[1] * d * BLOCK)
    for start in range(0, len(X), BLOCK):
        rows = min(BLOCK, len(X) - start)
        wide = fill_columns(X, start, rows, block.columns)
        sums[:] = 0.0
        for t in range(len(plan.starts) - 1):
            find_indices(t, wide, plan, trees, block)
            unit = np.uint64(0)
            for o in range(plan.starts[t], plan.starts[t + 1]):
                if ops[o, KIND] != UNIT:
                    continue
                n = 1 << (ops[o, SLOT] + ops[o, NODES])
                for k in range(ops[o, FEATURES]):
                    feature = features[ops[o, FIRST_FEATURE] + k]
                    # Unsigned, so that no position needs a look at its sign.
                    to, own = np.uint64((plan.outputs[t] * d + feature) * BLOCK), np.uint64(plan.table[o] + k * n)
                    for r in range(np.uint64(rows)):
                        sums[to + r] += entries[own + index[unit + r]]
                unit += np.uint64(BLOCK)
        for c in range(phi.shape[1]):
            for f in range(d):
                for r in range(rows):
                    phi[start + r, c, f] += sums[(c * d + f) * BLOCK + r]


# ---------------------------------------------------------------- walk


class State(NamedTuple):
    """What the walk remembers per level: background rows still of interest, their patterns, the explained pattern."""

    rows: Any
    patterns: Any
    counts: Any
    own: Any
    edges: Any
    levels: Any
    path: Any
    won: Any


@compiled()
def ones_of(x: Any) -> Any:
    """Number of set bits of a 64-bit word; the compiler knows this pattern as one instruction."""
    x = x - ((x >> np.uint64(1)) & np.uint64(0x5555555555555555))
    x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
    x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((x * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled()
def step(pattern: Any, bit: Any, follows: Any, repeated: Any) -> Any:
    """A pattern after one more edge: the feature's bit stays only where all its edges are followed."""
    if not follows:
        return pattern & ~bit
    return pattern if repeated else pattern | bit


@compiled()
def keep(d: Any, column: Any, node: Any, side: Any, required: Any, repeated: Any, bit: Any, trees: Any, s: Any) -> Any:
    """Carry the background rows of level d down one edge; how many are left.

    Where the explained row misses a feature, background rows that miss it too give nothing at any leaf below.
    """
    rows, patterns, rows_below, patterns_below = s.rows[d], s.patterns[d], s.rows[d + 1], s.patterns[d + 1]
    numeric = trees.category_set[node] < 0 and not trees.zero_is_missing[node]
    threshold, missing_left, here, kept = trees.threshold[node], trees.missing_left[node], side == 0, 0
    for i in range(s.counts[d]):
        x, p = column[rows[i]], patterns[i]
        # The rule of goes_left, without asking once more per row what kind of node this is: three times as fast.
        left = (x < threshold or (missing_left and x != x)) if numeric else goes_left(x, node, trees)
        after = p & ~bit if left != here else (p if repeated else p | bit)
        rows_below[kept], patterns_below[kept] = rows[i], after
        kept += int(not required or (after & bit) != 0)
    return kept


@compiled()
def add_leaf(patterns: Any, own: Any, width: Any, worth: Any, weights: Any, s: Any, phi: Any) -> None:
    """The sum over background patterns at one leaf."""
    v = width - ones_of(own)
    lost = 0.0
    s.won[:width] = 0.0
    for i in range(len(patterns)):
        only = own & ~patterns[i]
        u = ones_of(only)
        lost += weights.loss[u, v]
        gain = weights.gain[u, v]
        k = 0
        while only != 0:
            if only & np.uint64(1):
                s.won[k] += gain
            only >>= np.uint64(1)
            k += 1
    for k in range(width):
        phi[s.path[k]] += worth * s.won[k] if (own >> np.uint64(k)) & np.uint64(1) else -worth * lost


@compiled()
def walk_tree(
    x: Any, root: Any, trees: Any, paths: Any, columns: Any, rows: Any, total: Any, weights: Any, s: Any, phi: Any
) -> None:
    """Add one tree's values for one row against the background rows in `columns`; unreachable leaves are not seen."""
    for i in range(rows):
        s.rows[0, i], s.patterns[0, i] = i, 0
    s.counts[0], s.own[0] = rows, 0
    # Every entry is an edge, 2 · node + side: a node stands there twice, its left side on top.
    s.edges[0], s.edges[1], s.levels[0], s.levels[1], pending = 2 * root + 1, 2 * root, 0, 0, 2
    while pending > 0:
        pending -= 1
        n, side, d = s.edges[pending] >> 1, s.edges[pending] & 1, s.levels[pending]
        f, slot, repeated = trees.feature[n], paths.slot[n], paths.repeated[n]
        s.path[slot] = f
        bit = np.uint64(1) << np.uint64(slot)
        own = step(s.own[d], bit, goes_left(x[f], n, trees) == (side == 0), repeated)
        kept = keep(d, columns[f], n, side, (own & bit) == 0, repeated, bit, trees, s)
        if kept == 0:
            continue
        child = trees.left[n] if side == 0 else trees.right[n]
        if trees.left[child] < 0:
            add_leaf(s.patterns[d + 1, :kept], own, paths.above[child], trees.value[child] / total, weights, s, phi)
            continue
        s.counts[d + 1], s.own[d + 1] = kept, own
        s.edges[pending], s.edges[pending + 1] = 2 * child + 1, 2 * child
        s.levels[pending], s.levels[pending + 1] = d + 1, d + 1
        pending += 2


@compiled()
def add_walks(
    X: Any, roots: Any, outputs: Any, trees: Any, paths: Any, background: Any, deepest: Any, weights: Any, phi: Any
) -> None:
    """phi[i, o, f] += the values of the trees at `roots` (none of them a single leaf)."""
    chunk = min(CHUNK, len(background))
    columns = np.empty((background.shape[1], chunk), background.dtype)
    state = State(
        rows=np.zeros((deepest + 2, chunk), np.int32),
        patterns=np.zeros((deepest + 2, chunk), np.uint64),
        counts=np.zeros(deepest + 2, np.int64),
        own=np.zeros(deepest + 2, np.uint64),
        edges=np.zeros(2 * deepest + 4, np.int64),
        levels=np.zeros(2 * deepest + 4, np.int64),
        path=np.zeros(MAX_SLOTS, np.int64),
        won=np.zeros(MAX_SLOTS),
    )
    for start in range(0, len(background), chunk):
        rows = min(chunk, len(background) - start)
        for i in range(rows):
            for f in range(background.shape[1]):
                columns[f, i] = background[start + i, f]
        for t in range(len(roots)):
            for i in range(len(X)):
                into = phi[i, outputs[t]]
                walk_tree(X[i], roots[t], trees, paths, columns, rows, len(background), weights, state, into)
