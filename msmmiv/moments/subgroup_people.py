"""The people among whom subgroups are sought: their columns read once, halves drawn, a tree grown and pruned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from msmmiv.design import Design
from msmmiv.errors import ColumnError, DataError, DesignError, TooFewSitesError, check_choice, count, listing
from msmmiv.linalg import Array, Codes
from msmmiv.moments.cells import Missing
from msmmiv.moments.strata import checked_columns
from msmmiv.moments.strata_build import Level, Strata, arm_codes, build_strata, complete_keys, place_codes
from msmmiv.moments.subgroup_tree import Feature, Tree, features_of, grow, leaf_codes, prune

__all__ = ["NAME", "Mask", "People"]

#: Name of the new column.
NAME = "subgroup"
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class People:
    """Everybody with a place, once read: what a split into halves needs, whatever its seed.

    Attributes
    ----------
    frame : DataFrame
        n rows that have their place.
    design : Design
    columns : tuple of str
        What subgroups are made of.
    mediator : str
    lost : tuple of (column, rows)
        What rows that were left out lacked.
    features : tuple of Feature
    arm, place : (n,) arrays
        Arm, control first, and site (and block).
    weight : (n,) array
    complete : (n,) array
        Whether a row has all that the design names.
    """

    frame: pd.DataFrame
    design: Design
    columns: tuple[str, ...]
    mediator: str
    lost: tuple[tuple[str, int], ...]
    features: tuple[Feature, ...]
    arm: Codes
    place: Codes
    weight: Array
    complete: Mask

    @classmethod
    def of(
        cls,
        data: pd.DataFrame,
        design: Design,
        by: str | Sequence[str],
        mediator: str | None,
        missing: Missing,
    ) -> People:
        """Read and check the columns.

        Raises
        ------
        DesignError, ColumnError, DataError, MissingDataError
            See `msmmiv.moments.subgroups.find_subgroups`.
        """
        check_choice(missing, Missing, "missing")
        columns = checked_columns(data, design, by, NAME)
        places = {design.site, design.block} & set(columns)
        if places:
            raise DesignError(
                f"{listing(places, quote=True)} is a site or block, inside which people are compared anyway; subgroups "
                "run across. Leave it out of by=."
            )
        if data.index.has_duplicates:
            raise DataError("The index of the data has repeated labels. Use data.reset_index(drop=True).")
        mediator = _mediator(data, design, mediator)
        frame, lost = complete_keys(data, design, columns, missing=missing)
        used = frame[[c for _, c in design.roles() if c in frame]].replace([np.inf, -np.inf], np.nan)
        weight = (
            frame[design.weights].to_numpy(dtype=float, na_value=np.nan)
            if design.weights
            else np.ones(len(frame))
        )
        return cls(
            frame, design, columns, mediator, lost, features_of(frame, columns), arm_codes(frame, design)[0],
            place_codes(frame, [design.site, design.block]), weight, used.notna().all(axis=1).to_numpy(dtype=bool),
        )  # fmt: skip

    def split(self, share: float, seed: int) -> Mask:
        """The discovery half, at random inside every place and arm; whole clusters where there are some."""
        n = len(self.frame)
        # Not the stream of the seed alone: simulated data often come from the same seed.
        rng = np.random.default_rng([seed, 1])
        unit: Codes = np.arange(n)
        if self.design.cluster:
            codes, uniques = pd.factorize(self.frame[self.design.cluster])
            unit = np.where(codes < 0, len(uniques) + unit, codes)
        _, first, back = np.unique(unit, return_index=True, return_inverse=True)
        back = back.reshape(-1)
        arm = np.full(len(first), -1, dtype=np.int64)
        np.maximum.at(arm, back, self.arm)
        order = np.lexsort((rng.random(len(first)), arm, self.place[first]))
        # Every 1/share-th of the list, from a random start: also small places give each half their part.
        steps = np.floor((np.arange(len(first) + 1) + rng.random()) * share)
        chosen = np.empty(len(first), dtype=bool)
        chosen[order] = np.diff(steps) > 0
        out: Mask = chosen[back]
        return out

    def strata(self, discovery: Mask, *, max_leaves: int, min_arm: int, seed: int) -> Strata:
        """Grow on one half, prune, and make the leaves the sites of the other half.

        Raises
        ------
        TooFewSitesError
            No split leaves enough people on both sides.
        """
        x = np.column_stack([f.values for f in self.features])
        tree, effect = self._tree(x, discovery, max_leaves, min_arm, seed)
        code, ends = leaf_codes(tree, x[~discovery])
        names = tree.words(self.features)
        texts = [names[e] for e in ends]
        if len(texts) < 2:
            raise TooFewSitesError(
                f"No split by {listing(self.columns, quote=True)} leaves {count(min_arm, 'person', 'people')} in every "
                "arm of both sides of the estimation half. Use a smaller min_arm, or columns that split people more "
                "evenly."
            )
        found = effect(tree)
        predicted = np.array([found[e][1] for e in ends])
        level = Level(code, lambda first, _: texts[first])
        return build_strata(
            self.frame[~discovery], self.design, {NAME: level}, name=NAME, min_per_arm=min_arm, small="error",
            missing=self.lost, score=predicted[code], seed=seed,
        )  # fmt: skip

    def _tree(
        self, x: Array, discovery: Mask, max_leaves: int, min_arm: int, seed: int
    ) -> tuple[Tree, Callable[[Tree], dict[int, tuple[float, float]]]]:
        m = self.frame[self.mediator].to_numpy(dtype=float, na_value=np.nan)
        use = discovery & np.isfinite(m) & np.isfinite(self.weight) & (self.weight > 0)
        w = self.weight[use]
        t = _deviations((self.arm[use] > 0) * 1.0, self.place[use], w)
        m = _deviations(m[use], self.place[use], w)
        estimation = ~discovery & self.complete

        def scarcest(tree: Tree) -> dict[int, float]:
            return self._scarcest(tree.leaf(x[estimation]), estimation)

        def effect(tree: Tree) -> dict[int, tuple[float, float]]:
            at = tree.leaf(x[use])
            size = len(tree.left)
            tt, tm = np.bincount(at, w * t * t, size), np.bincount(at, w * t * m, size)
            return {e: (float(tt[e]), float(tm[e] / tt[e]) if tt[e] > 0 else 0.0) for e in tree.leaves()}

        share = np.bincount(self.arm[estimation], minlength=int(self.arm.max()) + 1) / estimation.sum()
        # As many in the discovery half as leave min_arm in the scarcest arm of the other, when shares are alike.
        least = int(np.ceil(min_arm / max(float(share.min()), 1e-9) * use.sum() / estimation.sum()))
        if 2 * least > use.sum() or np.square(t).sum() < 1e-9:
            nothing = np.full(1, -1, dtype=np.int64)
            return Tree(nothing, nothing, nothing, np.zeros(1)), effect
        depth = int(np.ceil(np.log2(max_leaves))) + 2
        tree = grow(x[use], t, m, w, min_leaf=least, depth=depth, seed=seed)
        return prune(tree, scarcest, effect, max_leaves=max_leaves, min_arm=min_arm), effect

    def _scarcest(self, leaf: Codes, rows: Mask) -> dict[int, float]:
        """People in the scarcest arm of every leaf; where a place has one arm there is nobody to compare with."""
        copies = self.weight[rows] if self.design.weight_kind == "frequency" else np.ones(len(leaf))
        arms = int(self.arm.max()) + 1
        spot, where = np.unique(np.column_stack([leaf, self.place[rows]]), axis=0, return_inverse=True)
        here = np.bincount(where.reshape(-1) * arms + self.arm[rows], copies, len(spot) * arms).reshape(
            -1, arms
        )
        here[(here > 0).sum(axis=1) < 2] = 0.0
        out = np.zeros((int(leaf.max(initial=0)) + 1, arms))
        np.add.at(out, spot[:, 0], here)
        least = out.min(axis=1)
        return _Zero({int(node): float(least[node]) for node in np.unique(leaf)})


class _Zero(dict[int, float]):
    """Leaves without anybody have nobody in any arm."""

    def __missing__(self, key: int) -> float:
        return 0.0


def _deviations(values: Array, place: Codes, weight: Array) -> Array:
    total = np.bincount(place, weight)
    mean = np.bincount(place, weight * values) / np.where(total > 0, total, 1.0)
    return np.asarray(values - mean[place])


def _mediator(frame: pd.DataFrame, design: Design, mediator: str | None) -> str:
    if mediator is None and len(design.mediators) > 1:
        raise DesignError(
            f"Whose response should differ? Give mediator= one of {listing(design.mediators, quote=True)}."
        )
    chosen = mediator or design.mediators[0]
    if chosen not in design.mediators:
        raise DesignError(
            f"mediator={mediator!r} is not a mediator of the design ({listing(design.mediators, quote=True)}). "
            "Subgroups are never found by the outcome."
        )
    if not pd.api.types.is_numeric_dtype(frame[chosen].dtype):
        values = [str(v) for v in frame[chosen].dropna().unique()[:3]]
        raise ColumnError.not_numeric(chosen, "mediator", "labels", values)
    return chosen
