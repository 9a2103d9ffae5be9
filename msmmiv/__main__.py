"""``python -m msmmiv`` is the command line."""

from msmmiv.cli import main

main(prog_name="msmmiv")
