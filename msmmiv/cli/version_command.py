"""`msmmiv version`: what made the numbers."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from msmmiv.audit.json_values import json_text
from msmmiv.cli.commands import main
from msmmiv.cli.options import with_json
from msmmiv.moments.exchange import FORMAT
from msmmiv.show.provenance import versions

__all__ = ["version_command"]

_ALSO = ("narwhals", "linearmodels", "formulaic", "networkx", "jinja2", "click")
_EXTRAS = ("polars", "pyarrow", "dask", "pyspark", "pyreadstat", "python-docx", "econml")


@main.command(name="version", short_help="Show the versions that the numbers depend on.")
@with_json
def version_command(as_json: bool) -> None:
    """Show the versions of msmmiv, of Python, and of the libraries that numbers depend on.

    \b
    msmmiv version --json
    """  # noqa: D301 - click reads the control character
    found = versions() | {name: _installed(name) or "unknown" for name in _ALSO}
    extras = {name: _installed(name) for name in _EXTRAS}
    where = f"{platform.system()} {platform.machine()}"
    if as_json:
        values = {"versions": found, "extras": extras, "moments_format": FORMAT, "platform": where}
        click.echo(json_text(values), nl=False)
        return
    rows = {"msmmiv": found.pop("msmmiv"), **found, "moments files": FORMAT, "platform": where}
    rows |= {name: text or "not installed (optional)" for name, text in extras.items()}
    for name, text in rows.items():
        click.echo(f"{name:<16}{text}")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
