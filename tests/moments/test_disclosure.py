"""What files with a floor must not give back: weighted rows, sizes between floors, counts by subtraction, copies."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import msmmiv as mm
from msmmiv.errors import DataError, MomentsFileError, WeightsError
from msmmiv.moments.flow import DroppedSite, MissingCount, SampleFlow, rows_told
from msmmiv.moments.small_cells import cells_told
from tests.moments.helpers import design, people
from tests.moments.test_moments_format import read_by_the_page, write_by_the_page

X = [f"x{k}" for k in range(7)]
WEIGHTED = {"covariates": X, "weights": "w", "weight_kind": "probability"}


def header(path):
    return json.loads(path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))


def trial(sizes, seed=0, usual=30):
    """People by site and arm; ``sizes`` says which cells are of another size."""
    rng, parts = np.random.default_rng(seed), []
    for s in range(6):
        for t in (0, 1):
            n = sizes.get((s, t), usual)
            m = rng.normal(t, 1, n)
            parts.append(pd.DataFrame({"s": s, "t": t, "m": m, "y": m + rng.normal(size=n)}))
    return pd.concat(parts, ignore_index=True)


def weighted(usual, seed=3):
    rng, df = np.random.default_rng(seed), trial({}, usual=usual)
    return df.assign(w=rng.uniform(0.5, 2, len(df)), **{x: rng.normal(size=len(df)) for x in X})


# --------------------------------------------------------------------------------- A1: weighted cells


def rows_of_a_weighted_cell(m, c):
    """Rows of a cell from X'WX and X'W^2X: eigenvectors of the second in the metric of the first."""

    def whole(part):
        mean = np.concatenate([[1.0], part.mean[c]])
        out = part.weight[c] * np.outer(mean, mean)
        out[1:, 1:] += part.scatter[c]
        return out

    u, s, _ = np.linalg.svd(whole(m.first))
    k = int((s > 1e-10 * s[0]).sum())
    w, q = np.linalg.eigh((u[:, :k] / np.sqrt(s[:k])).T @ whole(m.squared) @ (u[:, :k] / np.sqrt(s[:k])))
    rows = q.T @ (u[:, :k] * np.sqrt(s[:k])).T / np.sqrt(w)[:, None]
    return rows[:, 1:] / rows[:, :1]


def test_the_attack_works_on_a_small_weighted_cell_and_such_a_file_says_so(tmp_path):
    df = weighted(10)
    m = mm.Moments.from_data(df, design(**WEIGHTED))
    got = rows_of_a_weighted_cell(m, 0)
    true = df[(df["s"] == 0) & (df["t"] == 0)][["y", "m", *X]].to_numpy()
    assert np.abs(np.sort(got, axis=0) - np.sort(true, axis=0)).max() < 1e-6
    assert cells_told(m).of_weighted_rows == 12
    assert header(m.save(tmp_path / "m.csv"))["cells"]["of_weighted_rows"] == 12
    assert "give every row back" in "".join(cells_told(m).sentences())


@pytest.mark.parametrize("kind", ["analytic", "probability"])
def test_a_floor_counts_weighted_cells_as_small(kind, tmp_path):
    m = mm.Moments.from_data(weighted(11), design(**WEIGHTED | {"weight_kind": kind}))
    with pytest.raises(DataError, match=r"^12 cells with fewer than 12 rows: .*min_cell=10 was raised"):
        m.save(tmp_path / "m.csv", min_cell=10)
    df = pd.concat([weighted(12), weighted(11).assign(s=lambda d: d["s"] + 10)])
    m = mm.Moments.from_data(df, design(**WEIGHTED | {"weight_kind": kind}))
    path = m.save(tmp_path / "m.csv", min_cell=10, small_cells="suppress")
    back = mm.Moments.load(path)
    assert (back.n_cells, back.n.min(), header(path)["min_cell"]) == (12, 12, 12)
    assert header(path)["cells"]["of_weighted_rows"] == 0
    assert back.flow.suppressed[0].min_cell == 12
    assert mm.suppression_effect(m, min_cell=10).min_cell == 12
    plain = mm.Moments.from_data(weighted(10), design(covariates=X))
    assert header(plain.save(tmp_path / "p.csv", min_cell=10))["min_cell"] == 10


def test_a_weight_that_outweighs_the_others_is_told():
    df = weighted(30)
    one = ~df.duplicated(["s", "t"])
    m = mm.Moments.from_data(
        df.assign(w=np.where(one & (df["s"] < 2), 1.0, 1e-6)), design(weights="w", weight_kind="probability")
    )
    told = cells_told(m)
    assert (told.of_one_weight, told.of_weighted_rows) == (4, 0)
    assert "4 cells in which one weight outweighs the others" in told.sentences()[0]


def test_frequency_weights_keep_no_floor(tmp_path):
    m = mm.Moments.from_data(trial({(0, 0): 2}).assign(k=5), design(weights="k", weight_kind="frequency"))
    for what in (lambda: m.save(tmp_path / "m.csv", min_cell=10), lambda: m.suppress(10)):
        with pytest.raises(WeightsError, match=r"cells hold copies.*one row per person"):
            what()
    assert header(m.save(tmp_path / "m.csv"))["counts"] == "copies"


# --------------------------------------------------------------------------- A2, B13: sizes between floors


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(2, 9))
def test_two_floors_fix_no_cell(sizes, first):
    """Whatever both records tell, no suppressed cell is fixed, nor known by whoever knows another one."""
    df = pd.DataFrame({"n": sizes})
    for lowest, most in ((1, first - 1), (first, 9)):
        group = df["n"][df["n"].between(lowest, most)].tolist()
        told = rows_told(sum(group), len(group), most + 1, lowest)
        if told is None:
            continue
        assert len(group) >= 3
        assert told > most
        for known in group:  # the others, after one is known, are not fixed
            left, others = told - known, len(group) - 1
            possible = [
                x for x in range(lowest, most + 1) if (others - 1) * lowest <= left - x <= (others - 1) * most
            ]
            assert len(possible) > 1


@pytest.mark.parametrize("by_file", [False, True])
def test_an_earlier_floor_does_not_fix_what_a_later_one_takes(by_file, tmp_path):
    small = {(0, 0): 3, (1, 0): 2, (2, 0): 4, (3, 1): 5, (4, 1): 5, (5, 1): 5}
    m = mm.Moments.from_data(trial(small), design())
    if by_file:
        first = mm.Moments.load(m.save(tmp_path / "n5.csv", min_cell=5, small_cells="suppress"))
    else:
        first = m.suppress(5, source="a")
    assert first.flow.suppressed[0].rows == 9
    path = first.save(tmp_path / "n10.csv", min_cell=10, small_cells="suppress")
    records = header(path)["flow"]["suppressed"]
    assert [(r["min_cell"], r["cells"], r["rows"]) for r in records] == [(10, 3, None), (5, 3, None)] or [
        (r["min_cell"], r["cells"], r["rows"]) for r in records
    ] == [(5, 3, None), (10, 3, None)]
    back = mm.Moments.load(path)
    assert back.flow.rows_used == back.n.sum() == 180


def test_a_floor_that_took_nothing_is_remembered(tmp_path):
    m = mm.Moments.from_data(trial({(0, 0): 5, (1, 0): 5, (2, 0): 6}), design())
    first = mm.Moments.load(m.save(tmp_path / "n5.csv", min_cell=5))
    assert (first.floor, first.flow.suppressed) == (5, ())
    assert m.suppress(10).flow.suppressed[0].rows == 16
    assert first.suppress(10).flow.suppressed[0].rows is None


# ------------------------------------------------------------------------------ A3: counts by subtraction


def test_one_withheld_count_takes_the_next_with_it(tmp_path):
    df = trial({})
    for arm, rows in ((0, 10), (1, 3)):
        df.loc[df.index[(df["s"] == 0) & (df["t"] == arm)][:rows], "y"] = np.nan
    flow = header(mm.Moments.from_data(df, design()).save(tmp_path / "m.csv", min_cell=10))["flow"]
    assert (flow["missing"], flow["incomplete"], flow["missing_cells"]) == ([["y", 13]], 13, [])


def test_totals_below_the_floor_are_not_told(tmp_path):
    df = trial({})
    df.loc[[0, 100], "y"] = np.nan
    m = mm.Moments.from_data(df, design())
    path = m.save(tmp_path / "m.csv", min_cell=10)
    flow = header(path)["flow"]
    assert (flow["missing"], flow["incomplete"], flow["missing_cells"]) == ([], 0, [])
    assert (flow["untold"], flow["rows_in"]) == (["y"], len(df) - 2)
    back = mm.Moments.load(path)
    assert back.flow.rows_used == back.n.sum()
    assert "missing a declared column (y: not told)" in str(back.flow)


@given(
    st.dictionaries(st.tuples(st.sampled_from("ymx"), st.integers(0, 3)), st.integers(1, 25), max_size=8),
    st.integers(0, 30),
)
def test_what_is_told_of_missing_values_keeps_to_the_floor(counts, overlap):
    by = {}
    for (column, _), rows in counts.items():
        by[column] = by.get(column, 0) + rows
    incomplete = max([max(by.values(), default=0), sum(by.values()) - overlap])
    cells = tuple(MissingCount(site, 0, column, rows) for (column, site), rows in counts.items())
    whole = SampleFlow(500, tuple(by.items()), incomplete, cells)
    flow = whole.floored(10)
    assert flow.rows_used == whole.rows_used
    assert flow.incomplete == 0 or flow.incomplete >= 10
    for column, total in flow.missing:
        told = [c.rows for c in flow.missing_cells if c.column == column]
        assert all(r >= 10 for r in (total, *told))
        hidden, number = total - sum(told), sum(c.column == column for c in cells) - len(told)
        assert number == 0 or (number >= 2 and hidden >= 10)
    assert {c.column for c in flow.missing_cells} <= dict(flow.missing).keys()
    rest = flow.incomplete - sum(r for _, r in flow.missing)
    assert not flow.untold or rest <= 0 or rest >= 10
    assert flow.floored(10) == flow
    assert SampleFlow.from_dict(json.loads(json.dumps(flow.to_dict()))) == flow


def test_small_sites_that_were_dropped_are_told_like_suppressed_cells():
    flow = SampleFlow(100).drop(DroppedSite("a", 7, "one arm"), DroppedSite("b", 20, "one arm"))
    low = flow.floored(10)
    assert low.dropped == (DroppedSite(None, None, "one arm"), DroppedSite("b", 20, "one arm"))
    assert (low.rows_in, low.rows_used) == (93, 73)
    assert "the number of rows is not told" in str(low)
    three = SampleFlow(100).drop(*(DroppedSite(s, 5, "one arm") for s in "abc")).floored(10)
    assert three.dropped == (DroppedSite(None, 15, "one arm"),)
    assert SampleFlow.from_dict(json.loads(json.dumps(low.to_dict()))) == low


# --------------------------------------------------------------------------------- B9: a floor is carried


def test_merged_files_carry_the_smallest_floor(tmp_path):
    df = people(5, n=600, sites=6)
    a, b, c = (mm.Moments.from_data(df[df["s"] % 3 == k], design()) for k in range(3))
    a.save(tmp_path / "a.csv", min_cell=10)
    b.save(tmp_path / "b.csv", min_cell=5)
    c.save(tmp_path / "c.csv")
    paths = [tmp_path / f"{x}.csv" for x in "abc"]
    both, every = mm.Moments.load(*paths[:2]), mm.Moments.load(*paths)
    assert (both.floor, every.floor, (both + every.drop(*a.sites, *b.sites)).floor) == (5, None, None)
    assert header(both.save(tmp_path / "ab.csv"))["min_cell"] == 5
    assert header(both.save(tmp_path / "ab.csv", min_cell=7))["min_cell"] == 7
    assert header(every.save(tmp_path / "abc.csv"))["min_cell"] is None


def test_a_floor_that_cells_do_not_keep_is_refused(tmp_path):
    path = mm.Moments.from_data(people(5), design()).save(tmp_path / "m.csv")
    head, rows = read_by_the_page(path)
    bare = {k: v for k, v in head.items() if k != "sha256"} | {"min_cell": 1000}
    write_by_the_page(path, bare, list(rows[0]), [list(r.values()) for r in rows])
    with pytest.raises(MomentsFileError, match=r"no cell has fewer than 1,000 rows .*its smallest has"):
        mm.Moments.load(path)
