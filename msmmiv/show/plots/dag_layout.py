"""Where the boxes and arrows of a causal graph go, in inches: treatment, mediators and outcome from left to right."""

from __future__ import annotations

import textwrap
import unicodedata
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from msmmiv.audit.dag_graph import Edge, Graph
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import label
from msmmiv.show.plots.sheet import narrow

__all__ = ["Arrow", "Box", "Layout", "Mark", "lay_out"]

Point: TypeAlias = tuple[float, float]
#: An edge and whether it has two heads: both kinds may join the same nodes.
Mark: TypeAlias = tuple[Edge, bool]

FONT = 9.0
_LINE = 0.165  # height of a line
_PAD = 0.11
_WRAP = (11, 15)  # in a column, on a page
_LONGEST = 4
#: Treatment to mediators, mediators to outcome: on a page, and in a column.
_GAP = (1.05, 1.35)
_CLOSE = (0.5, 0.62)
_SPACE = 0.3  # between declared causes
_AWAY = 0.09  # an arrow keeps so far from boxes that are not its own
_TAG = (0.19, 0.10)  # half width and half height of an assumption's number


@dataclass(frozen=True)
class Box:
    """A node: centre, size, wrapped text and column ("T", "M", "Y", "L" and "R" above the gaps)."""

    name: str
    column: str
    x: float
    y: float
    w: float
    h: float
    text: str

    def left(self, at: float = 0.0) -> Point:
        """A point on the left side; ``at`` from -0.5 (bottom) to 0.5."""
        return self.x - self.w / 2, self.y + at * self.h

    def right(self, at: float = 0.0) -> Point:
        """A point on the right side."""
        return self.x + self.w / 2, self.y + at * self.h

    def top(self, at: float = 0.0) -> Point:
        """A point on the upper side; ``at`` from -0.5 (left) to 0.5."""
        return self.x + at * self.w, self.y + self.h / 2

    def bottom(self, at: float = 0.0) -> Point:
        """A point on the lower side."""
        return self.x + at * self.w, self.y - self.h / 2

    def towards(self, goal: Point) -> Point:
        """Where the line from the centre to a point leaves the box."""
        dx, dy = goal[0] - self.x, goal[1] - self.y
        size = max(abs(dx) / (self.w / 2), abs(dy) / (self.h / 2), 1e-9)
        return self.x + dx / size, self.y + dy / size

    def holds(self, points: Array, away: float = 0.0) -> bool:
        """Whether any of the points is inside, or nearer than so much."""
        near = np.abs(points - [self.x, self.y]) < [self.w / 2 + away, self.h / 2 + away]
        return bool(near.all(axis=1).any())


@dataclass(frozen=True)
class Arrow:
    """An edge as a straight line (two points) or a cubic curve (four), and where its number stands."""

    ends: Edge
    two_headed: bool
    points: tuple[Point, ...]
    tag: Point | None = None

    def sampled(self, count: int = 60) -> Array:
        """Points along it."""
        return _curve(self.points, np.linspace(0.0, 1.0, count))


@dataclass(frozen=True)
class Layout:
    """Boxes and arrows of a graph, and the rectangle that holds them."""

    boxes: dict[str, Box]
    arrows: tuple[Arrow, ...]
    lower: Point
    upper: Point


def lay_out(graph: Graph, tagged: frozenset[Mark]) -> Layout:
    """Place everything but the site, which is the frame around the rest.

    Parameters
    ----------
    graph : Graph
    tagged : frozenset of marks
        Those that carry the number of an assumption.
    """
    boxes = _boxes(graph)
    arrows: list[Arrow] = []
    for two_headed, edges in ((False, graph.edges), (True, graph.bidirected)):
        for a, b in edges:
            if graph.site in (a, b):
                continue
            arrows.append(Arrow((a, b), two_headed, _route(graph, boxes, a, b, two_headed=two_headed)))
    arrows = _with_tags(arrows, boxes, tagged)
    corners = [np.array([b.left(0.5), b.left(-0.5), b.right(0.5), b.right(-0.5)]) for b in boxes.values()]
    room = np.array([_TAG, np.negative(_TAG)])
    tags = [np.array(a.tag) + room for a in arrows if a.tag]
    every = np.vstack([*(a.sampled() for a in arrows), *corners, *tags])
    lower, upper = every.min(axis=0), every.max(axis=0)
    return Layout(
        boxes, tuple(arrows), (float(lower[0]), float(lower[1])), (float(upper[0]), float(upper[1]))
    )


def _wrapped(name: str) -> str:
    """The name on at most four lines; a longer one loses its middle."""
    lines = ["(blank)"]
    for width in (*range(64, 28, -4), 20):
        text = label(name, width)
        longest = max((len(word) for word in text.split()), default=1)
        lines = textwrap.wrap(text, min(22, max(_WRAP[not narrow()], longest))) or lines
        if len(lines) <= _LONGEST:
            break
    return "\n".join(lines)


def _size(text: str) -> tuple[float, float]:
    """Width and height of a box; wide scripts count twice."""
    lines = text.split("\n")
    wide = max(sum(1.0 if unicodedata.east_asian_width(c) in "WF" else 0.62 for c in s) for s in lines)
    return max(0.62, wide * FONT / 72 + 2 * _PAD), len(lines) * _LINE + 2 * _PAD


def _boxes(graph: Graph) -> dict[str, Box]:
    texts = {n: _wrapped(n) for n in graph.nodes if n != graph.site}
    sizes = {n: _size(t) for n, t in texts.items()}
    found: dict[str, Box] = {}
    t, y, mediators = graph.treatment, graph.outcome, graph.mediators
    middle = max(sizes[m][0] for m in mediators)
    first, second = _CLOSE if narrow() else _GAP
    gap = second + 0.12 * max(0, len(mediators) - 2) * bool(graph.others)
    x_m = sizes[t][0] / 2 + first + middle / 2
    x_y = x_m + middle / 2 + gap + sizes[y][0] / 2
    height = 0.0
    for i, m in enumerate(mediators):
        height -= sizes[m][1] / 2
        found[m] = Box(m, "M", x_m, height, middle, sizes[m][1], texts[m])
        linked = i + 1 < len(mediators) and {(m, mediators[i + 1]), (mediators[i + 1], m)} & set(graph.edges)
        height -= sizes[m][1] / 2 + (0.5 if linked else 0.32)
    centre = (found[mediators[0]].y + found[mediators[-1]].y) / 2
    found[t] = Box(t, "T", 0.0, centre, *sizes[t], texts[t])
    found[y] = Box(y, "Y", x_y, centre, *sizes[y], texts[y])
    base = max(0.0, found[t].top()[1], found[y].top()[1]) + 0.42
    tall = max((sizes[c][1] for c in graph.others), default=0.0)
    gaps = sizes[t][0] / 2 + first / 2, x_m + middle / 2 + gap / 2
    for name, column, x in _row(graph, sizes, gaps):
        found[name] = Box(name, column, x, base + tall / 2, *sizes[name], texts[name])
    return found


def _row(
    graph: Graph, sizes: dict[str, tuple[float, float]], gaps: tuple[float, float]
) -> list[tuple[str, str, float]]:
    """Declared causes side by side above the two gaps: those of the treatment on the left."""
    with_t = {n for pair in (*graph.edges, *graph.bidirected) if graph.treatment in pair for n in pair}
    out: list[tuple[str, str, float]] = []
    end = -np.inf
    for column, gap in zip("LR", gaps, strict=True):
        names = [c for c in graph.others if (c in with_t) == (column == "L")]
        width = sum(sizes[c][0] for c in names) + _SPACE * (len(names) - 1)
        start = max(gap - width / 2, end + _SPACE)
        for name in names:
            out.append((name, column, start + sizes[name][0] / 2))
            start += sizes[name][0] + _SPACE
            end = start - _SPACE
    return out


def _spread(names: tuple[str, ...], name: str) -> float:
    """Where on the side of treatment or outcome the arrow of one of several mediators is fixed."""
    if len(names) == 1:
        return 0.0
    return 0.3 - 0.6 * names.index(name) / (len(names) - 1)


def _route(graph: Graph, boxes: dict[str, Box], a: str, b: str, *, two_headed: bool) -> tuple[Point, ...]:
    """The points of one edge."""
    one, two = boxes[a], boxes[b]
    columns = one.column + two.column
    if columns == "MM":
        return _between_mediators(graph, one, two, two_headed=two_headed)
    if two.column in "LR" or one.column in "LR":  # found from the declared cause, drawn from either end
        back = two.column in "LR"
        return _from_cause(boxes, two, one)[::-1] if back else _from_cause(boxes, one, two)
    if two_headed:
        return _two_headed(boxes, one, two, columns)
    if columns != "TY":
        sides = graph.children(one.name) if columns == "TM" else graph.parents(two.name)
        at = _spread(
            tuple(m for m in graph.mediators if m in sides), one.name if columns == "MY" else two.name
        )
        return (one.right(at), two.left()) if columns == "TM" else (one.right(), two.left(at))
    return _around(boxes, one.bottom(0.2), two.bottom(-0.2), up=False, own=(a, b))


def _from_cause(boxes: dict[str, Box], cause: Box, other: Box) -> tuple[Point, ...]:
    """From a declared cause: the shortest straight line that touches nothing, or else a curve."""
    own = (cause.name, other.name)
    starts = [cause.bottom(f) for f in (-0.25, 0.0, 0.25)] + [cause.left(), cause.right()]
    ends = {
        "M": [other.left(0.3), other.right(0.3)],
        "T": [other.top(f) for f in (-0.2, 0.0, 0.2)],
        "Y": [other.top(f) for f in (-0.25, 0.0, 0.2)],
    }.get(other.column, [other.left(), other.right()])
    lines = sorted(((s, e) for s in starts for e in ends), key=lambda line: np.hypot(*np.subtract(*line)))
    for line in lines:
        if _clear(boxes, line, own):
            return line
    if other.column != "M":
        return _around(boxes, cause.top(), other.top(), up=True, own=own)
    for out in np.linspace(0.2, 1.5, 14):
        for sign, end in sorted(((-1, ends[0]), (1, ends[1])), key=lambda side: abs(side[1][0] - cause.x)):
            x = end[0] + sign * out
            points = (cause.bottom(), (x, cause.y - 0.6), (x, end[1]), end)
            if _clear(boxes, points, own):
                return points
    return lines[0]


def _two_headed(boxes: dict[str, Box], one: Box, two: Box, columns: str) -> tuple[Point, ...]:
    """An unmeasured common cause of treatment, mediators, outcome: an arc above."""
    own = (one.name, two.name)
    if columns == "TY":
        return _around(boxes, one.top(), two.top(), up=True, own=own)
    start = one.top(0.25) if columns == "TM" else one.right(0.38)
    end = two.left(0.38) if columns == "TM" else two.top(-0.25)
    above = one.top(0.3), (one.x, one.y + 1), (two.x, two.y + 1), end
    if columns == "MY" and _clear(boxes, above, own):
        start = one.top(0.3)
    points: tuple[Point, ...] = (start, end)
    for lift in np.linspace(0.3 + 0.25 * abs(start[0] - end[0]), 0.1, 9):
        high = max(start[1], end[1]) + lift
        points = (start, (start[0] + 0.25, high), (end[0] - 0.25, high), end)
        if _clear(boxes, points, own):
            break
    return points


def _between_mediators(graph: Graph, one: Box, two: Box, *, two_headed: bool) -> tuple[Point, ...]:
    """Neighbours are joined directly, others by a curve on the left (two-headed: on the right)."""
    apart = abs(graph.mediators.index(one.name) - graph.mediators.index(two.name))
    down = 1.0 if one.y > two.y else -1.0
    if apart == 1 and not two_headed:
        start = one.bottom(-0.12) if down > 0 else one.top(0.12)
        end = two.top(-0.12) if down > 0 else two.bottom(0.12)
        bulge = start[0] - 0.13 * down
        third = (end[1] - start[1]) / 3
        return start, (bulge, start[1] + third), (bulge, end[1] - third), end
    side = 1.0 if two_headed else -1.0
    start = one.right(-0.32 * down) if two_headed else one.left(-0.32 * down)
    end = two.right(0.32 * down) if two_headed else two.left(0.32 * down)
    x = (max if two_headed else min)(start[0], end[0]) + side * (0.22 + 0.16 * apart)
    return start, (x, start[1]), (x, end[1]), end


def _around(
    boxes: dict[str, Box], start: Point, end: Point, *, up: bool, own: tuple[str, str]
) -> tuple[Point, ...]:
    """A curve over (or under) the mediators and everything in its way, no farther out than it takes."""
    sign = 1.0 if up else -1.0
    stack = [b for b in boxes.values() if b.column == "M"]
    ends = [start[1], end[1], *(b.y + sign * b.h / 2 for b in stack)]
    base = max(ends) if up else min(ends)
    points: tuple[Point, ...] = (start, end)
    for reach in np.linspace(0.2, 3.0, 57):
        level = base + sign * reach
        points = (start, (start[0], level), (end[0], level), end)
        curve = _curve(points, np.linspace(0.0, 1.0, 80))
        beside = curve[np.abs(curve[:, 0] - stack[0].x) < stack[0].w / 2 + _AWAY, 1]
        past = not beside.size or (beside * sign).min() > (base * sign if up else -base)
        if past and _clear(boxes, points, own):
            break
    return points


def _clear(boxes: dict[str, Box], points: tuple[Point, ...], own: tuple[str, str]) -> bool:
    """Whether a line keeps away from the boxes it does not belong to, and does not go back into its own."""
    curve = _curve(points, np.linspace(0.0, 1.0, 80))
    if any(box.holds(curve, _AWAY) for name, box in boxes.items() if name not in own):
        return False
    return not any(boxes[name].holds(curve[4:-4], -0.01) for name in own)


def _curve(points: tuple[Point, ...], at: Array) -> Array:
    """Points of a line or of a cubic Bezier curve."""
    p = np.array(points)
    t = at[:, None]
    if len(p) == 2:
        return np.asarray((1 - t) * p[0] + t * p[1])
    return np.asarray(
        (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
    )


def _with_tags(arrows: list[Arrow], boxes: dict[str, Box], tagged: frozenset[Mark]) -> list[Arrow]:
    """Numbers where they are farthest from boxes, other arrows and each other."""
    out: list[Arrow] = []
    placed: list[Point] = []
    for arrow in arrows:
        if (arrow.ends, arrow.two_headed) not in tagged:
            out.append(arrow)
            continue
        others = [a.sampled() for a in arrows if a is not arrow] + [np.array([p]) for p in placed]
        best, room = arrow.points[0], -np.inf
        for spot in _curve(arrow.points, np.linspace(0.25, 0.75, 21)):
            space = min(
                [*(_distance(o, spot) for o in others), *(_box_distance(b, spot) for b in boxes.values())]
            )
            if space > room + 1e-3:
                best, room = (float(spot[0]), float(spot[1])), space
        placed.append(best)
        out.append(Arrow(arrow.ends, arrow.two_headed, arrow.points, best))
    return out


def _distance(points: Array, spot: Array) -> float:
    """Distance in units of a number's half size, sideways and up."""
    return float(np.min(np.linalg.norm((points - spot) / _TAG, axis=1)))


def _box_distance(box: Box, spot: Array) -> float:
    gap = np.maximum(np.abs(spot - [box.x, box.y]) - [box.w / 2, box.h / 2], 0.0)
    return float(np.linalg.norm(gap / _TAG))
