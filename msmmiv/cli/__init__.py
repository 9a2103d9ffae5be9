"""The command line: a thin skin over `Study`, `Study.analysis`, `Study.rank` and the files they leave."""

# A module of commands registers them on `main` when it is imported.
from msmmiv.cli import moments_command, plot_command, study_files, table_command, version_command
from msmmiv.cli.commands import main

__all__ = ["main", "moments_command", "plot_command", "study_files", "table_command", "version_command"]
