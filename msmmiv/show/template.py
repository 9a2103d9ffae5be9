"""One way of filling the templates beside this file."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from msmmiv.show.formulas import NOTATION, marked
from msmmiv.show.words import printable

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["filled", "in_report", "source"]


def source(name: str) -> str:
    """The text of a template."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def in_report(name: str) -> str:
    """A template of its own between head and foot of the report, so that there is one look."""
    report = source("report.html.j2")
    head, foot = report.partition("<body>")[0], report.partition("</main>")[2]
    return f"{head}<body>\n{source(name)}</main>{foot}"


def filled(template: str, **values: Any) -> str:
    """The text of a template with its values; everything but our own markup is escaped.

    Examples
    --------
    >>> filled("<p>{{ label }}</p>", label="<script>")
    '<p>&lt;script&gt;</p>'
    """
    return _environment().from_string(template).render(**values)


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
        loader=FunctionLoader(source),
        # Labels may hold anything; letters that are invisible or turn the text around never reach the page.
        finalize=lambda v: v if isinstance(v, Markup) or not isinstance(v, str) else printable(v),
    )  # fmt: skip
    environment.filters["formula"] = marked
    environment.globals["notation"] = marked(NOTATION)
    return environment
