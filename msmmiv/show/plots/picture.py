"""Picture: a figure with the numbers behind it, its caption and its description; and the one look of all figures."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from msmmiv.errors import ChoiceError, OutputError, whole_number
from msmmiv.files import write_whole
from msmmiv.show.plots.sheet import finished
from msmmiv.show.words import printable, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ENDINGS", "INK", "Picture", "drawing", "finished", "label"]

#: Endings of files that `Picture.savefig` writes.
ENDINGS: Final = (".png", ".svg", ".pdf")

#: Okabe and Ito's colours: told apart by people with any common colour blindness, and in grey.
INK: Final = {
    "point": "#0072B2", "line": "#D55E00", "bar": "#8A8F98", "axis": "#33373D", "zero": "#9AA0A8",
    "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73", "purple": "#CC79A7", "black": "#000000",
}  # fmt: skip

_LOOK: Final[dict[str, Any]] = {
    "axes.edgecolor": INK["axis"],
    "axes.labelcolor": INK["axis"],
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.facecolor": "white",
    "font.family": "sans-serif",
    # The first is inside matplotlib and gives the measures; the others are for browsers without it.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial"],
    "font.size": 9,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # letters stay letters, which some journals ask for
    # Text stays text: smaller files, searchable, and a browser has letters that matplotlib's font lacks.
    "svg.fonttype": "none",
    "svg.hashsalt": "msmmiv",
    "xtick.color": INK["axis"],
    "xtick.labelsize": 8,
    "ytick.color": INK["axis"],
    "ytick.labelsize": 8,
}

_TAG: Final = re.compile(r"<[^>]*>")
_ID: Final = re.compile(r'(\bid="|\bxlink:href="#|url\(#)')


@contextmanager
def drawing() -> Iterator[None]:
    """The look, whatever the user's matplotlibrc says, restored afterwards; nothing global is touched."""
    from matplotlib import style

    with style.context(["default", _LOOK]), warnings.catch_warnings():
        # Site labels may be in any script. The SVG leaves letters to the browser; in the PNG a letter
        # that the font lacks becomes a box, which is no reason to stop or to alarm.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .*missing from", category=UserWarning)
        warnings.filterwarnings(
            "ignore", message=r"Matplotlib currently does not support", category=UserWarning
        )
        yield


def label(value: Any, width: int = 28) -> str:
    r"""A user's label for a figure: on one line, not too long, and no formula.

    Examples
    --------
    >>> label("cost in $ and $")
    'cost in \\$ and \\$'
    """
    return short(value, width).replace("$", r"\$")


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure and everything that goes with it.

    Attributes
    ----------
    name : str
        File name without ending; part of every id in the SVG.
    figure : matplotlib.figure.Figure
    data : DataFrame
        The numbers that were drawn.
    caption : str
        What is shown, for readers of the page.
    alt : str
        What is to be seen, for people who cannot see it.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.show.plots import forest
    >>> picture = forest(mm.SiteEffects.from_moments(mm.data.star()))
    >>> picture.name, len(picture.data), picture.svg().startswith("<svg ")
    ('forest', 79, True)
    """

    name: str
    figure: Figure
    data: pd.DataFrame
    caption: str
    alt: str
    _drawn: dict[tuple[str, int], str] | None = None

    @property
    def axes(self) -> list[Axes]:
        """The axes of the figure, in the order in which they were made."""
        return list(self.figure.axes)

    def settled(self) -> Picture:
        """The same picture for a figure that nobody changes any more: its SVG is drawn once, for page and file.

        Examples
        --------
        >>> import msmmiv as mm
        >>> from msmmiv.show.plots import forest
        >>> picture = forest(mm.SiteEffects.from_moments(mm.data.star())).settled()
        >>> picture.svg() is picture.svg()
        True
        """
        return replace(self, _drawn={})

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write ``<name>.png`` (200 dpi) and ``<name>.svg`` into a folder, which is made if it is not there.

        Raises
        ------
        ChoiceError
            The path ends like a picture: `savefig` writes one file.
        OutputError
            The folder cannot be made or written to.
        """
        room = Path(folder)
        if room.suffix.lower() in ENDINGS and not room.is_dir():
            raise ChoiceError(
                f"save() writes {self.name}.png and {self.name}.svg into a folder; "
                f"for one file: savefig({str(folder)!r})."
            )
        try:
            room.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The folder {str(folder)!r} could not be made: {error.strerror}.") from error
        png, svg = (
            write_whole(room / f"{self.name}{end}", self._bytes(end, 200)) for end in (".png", ".svg")
        )
        return png, svg

    def savefig(self, path: str | Path, *, dpi: int = 300) -> Path:
        """Write the figure to one file: PNG, SVG or PDF by the ending of its name.

        A file that is there is replaced in one step, so that nobody reads half of it.

        Parameters
        ----------
        path : path
        dpi : int
            Dots per inch of a PNG, and of layers of many points in an SVG or a PDF.

        Returns
        -------
        Path

        Raises
        ------
        ChoiceError
            Another ending.
        OutputError
            The folder is not there, or does not let the file be written.

        Examples
        --------
        >>> import tempfile, msmmiv as mm
        >>> from msmmiv.show.plots import forest
        >>> picture = forest(mm.SiteEffects.from_moments(mm.data.star()))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     picture.savefig(Path(folder) / "sites.pdf").read_bytes()[:5]
        b'%PDF-'
        """
        ending = check_ending(path)
        return write_whole(path, self._bytes(ending, whole_number(dpi, "dpi", least=10)))

    def svg(self) -> str:
        """The figure as one ``<svg>`` element whose ids and styles stay its own among others on a page."""
        return self._element(f"figure-{self.name}", 150)

    def _repr_svg_(self) -> str:
        """What a notebook shows where HTML is not shown."""
        # A page may hold the same figure of two studies: ids must differ.
        mark = hashlib.sha256(f"{self.alt}\n{self.data.to_csv()}".encode("utf-8", "replace")).hexdigest()[:8]
        return self._element(f"figure-{self.name}-{mark}", 150)

    def _repr_html_(self) -> str:
        """What a notebook shows: the figure on white, which its inks need, and the caption below."""
        box = "background:#fff;display:inline-block;max-width:100%;overflow-x:auto"
        words = escape(printable(self.caption))
        return (
            f'<figure style="margin:0"><div style="{box}">{self._repr_svg_()}</div>'
            f'<figcaption style="max-width:48em;font-size:90%">{words}</figcaption></figure>'
        )

    def __repr__(self) -> str:
        wide, high = self.figure.get_size_inches()
        return f"Picture({self.name!r}, {wide:.1f} x {high:.1f} in, data of {len(self.data):,} rows)"

    def _bytes(self, ending: str, dpi: int) -> bytes:
        if ending == ".svg":
            text = self._element(f"figure-{self.name}", dpi)
            return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'.encode()
        buffer = io.BytesIO()
        # No date inside: the same numbers give the same file.
        extra: dict[str, Any] = {"metadata": {"CreationDate": None}} if ending == ".pdf" else {}
        with drawing():
            self.figure.savefig(buffer, format=ending[1:], dpi=dpi, **extra)
        return buffer.getvalue()

    def _element(self, prefix: str, dpi: int) -> str:
        if self._drawn is None:
            return self._rendered(prefix, dpi)
        # Dots per inch are those of layers of many points; a figure that has none looks the same at any.
        for key in ((prefix, 0), (prefix, dpi)):
            if key in self._drawn:
                return self._drawn[key]
        text = self._rendered(prefix, dpi)
        self._drawn[prefix, dpi if "<image" in text else 0] = text
        return text

    def _rendered(self, prefix: str, dpi: int) -> str:
        buffer = io.StringIO()
        with drawing():
            self.figure.savefig(buffer, format="svg", dpi=dpi, metadata={"Date": None})
        text = buffer.getvalue()
        text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
        text = text[text.index("<svg ") :].rstrip()
        # Inside tags only: a site may be called 'id="x"'.
        text = _TAG.sub(lambda tag: _ID.sub(rf"\g<1>{prefix}-", tag.group()), text)
        text = text.replace('<style type="text/css">*{', f'<style type="text/css">#{prefix} *{{')
        head = f'<svg id="{prefix}" role="img" aria-labelledby="{prefix}-alt" '
        title = f'<title id="{prefix}-alt">{escape(self.alt)}</title>'
        return re.sub(r"<svg ([^>]*)>", lambda m: f"{head}{m.group(1)}>\n {title}", text, count=1)


def check_ending(path: str | Path) -> str:
    """The ending of a figure's file, in small letters.

    Raises
    ------
    ChoiceError
        It is none of `ENDINGS`.

    Examples
    --------
    >>> check_ending("forest.PDF")
    '.pdf'
    """
    ending = Path(path).suffix.lower()
    if ending not in ENDINGS:
        raise ChoiceError(
            f"A figure is written as PNG, SVG or PDF by the ending of its file; {str(path)!r} ends in none of .png, "
            ".svg and .pdf."
        )
    return ending
