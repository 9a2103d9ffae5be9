"""All benchmarks, one after the other; the one command that rewrites every JSON file of this folder.

    python benchmarks/run.py [--quick] [--large] [--only NAME ...] [--folder DIR] [--dry]

For figures worth keeping: a machine that does nothing else, ``--large``, and the extras dev, bench and spark. ``--dry``
prints and stores nothing. A benchmark that fails is named at the end; the others have run by then.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ALL = ("start", "inference", "decompose", "dense", "engines", "growth")
LARGE = ("engines", "growth")


def main() -> None:
    """Run the chosen ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: do they run?")
    parser.add_argument("--large", action="store_true", help="1e8 rows of Parquet; rank with a million sites")
    parser.add_argument("--only", nargs="+", choices=ALL, default=ALL)
    parser.add_argument("--folder", help="where Parquet files may lie for a while (default: temporary)")
    parser.add_argument("--dry", action="store_true", help="store nothing")
    args = parser.parse_args()
    # One thread of linear algebra, for all alike; engines take the threads they take.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    failed = []
    for name in args.only:
        command = [sys.executable, str(HERE / f"{name}.py")]
        command += ["--quick"] if args.quick else []
        command += [] if args.dry or args.quick else ["--write"]
        command += ["--large"] if args.large and name in LARGE else []
        command += ["--folder", args.folder] if args.folder and name == "engines" else []
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        if subprocess.run(command, check=False, env=environment).returncode:
            failed.append(name)
        print(f"== {name}: {time.perf_counter() - start:.0f} s", flush=True)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
