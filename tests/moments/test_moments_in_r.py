"""The lines of R in docs/moments-file.md, run by R: the file they write gives the analysis that the rows give."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm

PAGE = Path(__file__).resolve().parents[2] / "docs" / "moments-file.md"
#: What an agency has to add to the page: its own sums.
CELLS = """
people <- read.csv("people.csv", colClasses = c(clinic = "character"))
cell <- function(p) {
  s <- crossprod(scale(as.matrix(p[, c("score", "hours")]), scale = FALSE))
  out <- list(p$clinic[1], p$offered[1], nrow(p), nrow(p), mean(p$score), mean(p$hours), s[1, 1], s[1, 2], s[2, 2])
  names(out) <- c("site", "arm", "n", "weight", "mean[score]", "mean[hours]", "scatter[score,score]",
                  "scatter[score,hours]", "scatter[hours,hours]")
  as.data.frame(out, check.names = FALSE)
}
cells <- do.call(rbind, lapply(split(people, list(people$clinic, people$offered), drop = TRUE), cell))
header$flow$rows_in <- nrow(people)
save_moments(cells, header, "cells.csv")
"""


@pytest.fixture
def rscript():
    """R, with the two packages that the page names."""
    program = shutil.which("Rscript")
    asked = "quit(status = !all(sapply(c('jsonlite', 'digest'), requireNamespace, quietly = TRUE)))"
    if program is None or subprocess.run([program, "-e", asked], capture_output=True, check=False).returncode:
        pytest.skip("R with jsonlite and digest is not installed")
    return program


def test_r_writes_a_file_that_is_read(rscript, tmp_path):
    rng = np.random.default_rng(4)
    n = 240
    labels = np.array(['süd, "a"', "nord", "9"])
    df = pd.DataFrame({"clinic": labels[rng.integers(0, 3, n)], "offered": rng.integers(0, 2, n)})
    df["hours"] = rng.normal(1 / 3, 1, n) + df["offered"] * (1 + df["clinic"].str.len())
    df["score"] = 1e6 + 2 * df["hours"] + rng.normal(size=n)
    df.to_csv(tmp_path / "people.csv", index=False, encoding="utf-8")
    (code,) = re.findall(r"```r\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "write.R").write_text(code + CELLS, encoding="utf-8")
    done = subprocess.run(
        [rscript, "--encoding=UTF-8", "write.R"], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    design = mm.Design(outcome="score", treatment="offered", mediators=["hours"], site="clinic")
    got, want = mm.Moments.load(tmp_path / "cells.csv"), mm.Moments.from_data(df, design)
    assert set(got.sites) == set(labels)
    assert got.equals(want, rtol=1e-9)
    np.testing.assert_allclose(mm.fit(got, "2sls").params, mm.fit(want, "2sls").params, rtol=1e-9)
