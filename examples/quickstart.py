"""From the packaged trial to an estimate, its strength, the site table and a report.

The same from the command line is `msmmiv demo --out star`.

    python examples/quickstart.py
"""

import tempfile
from pathlib import Path

import msmmiv as mm


def main() -> None:
    study = mm.Study(mm.data.star())
    fit = study.fit("2sls")
    print(fit)
    print()
    print(study.rank())
    print()
    print(study.flow)
    print()
    print(study.effects.to_frame().head().to_string(index=False))
    with tempfile.TemporaryDirectory() as folder:
        report = study.report(Path(folder) / "star.html")
        print(f"\nreport: {report.name}, {report.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
