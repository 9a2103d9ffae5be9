"""Small cells: what stays in the house, whether it can be computed from what leaves it, and what that does."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import ChoiceError, DataError, OneArmSiteWarning
from msmmiv.moments.exchange import read_table
from msmmiv.moments.flow import SampleFlow, rows_told
from msmmiv.moments.small_cells import cells_told
from tests.moments.helpers import design, people


def moments(df, **options):
    return mm.Moments.from_data(df, design(**options))


def header(path):
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def test_small_cells_are_refused_with_a_list(tmp_path):
    df = people(12)
    m = moments(df, cluster="c")
    small = int((m.n < 4).sum())
    assert small > 6
    with pytest.raises(
        DataError, match=rf"^{small} cells .* than 4 rows: 0/0.* \(\d\).* and \d+ more.*suppress"
    ):
        m.save(tmp_path / "m.csv", min_cell=4)
    assert not (tmp_path / "m.csv").exists()


def test_small_cells_are_suppressed_and_counted(tmp_path):
    m = moments(people(13), cluster="c")
    back = mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=4, small_cells="suppress"))
    assert back.n.min() >= 4
    assert back.n_cells == (m.n >= 4).sum()
    gone = m.n[m.n < 4]
    assert back.flow.rows_used == back.n.sum() == m.n.sum() - gone.sum()
    (record,) = back.flow.suppressed
    assert (record.source, record.min_cell, record.cells, record.rows) == ("m", 4, gone.size, gone.sum())
    assert (back.flow.rows_in, back.flow.dropped) == (m.flow.rows_in, ())
    assert header(tmp_path / "m.csv")["min_cell"] == 4
    kept = np.flatnonzero(m.n >= 4)
    np.testing.assert_array_equal(np.sort(back.first.scatter[:, 0, 0]), np.sort(m.first.scatter[kept, 0, 0]))


def test_cells_that_are_large_enough_are_saved_as_they_are(tmp_path):
    m = moments(people(14))
    back = mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=int(m.n.min()), small_cells="suppress"))
    assert back.equals(m, rtol=0)
    assert back.flow == m.flow


def test_suppressing_every_cell_is_refused(tmp_path):
    m = moments(people(15))
    with pytest.raises(DataError, match="Every cell has fewer than 1000 rows"):
        m.save(tmp_path / "m.csv", min_cell=1000, small_cells="suppress")


def test_suppression_may_leave_one_arm(tmp_path):
    df = people(16)
    df = df[(df["s"] != 0) | (df["t"] == 0) | (df["y"].rank() < 60)]
    m = moments(df)
    least = int(m.n.min())
    back = mm.Moments.load(m.save(tmp_path / "m.csv", min_cell=least + 1, small_cells="suppress"))
    with pytest.warns(OneArmSiteWarning, match=": 0"):
        assert back.usable().n_sites == 4


def test_small_cells_is_a_closed_choice(tmp_path):
    with pytest.raises(ChoiceError, match="small_cells='hide' is not one of 'refuse' and 'suppress'"):
        moments(people(17)).save(tmp_path / "m.csv", small_cells="hide")


# ----------------------------------------------------------------- what cannot be computed from the file


@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12))
def test_the_number_of_rows_fixes_no_single_cell(sizes):
    """Whatever is told, every suppressed cell could have one row more or less."""
    told = rows_told(sum(sizes), len(sizes), 10)
    assert told in (None, sum(sizes))
    if told is not None:
        assert told >= 10
        for size in sizes:  # the rest can make up for it within 1 to 9
            rest, others = told - size, len(sizes) - 1
            assert any(others <= rest - d <= 9 * others and 1 <= size + d <= 9 for d in (-1, 1))


def hollow(seed=21, left=4, cells=((2, 1),)):
    """People in which some cells have few rows."""
    df = people(seed, n=600, sites=6)
    for site, arm in cells:
        df = df.drop(df.index[(df["s"] == site) & (df["t"] == arm)][left:])
    return df


def test_a_single_small_cell_leaves_no_trace_of_its_size(tmp_path):
    """The file is the same whether the cell had one row or nine: only that it was small is told."""
    paths = [tmp_path / str(left) / "m.csv" for left in (1, 4, 9)]
    for path in paths:
        path.parent.mkdir()
        moments(hollow(left=int(path.parent.name))).save(path, min_cell=10, small_cells="suppress")
    heads = [{k: v for k, v in header(p).items() if k != "sha256"} for p in paths]
    assert heads[0] == heads[1] == heads[2]
    back, *others = (mm.Moments.load(p) for p in paths)
    assert all(back.equals(m, rtol=1e-13) for m in others)
    assert back.flow.rows_used == back.flow.rows_in == back.n.sum()
    said = "1 cell of fewer than 10 rows left out when 'm' was written; the number of rows is not told"
    assert said in str(back.flow)


def test_no_value_of_a_suppressed_cell_moves_the_file(tmp_path):
    """Values of suppressed people have no way into the file: change them all, and not a digit changes."""
    df = hollow(cells=((0, 1), (2, 1), (4, 0)), left=5)
    few = df.groupby(["s", "t"])["y"].transform("size") < 10
    paths = []
    for shift in (0.0, 1000.0):
        other = df.assign(**{c: df[c].where(~few, shift) for c in ("y", "m", "x")})
        m = moments(other, covariates=["x"])
        paths.append(m.save(tmp_path / f"{shift:g}.csv", min_cell=10, small_cells="suppress"))
    one, other = (mm.Moments.load(p) for p in paths)
    assert one.equals(other)
    record = {"source": "0", "min_cell": 10, "cells": 3, "rows": 15, "sites": 3}
    heads = [header(p) for p in paths]
    assert heads[0]["flow"].pop("suppressed") == [record]
    assert heads[1]["flow"].pop("suppressed") == [record | {"source": "1000"}]
    assert {k: v for k, v in heads[0].items() if k != "sha256"} == {
        k: v for k, v in heads[1].items() if k != "sha256"
    }


# ------------------------------------------------------------------- what merged files and analyses remember


def test_every_agency_is_remembered(tmp_path):
    df = hollow(cells=((0, 1), (5, 0)), left=6)
    paths = [
        moments(df[df["s"] % 3 == k]).save(tmp_path / f"{name}.csv", min_cell=10, small_cells="suppress")
        for k, name in enumerate(("north", "east", "south"))
    ]
    both = mm.Moments.load(*paths)
    assert [s.source for s in both.flow.suppressed] == ["north", "south"]
    merged = mm.Moments.load(both.save(tmp_path / "all.parquet"))
    assert merged.flow == both.flow
    with pytest.warns(OneArmSiteWarning, match="0 and 5"):
        used = merged.usable()
    said = [n for n in mm.fit(used, "2sls").notes if "left out when" in n]
    assert len(said) == 2
    assert "cell of fewer than 10 rows left out when 'north' was written" in said[0]
    assert "The estimates are those of what was left" in said[0]
    with pytest.warns(OneArmSiteWarning):
        page = str(mm.Study(merged).fit().summary)
    assert "when 'south' was written" in page
    steps = used.flow.to_frame()
    assert steps["rows"].iloc[:-1].sum() == steps["left"].iloc[-1] == used.n.sum()
    assert sum("left out when" in s for s in steps["step"]) == 2


def test_flows_of_suppression_come_back():
    flow = moments(hollow()).suppress(10, source="a").flow
    assert SampleFlow.from_dict(json.loads(json.dumps(flow.to_dict()))) == flow
    older = {k: v for k, v in flow.to_dict().items() if k != "suppressed"}
    assert SampleFlow.from_dict(older).suppressed == ()


# --------------------------------------------------------------------------------- what single cells tell


def test_cells_of_one_and_two_rows_are_counted(tmp_path):
    m = moments(pd.concat([hollow(left=1), hollow(22, left=2).assign(s=lambda d: d["s"] + 10)]))
    told = cells_told(m)
    assert (told.number, told.smallest, told.of_one_row, told.of_two_rows) == (24, 1, 1, 1)
    assert [s.split(":")[0] for s in told.sentences()] == ["1 cell of one row", "1 cell of two rows"]
    read = header(m.save(tmp_path / "m.csv"))["cells"]
    assert (read["of_one_row"], read["of_two_rows"], read["smallest"]) == (1, 1, 1)
    assert cells_told(moments(people(23))).sentences() == []


def test_two_rows_can_be_read_off_a_cell_of_two():
    """What the sentence about cells of two claims: half-differences from scatters, their signs from cross-products."""
    df = hollow(left=2)
    m = moments(df, covariates=["x"])
    c = int(np.flatnonzero(m.n == 2)[0])
    mean, scatter = m.first.mean[c], m.first.scatter[c]
    half = scatter[0] / np.sqrt(2 * scatter[0, 0])
    rows = df[(df["s"] == 2) & (df["t"] == 1)][["y", "m", "x"]].to_numpy()
    assert {tuple(np.round(r, 8)) for r in (mean - half, mean + half)} == {
        tuple(np.round(r, 8)) for r in rows
    }


def test_cells_in_which_everybody_is_alike_are_named():
    df = people(24).assign(m=lambda d: 10.0 * d["s"] + d["t"])
    told = cells_told(moments(df))
    assert told.of_one_value == (("m", 10),)
    assert told.sentences() == [
        "Everybody in a cell has the same value of m in 10 cells; the mean is that value."
    ]


# ----------------------------------------------------------------------------- what it does to the estimates


def test_the_effect_on_estimates_is_that_of_leaving_the_rows_out():
    df = hollow(cells=((2, 1), (4, 0)), left=6)
    m = moments(df)
    effect = mm.suppression_effect(m, min_cell=10)
    assert (effect.cells, effect.rows, effect.cells_left) == (2, 12, 10)
    assert (effect.sites_lost, effect.sites_left) == ((2, 4), 4)
    whole, left = (mm.fit(x, "2sls") for x in (m, moments(df[~df["s"].isin([2, 4])])))
    change = (left.params["m"] - whole.params["m"]) / whole.std_errors["m"]
    two = effect.to_frame().iloc[-1]
    assert (two["method"], two["method_left"], two["why"]) == ("2sls", "2sls", "")
    wanted = [whole.params["m"], whole.std_errors["m"], left.params["m"], left.std_errors["m"], change]
    got = two[["estimate", "std_error", "estimate_left", "std_error_left", "change_in_se"]].to_numpy(float)
    np.testing.assert_allclose(got, wanted, rtol=1e-10)
    rule = mm.Study(df, m.design).fit()
    first = effect.changes[0]
    assert (first.method, first.estimate) == (rule.method, pytest.approx(rule.params["m"], rel=1e-12))
    text = str(effect)
    assert "Left out: 2 of 12 cells, those of fewer than 10 rows, with 12 of" in text
    assert "2 sites are lost with them (2 and 4), 4 of 6 are left." in text
    assert f"{change:+.2f} se" in text
    assert "keep it inside" in text
    assert "keep it inside" in effect._repr_html_()
    assert json.loads(json.dumps(effect.to_dict()))["rows"] == 12


def test_no_small_cell_no_effect():
    effect = mm.suppression_effect(moments(people(25)), min_cell=5)
    assert (effect.cells, effect.rows, effect.changes) == (0, 0, ())
    assert str(effect) == "No cell has fewer than 5 rows: nothing is left out."
    assert effect.to_frame().empty
    with pytest.raises(DataError, match="Every cell has fewer than 9999 rows"):
        mm.suppression_effect(moments(people(25)), min_cell=9999)


def test_where_no_estimate_is_left_the_reason_stands():
    df = hollow(cells=tuple((s, 1) for s in range(5)), left=6)
    m = moments(df.assign(m2=df["x"]), mediators=["m", "m2"])
    effect = mm.suppression_effect(m, min_cell=10)
    assert effect.sites_left == 1
    assert len(effect.changes) >= 2
    for c in effect.changes:
        assert np.isnan(c.estimate_left)
        assert "cannot identify 2 mediators" in c.why
    assert str(effect).count("No estimate is left: ") == 1
    none = mm.suppression_effect(moments(hollow(cells=tuple((s, 1) for s in range(6)), left=6)), min_cell=10)
    assert "does not vary inside any site" in str(none)
    assert none.sites_left == 0


def test_the_floor_of_a_file_can_be_read(tmp_path):
    m = moments(people(26))
    assert read_table(m.save(tmp_path / "a.csv")).min_cell is None
    assert read_table(m.save(tmp_path / "b.parquet", min_cell=5)).min_cell == 5
