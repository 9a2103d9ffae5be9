"""The instrumental-variables table of a paper, in the formats that journals take, and the page that Stata users know.

The same from the command line is `msmmiv table trial.csv ... --out table1.tex`.

    python examples/tables.py
"""

import tempfile
from pathlib import Path

import msmmiv as mm
from msmmiv.show.formats import save_sheet, sheet_of
from msmmiv.show.iv_table import iv_table, study_table


def main() -> None:
    study = mm.Study(mm.data.star())
    table = study_table(study, title="Class size and mathematics, kindergarten")
    print(table.to_frame().to_string(index=False))
    print(*table.notes[:2], sep="\n")
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("tex", "html", "md", "csv"):
            path = table.save(Path(folder) / f"table1.{ending}")
            print(f"{path.name}: {path.stat().st_size:,} bytes")
        # Any tidy frame goes the same way.
        sites = sheet_of(study.effects.to_frame().head(), caption="The first sites")
        print(f"{save_sheet(sites, Path(folder) / 'sites.md').name} written")
    # Fits of your own choice, without new computations.
    print(iv_table([study.fit("2sls"), study.fit("ujive")]).to_csv().splitlines()[1])


if __name__ == "__main__":
    main()
