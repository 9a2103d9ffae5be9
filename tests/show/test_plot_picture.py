"""A picture as a file and in a notebook."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import msmmiv as mm
from msmmiv.errors import ChoiceError, OutputError
from msmmiv.show.plots import StudyPlots
from tests.show.helpers import design, trial


@pytest.fixture(scope="module")
def plot():
    return StudyPlots(mm.Study(trial(range(5), n=8), design("m1")))


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".SVG", b"<?xml"), (".pdf", b"%PDF-")])
def test_savefig_by_ending(plot, tmp_path: Path, ending, start):
    picture = plot.forest()
    path = picture.savefig(tmp_path / f"f{ending}")
    assert path.read_bytes().startswith(start)
    before = path.read_bytes()
    assert picture.savefig(path).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_savefig_refuses_by_name(plot, tmp_path: Path):
    picture = plot.forest()
    with pytest.raises(ChoiceError, match="PNG, SVG or PDF"):
        picture.savefig(tmp_path / "f.docx")
    with pytest.raises(OutputError, match="cannot be written: there is no folder"):
        picture.savefig(tmp_path / "nowhere" / "f.png")
    with pytest.raises(ChoiceError, match="dpi"):
        picture.savefig(tmp_path / "f.png", dpi=0)
    assert list(tmp_path.iterdir()) == []


def test_save_makes_its_folder_and_knows_a_file_from_a_folder(plot, tmp_path: Path):
    picture = plot.forest()
    png, svg = picture.save(tmp_path / "deep" / "figures")
    assert (png.name, svg.name) == ("forest.png", "forest.svg")
    assert svg.stat().st_size > 0
    with pytest.raises(ChoiceError, match=r"one file: savefig\('forest.png'\)"):
        picture.save("forest.png")
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(OutputError, match="could not be made"):
        picture.save(tmp_path / "taken" / "below")


def test_notebooks_show_figure_and_caption(plot):
    one, two = plot.forest(), plot.at("column").leave_one_out("2sls")
    html = one._repr_html_()
    root = ET.fromstring(html)  # noqa: S314 - made a line earlier
    assert root.tag == "figure"
    assert root.find("figcaption").text == one.caption
    assert "script" not in html
    ids = [e.get("id") for p in (one, two) for e in ET.fromstring(p._repr_svg_()).iter() if e.get("id")]  # noqa: S314
    assert len(ids) == len(set(ids))
    assert one.svg().startswith('<svg id="figure-forest"')
