"""What ``import msmmiv`` adds to ``import pandas``.

    python benchmarks/start.py [--quick] [--write]

Fresh processes in turn: one that does nothing, one that imports pandas, one that imports the package. Shortest of
several; what is compiled to byte code is compiled before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from common import finished, options

PROGRAMS = {"nothing": "pass", "pandas": "import pandas", "msmmiv": "import msmmiv"}


def once(program: str) -> tuple[float, float]:
    """Wall and processor time of one process."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-c", program], check=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, cpu


def main() -> None:
    """Every program in turn, several times."""
    args = options(__doc__).parse_args()
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in PROGRAMS}
    for repetition in range(3 if args.quick else 8):
        for name, program in PROGRAMS.items():
            got = once(program)
            if repetition:  # the first one compiles and fills caches
                taken[name].append(got)
    wall = {name: min(w for w, _ in got) for name, got in taken.items()}
    cpu = {name: min(c for _, c in got) for name, got in taken.items()}
    record = {
        "beyond_pandas_over_pandas": (cpu["msmmiv"] - cpu["pandas"]) / (cpu["pandas"] - cpu["nothing"]),
        "beyond_pandas_seconds": wall["msmmiv"] - wall["pandas"],
        "beyond_pandas_cpu_seconds": cpu["msmmiv"] - cpu["pandas"],
        "pandas_cpu_seconds": cpu["pandas"] - cpu["nothing"],
        "pandas_seconds": wall["pandas"] - wall["nothing"],
    }
    finished(__file__, args, [record])


if __name__ == "__main__":
    main()
