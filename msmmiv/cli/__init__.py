"""The command line: a thin skin over `Study`, `Study.analysis`, `Study.rank` and the files they leave."""

from msmmiv.cli.commands import main

__all__ = ["main"]
