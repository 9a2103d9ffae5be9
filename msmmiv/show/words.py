"""Numbers and names as people read them: shared by figures, report and terminal."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from msmmiv.design import Design
from msmmiv.errors import count
from msmmiv.inference.results import Estimate

__all__ = [
    "fit_label",
    "method_words",
    "number",
    "one_line",
    "p_value",
    "p_words",
    "printable",
    "question",
    "short",
    "unit_words",
]

_METHODS = {
    "2sls": "2SLS", "ols": "OLS", "liml": "LIML", "fuller": "Fuller", "mbtsls": "MBTSLS", "ujive": "UJIVE",
    "bc_linear": "BC linear", "bc_symmetric": "BC symmetric",
}  # fmt: skip
# Words that cannot follow "each".
_DETERMINERS = frozenset((
    "a", "all", "an", "any", "both", "each", "every", "its", "my", "no", "one", "our", "some", "that", "the", "their",
    "these", "this", "those", "your",
))  # fmt: skip
# Joiners inside Persian words and emoji; every other invisible format character is dropped.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Text without control, surrogate and direction-override characters; newlines stay.

    They would break XML, move a terminal's cursor, or turn the rest of a line around.

    Examples
    --------
    >>> printable("a\x1b[31mb\u202e")
    'a [31mb'
    """
    out = []
    for letter in text:
        kind = unicodedata.category(letter)
        if letter == "\n" or letter in _JOINERS:
            out.append(letter)
        elif kind in {"Cc", "Cs", "Zl", "Zp"} or letter in "\ufffe\uffff":
            out.append(" ")
        elif kind != "Cf":
            out.append(letter)
    return "".join(out)


def one_line(value: Any) -> str:
    r"""A label on one line.

    Examples
    --------
    >>> one_line("two\nlines "), one_line(7)
    ('two lines', '7')
    """
    return " ".join(printable(str(value)).split())


def short(value: Any, width: int = 28) -> str:
    """A label cut in the middle, because ends tell site labels apart as often as beginnings do.

    Examples
    --------
    >>> short("Saint Mary Magdalene Primary School, East Wing", 20)
    'Saint Mary M…st Wing'
    """
    text = one_line(value) or "(blank)"
    if len(text) <= width:
        return text
    tail = (width - 1) * 2 // 5
    return f"{text[: width - 1 - tail].rstrip()}…{text[-tail:].lstrip()}"


def number(value: float, digits: int = 4) -> str:
    """A number with so many significant digits; a dash where there is none.

    Examples
    --------
    >>> number(-1.113759), number(float("nan")), number(float("inf")), number(5871.0), number(123456.7)
    ('-1.114', '–', '∞', '5,871', '123,457')
    """
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if abs(value) >= 10 ** (digits - 1) and abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) >= 1e-4 else f"{value:.{digits}g}"


def p_value(value: float) -> str:
    """A p value to three decimals.

    Examples
    --------
    >>> p_value(0.0421), p_value(1e-9), p_value(float("nan"))
    ('0.042', '<0.001', '–')
    """
    if math.isnan(value):
        return "–"
    return "<0.001" if value < 0.0005 else f"{value:.3f}"


def p_words(value: float) -> str:
    """A p value inside a sentence.

    Examples
    --------
    >>> p_words(0.0421), p_words(1e-9)
    ('p = 0.042', 'p < 0.001')
    """
    text = p_value(value)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def fit_label(fit: Estimate) -> str:
    """A fit in three words.

    Examples
    --------
    >>> import msmmiv as mm
    >>> fit_label(mm.fit(mm.data.star(), "2sls", direct_effect=True))
    '2SLS + direct effect, cluster'
    """
    direct = " + direct effect" if fit.direct_effect else ""
    scores = " scores" if fit.interval == "score" else ""
    return f"{method_words(fit)}{direct}, {fit.cov_type}{scores}"


def method_words(fit: Estimate) -> str:
    """The estimator's name as it is written."""
    return _METHODS.get(fit.method, fit.method)


def unit_words(fit: Estimate) -> str:
    """How much data stands behind a fit."""
    words = [count(fit.n_sites, "site"), count(fit.nobs, "row")]
    if fit.n_clusters and fit.cov_type != "site":
        words.append(count(fit.n_clusters, "cluster"))
    return ", ".join(words)


def question(design: Design) -> str:
    """What the analysis asks, in two sentences.

    Examples
    --------
    >>> question(Design(outcome="score", treatment="offer", mediators="hours", site="the town")).partition(".")[0]
    'The treatment offer was randomised inside each site (the town)'
    """
    names = [one_line(m) for m in design.mediators]
    carried = names[0] if len(names) == 1 else f"each of {', '.join(names[:-1])} and {names[-1]}"
    return (
        f"The treatment {one_line(design.treatment)} was randomised inside each {_one_of(one_line(design.site))}. "
        f"How much does one unit more of {carried} change {one_line(design.outcome)}?"
    )


def _one_of(name: str) -> str:
    """A site's column after "each": by itself where it looks like an English noun, else after "site".

    >>> [_one_of(name) for name in ("school", "school district", "site", "the town", "schools", "s", "sch_id", "")]
    ['school', 'school district', 'site', 'site (the town)', 'site (schools)', 'site (s)', 'site (sch_id)', 'site']
    """
    if name.casefold() in ("", "site", "sites"):
        return "site"
    words = name.casefold().split()
    first, last = words[0], words[-1]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    noun = len(last) > 1 and name.isascii() and name.replace(" ", "").replace("-", "").isalpha()
    return name if noun and not plural and first not in _DETERMINERS else f"site ({name})"
