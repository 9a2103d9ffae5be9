"""Where the scores of other mediators settle, for many candidate values at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from msmmiv.linalg import Array, Codes

__all__ = ["Move", "settled"]

#: Candidates (L,) and points (L, m) to steps towards where they settle (L, m), and how far they are (L,).
Move: TypeAlias = Callable[[Codes, Array], tuple[Array, Array]]

_ROUNDS = 60
#: Distance of a point that has settled; smallest part of a step that is tried.
_SETTLED, _STUCK = 1e-18, 1e-4
#: A step of this share and then each so much longer: with long ones a point and its neighbour would be passed over.
_CAREFUL, _GROWTH = 0.125, 1.6
#: Smallest first step, and what a point may be off, in units of the room there is.
_FIRST, _OFF = 1e-13, 1e-17


def settled(move: Move, start: Array, room: Array) -> Array:
    """(G, m) points from which no step leads away, each reached from its own start, within ``room`` (G, m) around zero.

    Use it where steps lead to a root that is wanted and away from one that is not.

    Notes
    -----
    With one unknown the sign of a step says on which side the point lies to which one drifts: it is enclosed by
    growing steps and sought inside, so that a root from which steps lead away is never returned. Where the drift
    does not end in the room, its edge comes back. With several unknowns steps are halved until the distance falls.

    Examples
    --------
    >>> def move(which, x):  # drifts to -1 and to 1, and away from 0
    ...     step = 0.3 * (x - x**3)
    ...     return step, step[:, 0] ** 2
    >>> settled(move, np.array([[-0.1], [0.01], [3.0]]), np.full((3, 1), 1e4)).ravel().round(9).tolist()
    [-1.0, 1.0, 1.0]
    """
    if start.shape[1] > 1:
        return _descended(move, start, room)
    return _drifted(lambda which, x: move(which, x[:, None])[0][:, 0], start[:, 0], room[:, 0])[:, None]


def _drifted(step: Callable[[Codes, Array], Array], start: Array, room: Array) -> Array:
    from scipy.optimize import elementwise

    first = step(np.arange(len(start)), start)
    live = np.flatnonzero(first)
    way, length = np.where(first < 0, -1.0, 1.0), np.maximum(_CAREFUL * np.abs(first), _FIRST * room)
    near, far = start.copy(), start.copy()
    while len(live):
        near[live] = far[live]
        far[live] = np.clip(near[live] + way[live] * length[live], -room[live], room[live])
        length[live] *= _GROWTH
        on = step(live, far[live]) * way[live] > 0
        live = live[on & (np.abs(far[live]) < room[live])]
    inside = np.flatnonzero((np.abs(far) < room) & (first != 0))
    if len(inside):

        def inner(x: Array, which: Codes) -> Array:
            return step(which.astype(np.int64), x)

        tolerances: Any = {"xrtol": 1e-13, "xatol": _OFF * float(room.min())}
        found = elementwise.find_root(
            inner, (near[inside], far[inside]), args=(inside,), tolerances=tolerances
        )
        far[inside] = found.x
    return far


def _descended(move: Move, start: Array, room: Array) -> Array:
    """The nearest point that was seen; candidates drop out as they settle."""
    best, least = start.copy(), np.full(len(start), np.inf)
    step, damp = np.zeros_like(start), np.ones(len(start))
    live = np.arange(len(start))
    for _ in range(_ROUNDS):
        trial = np.clip(best[live] + damp[live, None] * step[live], -room[live], room[live])
        found, distance = move(live, trial)
        better = distance < least[live]
        won = live[better]
        best[won], least[won], step[won] = trial[better], distance[better], found[better]
        damp[live] = np.where(better, 1.0, damp[live] / 2.0)
        live = live[(least[live] > _SETTLED) & (damp[live] > _STUCK)]
        if not len(live):
            break
    return best
