"""A few figures against committed pictures, tolerant of fonts: what content tests cannot see, such as a lost legend.

Both pictures are averaged into cells of about a twelfth of an inch, so that letters of another font or version count
for little and a moved axis or a missing layer for much. Look at new pictures before committing them; to renew:

    MSMMIV_RENEW_BASELINES=1 python -m pytest tests/show/test_image_baselines.py
"""

from __future__ import annotations

import os
from pathlib import Path

import matplotlib.image as mpl_image
import numpy as np
import pytest

import msmmiv as mm
from msmmiv.show.plots import StudyPlots

FOLDER = Path(__file__).parent / "baselines"
DPI = 48
CELL = 4
#: Mean and largest cell: a blank figure, another panel's data or a missing layer is far beyond both.
MEAN, LARGEST = 0.012, 0.45


@pytest.fixture(scope="module")
def plot():
    return StudyPlots(mm.Study(mm.data.star()))


def cells(path: Path) -> np.ndarray:
    """Grey levels averaged over squares of CELL pixels."""
    grey = mpl_image.imread(path)[:, :, :3].mean(axis=2)
    high, wide = (n // CELL * CELL for n in grey.shape)
    return grey[:high, :wide].reshape(high // CELL, CELL, wide // CELL, CELL).mean(axis=(1, 3))


def difference(one: np.ndarray, two: np.ndarray) -> tuple[float, float]:
    apart = np.abs(one - two)
    return float(apart.mean()), float(apart.max())


@pytest.mark.parametrize("name", ["estimates", "scatter", "weights", "leave_one_out"])
def test_figure_looks_as_it_did(plot, name, tmp_path: Path):
    drawn = plot.draw(name).savefig(tmp_path / f"{name}.png", dpi=DPI)
    kept = FOLDER / f"{name}.png"
    if os.environ.get("MSMMIV_RENEW_BASELINES"):
        FOLDER.mkdir(exist_ok=True)
        kept.write_bytes(drawn.read_bytes())
    now, then = cells(drawn), cells(kept)
    assert now.shape == then.shape
    mean, largest = difference(now, then)
    assert mean < MEAN, f"{name}: mean difference {mean:.4f}"
    assert largest < LARGEST, f"{name}: largest difference {largest:.2f}"


def test_the_comparison_sees_what_it_should():
    """Another figure, a missing layer and an empty sheet are told apart; a shift of one pixel is not."""
    then = cells(FOLDER / "scatter.png")
    grey = mpl_image.imread(FOLDER / "scatter.png")[:, :, :3].mean(axis=2)
    assert difference(then, np.ones_like(then))[0] > 2 * MEAN
    high, wide = (n // CELL * CELL for n in grey.shape)
    moved = (
        np.roll(grey, 1, axis=1)[:high, :wide]
        .reshape(high // CELL, CELL, wide // CELL, CELL)
        .mean(axis=(1, 3))
    )
    assert difference(then, moved)[0] < MEAN
    other = cells(FOLDER / "leave_one_out.png")
    rows, columns = (min(a, b) for a, b in zip(then.shape, other.shape, strict=True))
    assert difference(then[:rows, :columns], other[:rows, :columns])[0] > 2 * MEAN
