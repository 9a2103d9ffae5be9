"""What goes together across sites: compliances, mediator effects, size and covariates, as a triangle of cells."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import product
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from msmmiv.errors import DataError, count
from msmmiv.linalg import Array
from msmmiv.show.plots.picture import INK, Picture, drawing, finished
from msmmiv.show.plots.scatter import MANY
from msmmiv.show.plots.sheet import INCHES, SMALLEST, narrow, sheet
from msmmiv.show.words import one_line, p_value, p_words, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["independence"]

_COMPLIANCE, _EFFECT = "compliance: ", "effect: "
#: Sides of a cell, in inches, from which the p-value in it is called so, and from which it holds numbers.
_FOR_P, _FOR_NUMBERS = 0.48, 0.355
#: How wide a letter and how high a line is, in heights of a letter; a little too much rather than too little.
_LETTER, _LINE = 0.6, 1.25
#: Blue to orange through white; the orange end is light, so that signs differ in grey too.
_COLOURS: Final = ("#003B5C", "#0072B2", "#9CCBE8", "#FFFFFF", "#FBD9A0", "#EFA537", "#D98200")
_NONE: Final = "#E8EAED"
_EDGE: Final = "#D0D4DA"
_TWICE: Final = "two things have the same name"


@dataclass(frozen=True, eq=False)
class _Triangle:
    """The pairs in place: rows are ``names[1:]``, columns ``names[:-1]``.

    Attributes
    ----------
    names : list of str
    correlation, pvalue : (n - 1, n - 1) arrays
    asked : (n - 1, n - 1) array of bool
        Whether there is such a pair.
    why : (n - 1, n - 1) array of str
        Why there is no correlation.
    """

    names: list[str]
    correlation: Array
    pvalue: Array
    asked: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    why: np.ndarray[tuple[int, ...], np.dtype[np.object_]]

    @property
    def reasons(self) -> dict[str, str]:
        """Reasons for blank cells and the letters that stand for them."""
        found = dict.fromkeys(str(w) for w in self.why.ravel() if w)
        return {why: _letter(i) for i, why in enumerate(found)}


def independence(matrix: pd.DataFrame) -> Picture:
    """The independence matrix as a triangle of coloured cells: correlations across sites, with their p-values below.

    Assumption (ix) is about the framed cells, effects against compliances; the others say where a violation could
    come from.

    Parameters
    ----------
    matrix : DataFrame
        `Independence.matrix`: ``row, column, correlation, pvalue, note``.

    Returns
    -------
    Picture
        ``data`` is the frame.

    Raises
    ------
    DataError
        No pair has a correlation or a p-value.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.diagnose.independence import independence as independence_of
    >>> picture = independence(independence_of(mm.data.star(), draws=99).matrix)
    >>> picture.data["row"].tolist()[0], picture.data["column"].tolist()[0]
    ('effect: class_size', 'compliance: class_size')
    """
    if not np.isfinite(matrix[["correlation", "pvalue"]].to_numpy(dtype=float)).any():
        raise DataError("There is no pair with a correlation or a p-value to draw.")
    shown = _triangle(matrix)
    n = len(shown.names) - 1
    lettering = _lettering(shown.names)
    cell = lettering.cell
    with drawing():
        figure = sheet(2.2 + n * cell, lettering.height + n * cell)
        axes = figure.add_subplot()
        scale = _cells(axes, shown)
        if cell >= _FOR_NUMBERS:
            _numbers(axes, shown, cell)
        _frame(axes, shown)
        _labels(axes, lettering, n)
        _colour_bar(figure, axes, scale)
        finished(figure)
    return Picture("independence", figure, matrix, _caption(shown, cell), _alt(matrix))


@dataclass(frozen=True)
class _Lettering:
    """The side of a cell in inches, names as rows and columns show them, their size, and the height around the cells.

    Names below stand level, slanted, or, in a column of a journal, upright.
    """

    cell: float
    words: list[str]
    size: float
    height: float
    rotation: int


def _lettering(names: list[str]) -> _Lettering:
    """Cells as large as the sheet allows, no larger than is needed, with names that do not touch."""
    n, said = len(names) - 1, [_words(name) for name in names]
    most = 0.82 if n <= 4 else 0.66
    if not narrow():
        cell = float(min(most, 4.7 / n))
        width = 13 if n <= 3 else 18 if n <= 5 else 60
        size = 8.0 if cell >= _FOR_P else SMALLEST
        return _Lettering(cell, [textwrap.fill(x, width) for x in said], size, 1.7, 0 if n <= 3 else 40)
    if n == 1:
        return _Lettering(1.2, [textwrap.fill(x, 14) for x in said], 8.0, 1.1, 0)
    for width, size in product((14, 20, 60), (8.0, SMALLEST)):
        words = [textwrap.fill(x, width) for x in said]
        lines = [x.split("\n") for x in words]
        letters = _LETTER * size * max(len(line) for of_one in lines for line in of_one) / 72.0
        cell = min(most, (INCHES["column"] - 0.25 - letters) / n)
        if 72.0 * cell >= _LINE * size * max(map(len, lines)):
            break
    return _Lettering(cell, words, size, 0.85 + letters, 90)


def _triangle(matrix: pd.DataFrame) -> _Triangle:
    rows, columns = matrix["row"].astype(str).tolist(), matrix["column"].astype(str).tolist()
    names = _order(rows, columns)
    place = {name: i for i, name in enumerate(names)}
    n = len(names) - 1
    r, p = np.full((n, n), np.nan), np.full((n, n), np.nan)
    asked, why = np.zeros((n, n), dtype=bool), np.full((n, n), "", dtype=object)
    notes = [one_line(note) if isinstance(note, str) else "" for note in matrix["note"]]
    for row, column, value, pvalue, note in zip(
        rows, columns, matrix["correlation"], matrix["pvalue"], notes, strict=True
    ):
        i, j = place[row] - 1, place[column]
        if row == column or i < j:
            continue
        if asked[
            i, j
        ]:  # a covariate may have the name of something else: no cell can then be told from another
            r[i, j], p[i, j], why[i, j] = np.nan, np.nan, _TWICE
            continue
        asked[i, j], r[i, j], p[i, j] = True, value, pvalue
        why[i, j] = "" if np.isfinite(value) else note or "not defined"
    return _Triangle(names, r, p, asked, why)


def _order(rows: list[str], columns: list[str]) -> list[str]:
    """Names in the order in which every pair lies below the diagonal: by the number of things they are rows of."""
    seen = list(dict.fromkeys(x for pair in zip(columns, rows, strict=True) for x in pair))
    below = {name: len({c for r, c in zip(rows, columns, strict=True) if r == name}) for name in seen}
    return sorted(seen, key=below.__getitem__)


def _cells(axes: Axes, shown: _Triangle) -> Any:
    """Draw the cells that exist; the scale of colours."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import LinearSegmentedColormap, Normalize, to_rgba

    scale = ScalarMappable(Normalize(-1.0, 1.0), LinearSegmentedColormap.from_list("correlation", _COLOURS))
    n, at = len(shown.correlation), np.argwhere(shown.asked)
    values = shown.correlation[shown.asked]
    # Beyond one has the colour of one.
    inks = np.where(np.isfinite(values)[:, None], scale.to_rgba(np.nan_to_num(values)), to_rgba(_NONE))
    corners = at[:, None, ::-1] + np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    axes.add_collection(
        PolyCollection(
            list(corners.astype(float)), facecolors=inks, edgecolors=_EDGE,
            linewidths=0.7 if n <= 30 else 0.3, rasterized=len(at) > MANY,
        )
    )  # fmt: skip
    axes.set_xlim(0, n)
    axes.set_ylim(n, 0)
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_visible(False)
    return scale


def _numbers(axes: Axes, shown: _Triangle, cell: float) -> None:
    """Correlations with p below; a letter and p where there is none."""
    roomy, letters = cell >= _FOR_P, shown.reasons
    size = 9.5 if cell > 0.7 else 8.0 if roomy else SMALLEST
    for i, j in np.argwhere(shown.asked).tolist():
        r, p = float(shown.correlation[i, j]), float(shown.pvalue[i, j])
        ink = "white" if r < -0.45 else INK["black"]
        head = _signed(r) if np.isfinite(r) else letters[str(shown.why[i, j])]
        below = np.isfinite(p)
        axes.text(
            j + 0.5, i + (0.37 if below else 0.5), head, ha="center", va="center", color=ink, fontsize=size,
            style="normal" if np.isfinite(r) else "italic",
        )  # fmt: skip
        if below:
            axes.text(
                j + 0.5,
                i + 0.7,
                f"p {_short_p(p)}" if roomy else _short_p(p),
                ha="center",
                va="center",
                color=ink,
                fontsize=max(0.78 * size, SMALLEST),
            )


def _signed(value: float) -> str:
    """Two decimals with a sign, which is what tells in grey."""
    if abs(value) >= 10.0:
        return "> 10" if value > 0 else "< −10"
    return "0.00" if abs(value) < 0.005 else f"{value:+.2f}".replace("-", "−")


def _short_p(value: float) -> str:
    return p_value(value).replace("0.", ".")


def _letter(i: int) -> str:
    return ascii_lowercase[i % 26] * (1 + i // 26)


def _frame(axes: Axes, shown: _Triangle) -> None:
    """A line around each cell of an effect and a compliance: what (ix) is about."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    for i, j in np.argwhere(shown.asked).tolist():
        if shown.names[i + 1].startswith(_EFFECT) and shown.names[j].startswith(_COMPLIANCE):
            axes.add_patch(
                Rectangle(
                    (j + 0.02, i + 0.02), 0.96, 0.96, fill=False, edgecolor=INK["axis"], linewidth=1.5, zorder=3,
                    path_effects=[withStroke(linewidth=3.5, foreground="white")],
                )
            )  # fmt: skip


def _words(name: str) -> str:
    """A name as a tick says it."""
    for start, words in ((_COMPLIANCE, "compliance of "), (_EFFECT, "effect of ")):
        if name.startswith(start):
            return words + short(name[len(start) :], 24)
    return short(name, 26)


def _labels(axes: Axes, lettering: _Lettering, n: int) -> None:
    size, turned = lettering.size, lettering.rotation
    # With more names than fit under one another every second, third ... is said.
    step = max(1, int(np.ceil(1.1 * size / 72.0 / lettering.cell)))
    # Wrapped before dollars are escaped: the escape must not be torn apart.
    words = [x.replace("$", r"\$") for x in lettering.words]
    at = np.arange(0, n, step) + 0.5
    axes.set_yticks(at, words[1::step], fontsize=size)
    if turned == 90:
        axes.set_xticks(at, words[:-1:step], fontsize=size, rotation=90, ha="center", va="top",
                        multialignment="right")  # fmt: skip
    else:
        axes.set_xticks(
            at, words[:-1:step], fontsize=size, rotation=turned, ha="right" if turned else "center",
            rotation_mode="anchor", va="top",
        )  # fmt: skip
    axes.tick_params(length=0, pad=3)


def _colour_bar(figure: Figure, axes: Axes, scale: Any) -> None:
    # In a column the width belongs to the cells.
    if narrow():
        bar = figure.colorbar(scale, ax=axes, location="top", fraction=0.05, shrink=0.9, pad=0.02, aspect=16)
    else:
        bar = figure.colorbar(scale, ax=axes, fraction=0.05, shrink=0.7, pad=0.02)
    bar.set_ticks([-1.0, -0.5, 0.0, 0.5, 1.0], labels=["−1", "−.5", "0", ".5", "1"])
    bar.set_label("Correlation across sites", fontsize=8)
    if bar.solids is not None:
        bar.solids.set_rasterized(True)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, length=2)


def _caption(shown: _Triangle, cell: float) -> str:
    below = "; below each its p-value, not adjusted for the number of pairs" if cell >= _FOR_NUMBERS else ""
    text = (
        "Correlations across sites of compliances, mediator effects, size and covariates, sampling error taken out"
        f"{below}. Framed: effects against compliances, what (ix) is about; an effect against its own compliance is "
        f"judged by curvature: the corrected square gives the correlation{' and the p' if below else ''}."
    )
    said = [text]
    if (np.abs(shown.correlation) > 1.0).any():
        said.append("Values beyond one show how rough the estimated spreads are that they are divided by.")
    if letters := shown.reasons:
        told = "; ".join(f"{letter}: {why}" for why, letter in letters.items())
        said.append(f"Grey cells have no correlation, with or without a test ({told}).")
    if sum(name.startswith(_EFFECT) for name in shown.names) > 1:
        said.append(
            "Empty: effects of two mediators are not compared. The p of a property of sites against effects is for all "
            "mediators together."
        )
    if cell < _FOR_NUMBERS:
        said.append(
            "There are too many pairs for numbers in the cells; correlations and p-values are in the figure's data."
        )
    said.append("Small correlations do not confirm independence: what was not measured is not here.")
    return " ".join(said)


def _alt(matrix: pd.DataFrame) -> str:
    known = matrix[np.isfinite(matrix["correlation"])]
    top = known.reindex(known["correlation"].abs().sort_values(ascending=False).index[:5])
    told = "; ".join(
        f"{one_line(r['row'])} with {one_line(r['column'])} {_signed(r['correlation'])}"
        + (f" ({p_words(r['pvalue'])})" if np.isfinite(r["pvalue"]) else "")
        for r in top.to_dict("records")
    )
    largest = f" Largest: {told}." if told else ""
    return f"Triangle of correlations of {count(len(matrix), 'pair')}, {len(known)} of them known.{largest}"
