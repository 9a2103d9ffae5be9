"""An analysis as a document: write it down, run it, and ask in two years whether anything has changed.

The data are the packaged moments of Project STAR; with a file of persons the roles stand in a table [design].

    python examples/study_file.py
"""

import tempfile
from pathlib import Path

import msmmiv as mm
from msmmiv.document import check_study, read_study, run_study

STUDY = '''
[study]
format = 1
title = "Class size and mathematics"
seed = 1

[data]
file = "star.csv"

[[compare]]
estimator = "mbtsls"
cov_type = "site"

[audit]
draws = 199

[arguments]
ii = """
Small classes came with no other change: the same curriculum, the same hours,
and teachers were assigned at random."""
'''


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(STUDY, encoding="utf-8")
        mm.data.star().save(path.with_name("star.csv"))
        done = run_study(path)
        fit = done.analysis.headline
        print(f"{fit.method}: {fit.params['class_size']:.3f}, set {fit.confidence_set('class_size')}")
        print(f"report: {done.files['report'].relative_to(folder)}, stamped {sorted(done.analysis.stamp)}")
        print(check_study(path).changes or "nothing differs")
        path.write_text(STUDY.replace("199", "299"), encoding="utf-8")
        for change in check_study(path).changes[:3]:
            print(change.name)
        print(read_study(path).to_toml().splitlines()[0])


if __name__ == "__main__":
    main()
