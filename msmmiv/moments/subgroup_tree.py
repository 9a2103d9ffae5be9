"""A tree of subgroups: what it splits on, how it is grown, how it is pruned, and its leaves in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.errors import ColumnError, MissingExtraError
from msmmiv.linalg import Array, Codes
from msmmiv.moments.labels import natural_order, plain, plain_labels

__all__ = ["Feature", "Tree", "features_of", "grow", "leaf_codes", "prune"]

#: A column of labels with more levels than this makes no subgroups that a reader could name.
_MANY_LEVELS = 15


@dataclass(frozen=True, eq=False)
class Feature:
    """One column that the tree may split: numbers, or an indicator of a label.

    Attributes
    ----------
    name : str
        The column of the data.
    values : (n,) array
    below, above : str
        The two sides in words, where there are only two; empty for a measurement.
    whole : bool
        Only whole numbers, so that a threshold of 30.5 reads 30.
    """

    name: str
    values: Array
    below: str = ""
    above: str = ""
    whole: bool = False


@dataclass(frozen=True, eq=False)
class Tree:
    """Binary splits: node i sends rows with ``x[:, feature[i]] <= threshold[i]`` to ``left[i]``; -1 ends a branch."""

    left: Codes
    right: Codes
    feature: Codes
    threshold: Array

    def leaf(self, x: Array) -> Codes:
        """(n,) node in which each row ends."""
        at = np.zeros(len(x), dtype=np.int64)
        while True:
            on = np.flatnonzero(self.left[at] >= 0)
            if not len(on):
                return at
            node = at[on]
            down = x[on, self.feature[node]] <= self.threshold[node]
            at[on] = np.where(down, self.left[node], self.right[node])

    def leaves(self, node: int = 0) -> list[int]:
        """Ends of the branches below a node, from left to right."""
        if self.left[node] < 0:
            return [node]
        return [*self.leaves(int(self.left[node])), *self.leaves(int(self.right[node]))]

    def cut(self, node: int) -> Tree:
        """The tree that ends at a node."""
        left, right = self.left.copy(), self.right.copy()
        left[node] = right[node] = -1
        return Tree(left, right, self.feature, self.threshold)

    def without(self, leaf: int) -> Tree:
        """The tree without the split that made a leaf: its people go where the other side of that split goes."""
        parent = self.parents()[leaf]
        other = int(self.right[parent] if self.left[parent] == leaf else self.left[parent])
        parts = [self.left.copy(), self.right.copy(), self.feature.copy()]
        for part in parts:
            part[parent] = part[other]
        threshold = self.threshold.copy()
        threshold[parent] = threshold[other]
        return Tree(parts[0], parts[1], parts[2], threshold)

    def parents(self) -> dict[int, int]:
        """Parent of every node that can be reached."""
        out, todo = {}, [0]
        while todo:
            node = todo.pop()
            for child in (int(self.left[node]), int(self.right[node])):
                if child >= 0:
                    out[child] = node
                    todo.append(child)
        return out

    def words(self, features: Sequence[Feature]) -> dict[int, str]:
        """Every leaf as conditions on the columns, such as "age <= 30 and female = 1"."""
        digits = {
            j: _digits([float(t) for f, t in zip(self.feature, self.threshold, strict=True) if f == j])
            for j in range(len(features))
        }
        parent, out = self.parents(), {}
        for end in self.leaves():
            bounds: dict[int, list[float | None]] = {}
            node = end
            while node in parent:  # from the leaf upwards: the first bound met on a side is the narrowest
                child, node = node, parent[node]
                side = 1 if self.left[node] == child else 0
                bound = bounds.setdefault(int(self.feature[node]), [None, None])
                if bound[side] is None:
                    bound[side] = float(self.threshold[node])
            texts = [_condition(features[j], bounds[j], digits[j]) for j in sorted(bounds)]
            out[end] = " and ".join(texts) or "everybody"
        return out


def _digits(thresholds: list[float]) -> int:
    """Digits that tell all thresholds of a feature apart."""
    apart = set(thresholds)
    return next((d for d in range(3, 17) if len({f"{t:.{d}g}" for t in apart}) == len(apart)), 17)


def _condition(feature: Feature, bounds: list[float | None], digits: int) -> str:
    low, high = bounds
    if feature.below:
        return feature.below if high is not None else feature.above
    lower, upper = (
        "" if t is None else f"{np.floor(t):.0f}" if feature.whole else f"{t:.{digits}g}" for t in (low, high)
    )
    if lower and upper:
        return f"{lower} < {feature.name} <= {upper}"
    return f"{feature.name} <= {upper}" if upper else f"{feature.name} > {lower}"


def features_of(frame: pd.DataFrame, columns: Sequence[str]) -> tuple[Feature, ...]:
    """What the tree may split: a number per numeric column, an indicator per label of another.

    Raises
    ------
    ColumnError
        Labels with too many levels, or columns that do not vary.
    """
    out: list[Feature] = []
    for name in columns:
        column = frame[name]
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            out += _numeric(name, column.to_numpy(dtype=float))
        else:
            out += _labels(name, column)
    if not out:
        raise ColumnError(f"None of {list(columns)!r} varies: there is nothing to split people by.")
    return tuple(out)


def _numeric(name: str, values: Array) -> list[Feature]:
    distinct = np.unique(values)
    if len(distinct) < 2:
        return []
    if len(distinct) == 2:
        low, high = (plain(v) for v in distinct)
        return [Feature(name, values, f"{name} = {low}", f"{name} = {high}")]
    return [Feature(name, values, whole=bool((distinct == np.floor(distinct)).all()))]


def _labels(name: str, column: pd.Series[Any]) -> list[Feature]:
    codes, uniques = pd.factorize(plain_labels(column))
    labels = [plain(u) for u in uniques]
    if len(labels) > _MANY_LEVELS:
        raise ColumnError(
            f"{name!r} has {len(labels):,} labels, too many to make subgroups of. Join them into at most "
            f"{_MANY_LEVELS}, or make it a number if they are in order."
        )
    if len(labels) < 2:
        return []
    order = natural_order(labels)
    if len(labels) == 2:
        first, last = (labels[i] for i in order)
        return [Feature(name, (codes == order[1]) * 1.0, f"{name} = {first}", f"{name} = {last}")]
    return [
        Feature(name, (codes == i) * 1.0, f"{name} is not {labels[i]}", f"{name} = {labels[i]}")
        for i in order
    ]


def grow(
    x: Array, treatment: Array, mediator: Array, weight: Array, *, min_leaf: int, depth: int, seed: int
) -> Tree:
    """Grow a causal tree for the effect of the treatment on the mediator, both in deviations from their place.

    The tree is that of generalised random forests (Athey, Tibshirani & Wager 2019) as econml has it: splits
    maximise the difference of estimated effects between the two sides. A forest of one tree on everybody, without
    the library's own honest halving: the honest half is the other half of the people, which it never sees.

    Parameters
    ----------
    x : (n, d) array
    treatment, mediator, weight : (n,) arrays
        Deviations from the means of a randomisation site (block).
    min_leaf : int
        People per leaf.
    depth : int
    seed : int
        Ties between splits.

    Raises
    ------
    MissingExtraError
        econml is not installed.
    """
    try:
        from econml.grf import CausalForest
    except ImportError as error:
        raise MissingExtraError(
            "find_subgroups() grows its tree with econml, which is not installed: pip install 'msmmiv[subgroups]'. "
            "Subgroups that are known beforehand need no tree: see strata_as_sites()."
        ) from error
    forest = CausalForest(
        n_estimators=1,
        subforest_size=1,
        max_samples=1.0,
        inference=False,
        honest=False,
        max_depth=depth,
        min_samples_leaf=min_leaf,
        n_jobs=1,
        random_state=seed,
    )
    forest.fit(x, treatment, mediator, sample_weight=weight)
    found = forest[0].tree_
    return Tree(
        np.asarray(found.children_left, dtype=np.int64),
        np.asarray(found.children_right, dtype=np.int64),
        np.asarray(found.feature, dtype=np.int64),
        np.asarray(found.threshold, dtype=float),
    )


def prune(
    tree: Tree,
    scarcest: Callable[[Tree], dict[int, float]],
    effect: Callable[[Tree], dict[int, tuple[float, float]]],
    *,
    max_leaves: int,
    min_arm: int,
) -> Tree:
    """Cut leaves that are too small, then those that differ least, until both limits hold.

    Parameters
    ----------
    tree : Tree
    scarcest : callable
        People in the scarcest arm of every leaf, in the estimation half. Counts of people decide nothing about
        effects, so this looks at no outcome.
    effect : callable
        Information and effect on the mediator of every leaf, in the discovery half.
    max_leaves, min_arm : int
    """
    while len(ends := tree.leaves()) > 1:
        have = scarcest(tree)
        small = [e for e in ends if have[e] < min_arm]
        if small:
            tree = tree.without(min(small, key=lambda e: have[e]))
            continue
        if len(ends) <= max_leaves:
            break
        found = effect(tree)
        pairs = [p for p in set(tree.parents().values()) if tree.left[p] in found and tree.right[p] in found]
        tree = tree.cut(min(pairs, key=lambda p: _gain(found[int(tree.left[p])], found[int(tree.right[p])])))
    return tree


def _gain(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Variation of the effect that the split between two leaves explains."""
    total = one[0] + other[0]
    return one[0] * other[0] / total * (one[1] - other[1]) ** 2 if total > 0 else 0.0


def leaf_codes(tree: Tree, x: Array) -> tuple[Codes, list[int]]:
    """Position of each row's leaf among the leaves from left to right, and their nodes."""
    ends = tree.leaves()
    place: npt.NDArray[np.int64] = np.zeros(len(tree.left), dtype=np.int64)
    place[ends] = np.arange(len(ends))
    return place[tree.leaf(x)], ends
