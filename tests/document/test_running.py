"""Running a study file: what is written, what it is stamped with, and what a check finds."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import pytest

import msmmiv as mm
from msmmiv.document import checking, running
from msmmiv.document.checking import Change, _equal, _leaves, _whole_parts, check_study
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import parse_study, read_study
from msmmiv.document.running import run_study, stamped
from msmmiv.document.stamp import files_sha256, stamp_of
from msmmiv.errors import DataError, OutputError
from tests.document.makers import school_trial, written

TEXT = """
[study]
format = 1
title = "Small classes"
seed = 3
out = "made"
[data]
file = "trial.csv"
[design]
outcome = "math"
treatment = "T"
mediators = ["class_size"]
site = "site"
cluster = "class_id"
covariates = ["female"]
[estimate]
estimator = "2sls"
cov_type = "cluster"
[[compare]]
estimator = "mbtsls"
cov_type = "site"
[[compare]]
estimator = "bc_symmetric"
cov_type = "classical"
[audit]
draws = 199
planned_share = 0.5
site_covariates = "sites.csv"
[dag]
edges = ["T -> math"]
confounders = ["family"]
[arguments]
ii = '''
Nothing else came
with "small" classes.'''
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A study in a folder whose name has the marks of a pattern, and its run."""
    home = tmp_path_factory.mktemp("a [b] study")
    frame = school_trial()
    written(frame, home / "trial.csv")
    sites = frame.groupby("site", as_index=False)["female"].mean().assign(size=lambda d: d.index * 1.5)
    sites[["site", "size"]].to_csv(home / "sites.csv", index=False)
    (home / "study.toml").write_text(TEXT, encoding="utf-8")
    run_study(home / "study.toml")
    return home


@pytest.fixture
def copy(folder, tmp_path):
    """The study with its results, to be spoiled; figures are left behind."""
    return shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("figures"))


@pytest.fixture(scope="module")
def analysis(folder):
    return stamped(read_study(folder / "study.toml"))


@pytest.fixture
def known(monkeypatch, analysis):
    """Nothing is computed again; the stamp is made anew."""

    def again(file, *, progress=None):
        return replace(analysis, stamp=stamp_of(file))

    monkeypatch.setattr(running, "stamped", again)
    monkeypatch.setattr(checking, "stamped", again)


def results(folder):
    return json.loads((folder / "made" / "results.json").read_text(encoding="utf-8"))


def test_everything_is_written_once_and_whole(folder) -> None:
    out = folder / "made"
    for name in ("report.html", "estimates.csv", "moments.csv", "audit/audit.html", "audit/audit.json"):
        assert (out / name).is_file(), name
    assert sorted(p.name for p in folder.iterdir()) == ["made", "sites.csv", "study.toml", "trial.csv"]
    assert not [p for p in out.rglob("*") if p.name.startswith(".")]
    made = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert set(results(folder)["files"]) == made
    # The audit was done once: the report and the audit's own page have the same findings.
    own = json.loads((out / "audit" / "audit.json").read_text(encoding="utf-8"))
    assert results(folder)["audit"] == own
    assert (own["draws"], own["seed"]) == (199, 3)


def test_the_stamp_can_be_checked_by_hand(folder) -> None:
    stamp = results(folder)["stamp"]
    for key, name in (
        ("the study file", "study.toml"),
        ("the data", "trial.csv"),
        ("the site covariates", "sites.csv"),
    ):
        assert stamp[f"SHA-256 of {key}"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert (stamp["study file"], stamp["data"], stamp["seed"]) == ("study.toml", "trial.csv", "3")


def test_the_file_says_what_is_computed(folder, analysis) -> None:
    file = read_study(folder / "study.toml")
    study = mm.Study(school_trial(), file.design)
    head = study.fit("2sls", cov_type="cluster")
    # The engines of files and of frames add in another order.
    assert analysis.headline.params.to_numpy() == pytest.approx(head.params.to_numpy(), rel=1e-12)
    assert analysis.headline.std_errors.to_numpy() == pytest.approx(head.std_errors.to_numpy(), rel=1e-12)
    more = {(f.method, f.cov_type) for f in analysis.fits} - {
        (f.method, f.cov_type)
        for f in study.analysis(estimator="2sls", cov_type="cluster", audit=analysis.audit).fits
    }
    assert more == {("mbtsls", "site")}
    assert any("bc_symmetric" in s for s in analysis.skipped)
    assert analysis.title == "Small classes"
    audit = analysis.audit
    assert audit["ii"].argument == 'Nothing else came\nwith "small" classes.'
    assert audit["ii"].status == "contradicted"  # by the edge that the graph declares
    assert ("T", "math") in audit.dag.edges
    assert ("family", "math") in audit.dag.edges
    assert analysis.rank.spectrum.seed == 3
    assert analysis.rank.spectrum.draws == 199
    assert file.audit().to_json() == audit.to_json()


def test_options_and_corrections_are_fitted(folder) -> None:
    file = parse_study(
        TEXT.replace('estimator = "2sls"', 'estimator = { name = "fuller", a = 4 }')
        .replace('cov_type = "cluster"', 'cov_type = "site"')
        .replace('estimator = "mbtsls"\ncov_type = "site"', 'cov_type = "site"\nsmall_sample = "CR3"')
        .replace('estimator = "bc_symmetric"', 'estimator = { name = "bc_symmetric", weights = "precision" }'),
        path=folder / "study.toml",
    )  # fmt: skip
    study = file.study()
    analysis = file.analyzed(study)
    own = study.fit(mm.Fuller(4.0), cov_type="site")
    assert (analysis.headline.method, analysis.headline.cov_type) == ("fuller(4)", "site")
    assert analysis.headline.params.equals(own.params)
    more = next(f for f in analysis.fits if (f.method, f.small_sample) == ("2sls", "CR3"))
    assert more.std_errors.equals(study.fit("2sls", cov_type="site", small_sample="CR3").std_errors)
    (refused,) = (s for s in analysis.skipped if s.startswith("estimator = "))
    assert refused.startswith(
        'estimator = { name = "bc_symmetric", weights = "precision" }, cov_type = "classical": '
    )


def test_planned_shares_from_a_file(copy) -> None:
    text = TEXT.replace("planned_share = 0.5", 'planned_shares = "shares.csv"')
    sites = school_trial()["site"].drop_duplicates()

    def audited(shares, rows=slice(None)):
        sites.to_frame().assign(share=shares).iloc[rows].to_csv(copy / "shares.csv", index=False)
        file = parse_study(text, path=copy / "study.toml")
        assert stamp_of(file)["SHA-256 of the planned shares"] == files_sha256(
            [str(copy / "shares.csv")], copy
        )
        return file.audit()

    # The arms are alike in all sites; a plan of 9 in 10 was not kept.
    kept, broken = (audited(s).to_frame().set_index("assumption").loc["vi", "status"] for s in (0.5, 0.9))
    assert broken == "contradicted" != kept
    with pytest.raises(StudyFileError, match=r"study.toml: \[audit\] planned_shares: .* no share for sites"):
        audited(0.5, slice(1, None))
    with pytest.raises(StudyFileError, match=r"\[audit\] planned_shares: A planned share must lie"):
        audited(1.5)
    (copy / "shares.csv").unlink()
    with pytest.raises(StudyFileError, match=r"study.toml: \[audit\] planned_shares: There is no file"):
        parse_study(text, path=copy / "study.toml").audit()


def test_nothing_differs_at_first(folder) -> None:
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    found = check_study(folder / "study.toml")
    assert found.changes == ()
    assert found.compared > 300
    assert str(found).startswith("Nothing differs")
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_a_comment_in_the_file_changes_its_hash_only(copy, known) -> None:
    (copy / "study.toml").write_text(f"{TEXT}\n# a comment\n", encoding="utf-8")
    (change,) = check_study(copy / "study.toml").changes
    assert change.name == "stamp: SHA-256 of the study file"


def test_another_person_moves_numbers(copy) -> None:
    written(school_trial().iloc[1:], copy / "trial.csv")
    old = results(copy)["fits"][0]["terms"][0]
    found = check_study(copy / "study.toml").to_frame().set_index("name")
    assert found.index[0] == "stamp: SHA-256 of the data"
    term = "fits: 2sls, cluster, wald: terms: class_size"
    for key in ("estimate", "std_error", "p_value"):
        assert found.loc[f"{term}: {key}", "old"] == old[key]
    now = read_study(copy / "study.toml").study().fit("2sls", cov_type="cluster")
    assert found.loc[f"{term}: estimate", "new"] == pytest.approx(now.params["class_size"], rel=1e-12)
    assert found.loc["flow: rows_in", "new"] == found.loc["flow: rows_in", "old"] - 1
    assert not [n for n in found.index if n.startswith("versions")]


def test_versions_statuses_and_lost_values_are_noticed(copy, known) -> None:
    kept = results(copy)
    kept["versions"]["numpy"] = "1.0"
    finding = next(f for f in kept["audit"]["findings"] if f["assumption"] == "ii")
    finding["status"] = "not contradicted"
    del kept["fits"][0]["terms"][0]["std_error"]
    kept["fits"][0]["terms"][0]["estimate"] *= 1 + 1e-12
    kept["fits"][0]["terms"][0]["kurtosis"] = 3.0
    (copy / "made" / "results.json").write_text(json.dumps(kept), encoding="utf-8")
    found = {c.name: (c.old, c.new) for c in check_study(copy / "study.toml").changes}
    assert found["versions: numpy"][0] == "1.0"
    assert found["audit: findings: ii: status"] == ("not contradicted", "contradicted")
    assert found["fits: 2sls, cluster, wald: terms: class_size: std_error"][0] is None
    assert found["fits: 2sls, cluster, wald: terms: class_size: kurtosis"] == (3.0, None)
    assert len(found) == 4


def test_files_of_an_earlier_run_go_and_others_stay(copy, undrawn, known) -> None:
    (copy / "made" / "mine.txt").write_text("x")
    (copy / "kept.txt").write_text("x")
    kept = results(copy)
    kept["files"] += ["../kept.txt", "audit/old.csv"]
    (copy / "made" / "audit" / "old.csv").write_text("x")
    (copy / "made" / "results.json").write_text(json.dumps(kept), encoding="utf-8")
    run_study(copy / "study.toml")
    assert (copy / "made" / "mine.txt").exists()
    assert (copy / "kept.txt").exists()
    assert not (copy / "made" / "audit" / "old.csv").exists()
    assert "figures/forest.png" in kept["files"]
    assert not (copy / "made" / "figures" / "forest.png").exists()
    assert check_study(copy / "study.toml").changes == ()


def test_a_run_that_fails_leaves_what_was_there(copy, undrawn, known, monkeypatch) -> None:
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}

    def broken(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "write_audit", broken)
    with pytest.raises(KeyboardInterrupt):
        run_study(copy / "study.toml")
    with pytest.raises(KeyboardInterrupt):
        run_study(copy / "study.toml", out=copy / "elsewhere")
    assert {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()} == before
    assert not (copy / "elsewhere").exists()


def test_refusals(folder, tmp_path) -> None:
    file = read_study(folder / "study.toml")
    with pytest.raises(StudyFileError, match=r"no earlier run in .*results.json is not there"):
        check_study(file, out=tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(StudyFileError, match="has no stamp"):
        check_study(file, out=tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(StudyFileError, match="cannot be read as results"):
        check_study(file, out=tmp_path)
    with pytest.raises(OutputError, match="is a file"):
        run_study(file, out=tmp_path / "results.json")
    with pytest.raises(StudyFileError, match="not read from a file"):
        run_study(replace(file, path=None))
    elsewhere = replace(file, path=tmp_path / "study.toml")
    (tmp_path / "study.toml").write_text(TEXT)
    with pytest.raises(DataError, match=r"No file matches 'trial.csv' beside 'study.toml'"):
        run_study(elsewhere)
    with pytest.raises(DataError, match="was not found"):
        elsewhere.study()
    with pytest.raises(StudyFileError, match=r"\[design\]: missing. It says which column of 'trial.csv'"):
        replace(file, design=None).study()
    shutil.copy(folder / "trial.csv", tmp_path / "trial.csv")
    with pytest.raises(StudyFileError, match=r"\[audit\] site_covariates: There is no file"):
        elsewhere.audit()


def test_moments_take_no_keys_about_rows(tmp_path) -> None:
    mm.data.star().save(tmp_path / "m.csv")

    def study(text: str):
        head = f'[study]\nformat = 1\n[data]\nfile = "m.csv"\n{text}'
        return parse_study(head, path=tmp_path / "s.toml").study()

    assert study("").design.outcome == "math"
    with pytest.raises(StudyFileError, match=r"\[data\] missing: is about rows"):
        study("missing = 'drop'\n")
    with pytest.raises(StudyFileError, match=r"\[design\]: the data are moments"):
        study("[design]\noutcome = 'y'\ntreatment = 't'\nmediators = 'm'\nsite = 's'\n")


def test_the_hash_of_several_files_is_that_of_their_list(tmp_path) -> None:
    for name in "ba":
        (tmp_path / f"{name}.csv").write_text(name)
    hashes = [hashlib.sha256(n.encode()).hexdigest() for n in "ab"]
    listed = f"{hashes[0]}  a.csv\n{hashes[1]}  b.csv\n"
    files = [str(tmp_path / "b.csv"), str(tmp_path / "a.csv")]
    assert files_sha256(files, tmp_path) == hashlib.sha256(listed.encode()).hexdigest()
    assert files_sha256(files[1:], tmp_path) == hashes[0]


def test_a_part_that_is_new_is_one_change() -> None:
    old = {"fits: a: x": 1.0, "fits: a: y": None}
    new = old | {
        "fits: b: x": 1.0,
        "fits: b: z": 2.0,
        "fits: b: none": None,
        "fits: a: y": None,
        "fits: a: w": 3.0,
    }
    assert _whole_parts(new, old) == [Change("fits: b", None, "(2 values)"), Change("fits: a: w", None, 3.0)]
    assert _whole_parts(old, new) == []


def test_names_of_values_tell_twins_apart() -> None:
    glance = {"method": "2sls", "cov_type": "site", "interval": "wald", "direct_effect": True}
    twins = [{"term": "a", "x": 1.0}, {"term": "a", "x": 2.0}, 5]
    items = {"fits": [{"glance": glance}], "list": twins, "reason": "p = 0.3", "status": "empty"}
    found = dict(_leaves("", items))
    assert found["list: a #1: x"] == 1.0
    assert found["list: 3"] == 5
    assert found["status"] == "empty"
    assert found["fits: 2sls + direct effect, site, wald: glance: direct_effect"] is True
    assert "reason" not in found
    other = {"glance": glance | {"small_sample": "CR2"}}
    usual = {"glance": glance | {"small_sample": "CR1P"}}
    assert checking._labels([usual, other]) == [
        "2sls + direct effect, site, wald",
        "2sls + direct effect, site CR2, wald",
    ]
    assert not _equal(1.0, True)
    assert not _equal(None, 1.0)
    assert _equal(1.0, 1 + 1e-10)
    assert not _equal(1.0, 1 + 1e-6)
    assert str(Change("a", None, 2.5)) == "a: (none) -> 2.5"
