"""Beginning a study file: what is guessed and why, what stays open, and files as people save them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msmmiv as mm
from msmmiv.document.begin import init_study
from msmmiv.document.dialect import found_dialect
from msmmiv.document.guessing import Candidate
from msmmiv.document.problems import StudyFileError
from msmmiv.document.reading import parse_study, read_study
from msmmiv.errors import ChoiceError, ColumnError, DataError, OutputError
from msmmiv.moments.data_file import DataFile
from tests.document.makers import messy_trial, school_trial, written
from tests.show.helpers import HOSTILE


def begun(folder, frame, name="trial.csv", how=None, **roles):
    path = written(frame, folder / name, **(how or {}))
    return init_study(path, path=folder / "study.toml", **roles)


def by_role(draft):
    return {g.role: g for g in draft.guesses}


def test_a_pupils_file(tmp_path) -> None:
    draft = begun(tmp_path, school_trial())
    found = by_role(draft)
    assert {r: found[r].value for r in ("site", "treatment", "cluster")} == {
        "site": "site", "treatment": "T", "cluster": "class_id",
    }  # fmt: skip
    assert "10 labels with 48 rows each on average, two arms inside" in found["site"].reason
    assert "2 values (0 and 1), two of them inside 10 of 10 sites" in found["treatment"].reason
    assert "40 labels, each inside one site, with one arm each" in found["cluster"].reason
    assert "control" not in found
    # Math and reading are as likely; the class size is what the arms move, but its name does not say so.
    assert draft.open_roles == ("outcome", "mediators")
    assert found["mediators"].candidates[0].value == "class_size"
    assert {c.value for c in found["outcome"].candidates[:2]} == {"math", "read"}
    assert "student" not in draft.text
    assert draft.file is None
    with pytest.raises(StudyFileError, match=r"\[design\] outcome, mediators: missing.*'#' away"):
        parse_study(draft.text)


def test_candidates_are_lines_to_take_the_mark_from(tmp_path) -> None:
    text = begun(tmp_path, school_trial()).text
    for line in ('# outcome = "math"', '# mediators = ["class_size"]'):
        assert text.count(f"\n{line}") == 1
        text = text.replace(f"\n{line}", f"\n{line[2:]}")
    design = parse_study(text).design
    assert (design.outcome, design.mediators) == ("math", ("class_size",))


def test_roles_that_are_given_are_taken(tmp_path) -> None:
    draft = begun(tmp_path, school_trial(), outcome="read", mediators=["class_size"], covariates=["female"],
                  estimand="ate")  # fmt: skip
    assert by_role(draft)["outcome"].how == "given"
    assert draft.file.design == mm.Design(outcome="read", treatment="T", mediators="class_size", site="site",
                                          cluster="class_id", covariates=["female"])  # fmt: skip
    assert draft.write() == tmp_path / "study.toml"
    assert read_study(tmp_path / "study.toml") == draft.file
    with pytest.raises(OutputError, match="there already"):
        draft.write()
    draft.write(force=True)
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["study.toml", "trial.csv"]


def test_a_role_that_cannot_be(tmp_path) -> None:
    with pytest.raises(ColumnError, match=r"'maths' \(outcome\) is not in the data. Did you mean 'math'"):
        begun(tmp_path, school_trial(), outcome="maths")
    with pytest.raises(ChoiceError, match="'outcomes' is no role"):
        begun(tmp_path, school_trial(), outcomes="math")
    with pytest.raises(StudyFileError, match="has no arm 'placebo'; it has '0' and '1'"):
        begun(tmp_path, school_trial(), treatment="T", control="placebo")


def test_two_sites_as_likely_are_asked_or_left_open(tmp_path) -> None:
    frame = school_trial().drop(columns="T").assign(town=lambda d: "town " + (d["site"] % 5).astype(str))
    frame["offer"] = np.arange(len(frame)) % 2
    frame = frame.rename(columns={"site": "school"})
    found = by_role(begun(tmp_path, frame))["site"]
    assert (found.value, found.how) == (None, "open")
    assert {c.value for c in found.candidates} == {"school", "town"}
    asked = []

    def ask(role, candidates, names):
        asked.append((role, [c.value for c in candidates], names))
        return {"site": ("school",), "outcome": ("math",), "mediators": ("class_size", "read")}.get(role, ())

    draft = begun(tmp_path, frame, ask=ask)
    assert draft.file.design.site == "school"
    assert draft.file.design.mediators == ("class_size", "read")
    assert asked[0][:2] == ("site", ["school", "town"])
    assert by_role(draft)["site"].how == "answered"


def ages(frame, seed=5):
    """Whole numbers with many rows each, and both arms among people of one age."""
    return frame.assign(âge=np.random.default_rng(seed).integers(6, 12, len(frame)))


def two_schools(name="École du quartier"):
    frame = ages(messy_trial().drop(columns="Classe").iloc[:80])
    return frame.rename(columns={"École": name, "Bras traitement": "Bras (groupe)"})


def test_two_schools_are_sites_and_ages_are_not(tmp_path) -> None:
    draft = begun(tmp_path, two_schools())
    found = by_role(draft)
    assert (found["site"].value, found["treatment"].value) == ("École du quartier", "Bras (groupe)")
    assert "2 labels with 40 rows each" in found["site"].reason
    # Without a name that speaks for it, the text is as likely as the numbers: nothing is guessed.
    found = by_role(begun(tmp_path, two_schools("Lieu-dit")))["site"]
    assert (found.value, found.how) == (None, "open")
    assert [c.value for c in found.candidates] == ["Lieu-dit", "âge"]


def test_two_labels_that_are_a_mark_are_no_sites(tmp_path) -> None:
    frame = school_trial().drop(columns=["site", "class_id", "class_size"]).assign(grant="no")
    frame.loc[::3, "grant"] = "yes"
    found = by_role(begun(tmp_path, frame))["site"]
    assert (found.how, found.candidates) == ("open", ())
    frame["grant"] = frame["grant"].replace({"no": "f", "yes": "m"})
    found = by_role(begun(tmp_path, frame))["site"]
    assert (found.how, [c.value for c in found.candidates]) == ("open", ["grant"])


def test_numbers_are_never_guessed_where_text_could_be(tmp_path) -> None:
    frame = ages(messy_trial().rename(columns={"École": "Lieu-dit"}))
    found = by_role(begun(tmp_path, frame))["site"]
    assert (found.how, [c.value for c in found.candidates]) == ("open", ["Lieu-dit", "âge"])
    assert by_role(begun(tmp_path, ages(messy_trial())))["site"].value == "École"
    # Numbers of which nothing says that they are sites may be counts: those of pupils in a class are here.
    found = by_role(begun(tmp_path, school_trial().drop(columns=["site", "class_id"])))["site"]
    assert (found.how, [c.value for c in found.candidates]) == ("open", ["class_size"])


@pytest.mark.parametrize("label", ["contrôle", "témoin", "temoin", "Groupe contrôle", "CONTROLE"])
def test_control_arms_in_french(tmp_path, label) -> None:
    frame = messy_trial()
    frame["Bras traitement"] = frame["Bras traitement"].replace("témoin", label)
    found = by_role(begun(tmp_path, frame))["control"]
    assert (found.value, found.how) == (label, "guessed")


def test_arms_that_are_words(tmp_path) -> None:
    frame = school_trial().assign(T=lambda d: np.where(d["T"] == 1, "letter", "visit"))
    found = by_role(begun(tmp_path, frame))["control"]
    assert found.how == "open"
    assert found.candidates[0] == Candidate("letter", 'an arm of "T"')
    frame["T"] = frame["T"].replace("visit", "usual care")
    assert by_role(begun(tmp_path, frame))["control"].value == "usual care"
    assert by_role(begun(tmp_path, frame.assign(T=frame["T"].map({"letter": 2, "usual care": 1})), control="2"))[
        "control"
    ].value == 2  # fmt: skip


def test_blocks_weights_and_missing_arms(tmp_path) -> None:
    frame = school_trial().astype({"T": float})
    frame["lottery"] = frame["site"].astype(str) + "-" + (np.arange(len(frame)) // 24 % 2).astype(str)
    frame["weight"] = 1.0 + np.arange(len(frame)) % 3
    frame.loc[[3, 5], "T"] = np.nan
    draft = begun(tmp_path, frame, outcome="math", mediators=["class_size"], cluster="class_id")
    found = by_role(draft)
    assert found["block"].value == "lottery"
    assert found["weights"].value is None
    assert '# weights = "weight"' in draft.text
    assert "2 rows have no treatment" in draft.text
    assert '\n# missing = "drop"\n' in draft.text
    assert "\nmissing" in begun(tmp_path, frame, missing="drop").text


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, (None, None, None)),
        ({"sep": ";", "decimal": ",", "encoding": "utf-8-sig", "tail": ";;"}, (";", ",", None)),
        ({"sep": ";", "decimal": ",", "encoding": "latin-1"}, (";", ",", "latin-1")),
        ({"sep": ";", "decimal": ",", "encoding": "utf-16"}, (";", ",", "utf-16")),
        ({"sep": "\t", "decimal": ".", "encoding": "utf-8"}, ("\t", None, None)),
        ({"sep": "|", "decimal": ".", "encoding": "cp1252"}, ("|", None, "latin-1")),
    ],
)
def test_messy_files_give_the_numbers_of_the_tidy_one(tmp_path, how, expected) -> None:
    frame = messy_trial()
    draft = begun(tmp_path, frame, "my données.csv", how)
    table = draft.file.data
    assert (table.delimiter, table.decimal, table.encoding) == expected
    design = draft.file.design
    assert (design.site, design.treatment, design.control) == ("École", "Bras traitement", "témoin")
    assert (design.outcome, design.mediators, design.cluster) == (
        "Note finale",
        ("Heures suivies",),
        "Classe",
    )
    draft.write()
    study = read_study(tmp_path / "study.toml").study()
    assert study.moments.equals(mm.Moments.from_data(frame, design).usable())
    assert study.source == "my données.csv"


def test_what_cannot_be_read_is_said_in_a_sentence(tmp_path) -> None:
    def refused(content: bytes, message: str, name: str = "d.csv") -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message) as caught:
            init_study(tmp_path / name)
        assert "\n" not in str(caught.value)

    refused(b"", "is empty")
    refused(b"PK\x03\x04" + b"x" * 50, "called CSV but is an Excel workbook.*save it as CSV")
    refused(b"PAR1abc", "is a Parquet file")
    refused(b"a,b\n", "has a header and no rows")
    refused(b"x", "does not end in one of", "d.xlsx")
    refused("a,b\n1,2\n".encode("utf-32"), "UTF-32")
    refused(
        np.random.default_rng(1).bytes(5000), "'.*d.csv' is called CSV but is no text. Open it in the program"
    )
    refused(b"a,b\n1,\x002\n", "is no text")
    refused(bytes(range(1, 32)) * 20, "is no text")
    with pytest.raises(DataError, match="was not found"):
        init_study(tmp_path / "nowhere.csv")


def test_names_given_twice_are_never_chosen(tmp_path) -> None:
    frame = school_trial()
    text = frame.assign(copy=frame["math"]).to_csv(index=False).replace("copy", "math")
    (tmp_path / "twice.csv").write_text(text)
    draft = init_study(tmp_path / "twice.csv", path=tmp_path / "s.toml")
    assert any("'math' is the name of more than one column" in n for n in draft.notes)
    assert '"math' not in draft.text.split("[design]")[1]
    assert by_role(draft)["outcome"].value == "read"


def test_hostile_names_stay_in_their_quotes(tmp_path) -> None:
    names = [n for n in HOSTILE if n.strip() and "\x00" not in n]
    frame = school_trial(sites=5)
    rng = np.random.default_rng(0)
    frame = frame.assign(**{n: rng.normal(size=len(frame)) for n in names})
    frame.to_parquet(tmp_path / "h.parquet")
    draft = init_study(
        tmp_path / "h.parquet", path=tmp_path / "s.toml", outcome=names[0], mediators=[names[1]]
    )
    assert draft.file.design.outcome == names[0]
    assert not set(draft.text) & set("\x1b\u202e\x00")
    assert "\u202e" not in repr(str(draft)) or "\\u202e" in str(draft)


def test_thousands_are_noticed(tmp_path) -> None:
    (tmp_path / "t.csv").write_text("a;b\n1.234,5;2,5\n2.234,5;3,5\n")
    assert any("between thousands" in n for n in found_dialect(DataFile((str(tmp_path / "t.csv"),)))[1])


def test_moments_carry_their_roles(tmp_path) -> None:
    mm.data.star().save(tmp_path / "m.csv")
    draft = init_study(tmp_path / "m.csv", path=tmp_path / "s.toml")
    assert draft.file.design is None
    assert draft.file.data.file == ("m.csv",)
    assert "# mediators class_size" in draft.text
    draft.write()
    assert read_study(tmp_path / "s.toml").study().design.outcome == "math"
    with pytest.raises(StudyFileError, match="carry their own roles; leave out outcome"):
        init_study(tmp_path / "m.csv", outcome="math")


def test_options_of_a_reader(tmp_path) -> None:
    for bad in (
        {"delimiter": ";;"},
        {"decimal": "x"},
        {"encoding": "ebcdic"},
        {"decimal": ",", "delimiter": ","},
    ):
        with pytest.raises(ChoiceError):
            DataFile(("x.csv",), **bad)
    with pytest.raises(ChoiceError, match="needs a path"):
        DataFile(())
    design = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    pd.DataFrame({"y": [1.0]}).to_parquet(tmp_path / "p.parquet")
    with pytest.raises(DataError, match="delim is about CSV files"):
        mm.Study(DataFile((str(tmp_path / "p.parquet"),), delimiter=";"), design)
    (tmp_path / "c.csv").write_text("y\n1\n")
    with pytest.raises(DataError, match="CSV and Parquet"):
        mm.Study(DataFile((str(tmp_path / "p.parquet"), str(tmp_path / "c.csv"))), design)
    (tmp_path / "l.csv").write_bytes("s;t;m;y\né;0;1;2\n".encode("latin-1"))
    with pytest.raises(DataError, match="Invalid unicode"):
        mm.Study(tmp_path / "l.csv", design)


def test_files_in_a_list_are_read_as_one(tmp_path) -> None:
    frame = messy_trial()
    how = {"sep": ";", "decimal": ",", "encoding": "latin-1"}
    written(frame[:160], tmp_path / "a.csv", **how)
    written(frame[160:][list(frame)[::-1]], tmp_path / "b.csv", **how)
    design = mm.Design(outcome="Note finale", treatment="Bras traitement", mediators="Heures suivies", site="École",
                       control="témoin")  # fmt: skip
    data = DataFile(
        (str(tmp_path / "a.csv"), str(tmp_path / "b*.csv")), delimiter=";", decimal=",", encoding="latin-1"
    )
    assert mm.Moments.from_data(data, design).equals(mm.Moments.from_data(frame, design))
    written(frame[160:].rename(columns={"École": "Ecole"}), tmp_path / "b.csv", **how)
    with pytest.raises(ColumnError, match=r"'École' \(site\) is not in 'b.csv'. Did you mean 'Ecole'"):
        mm.Moments.from_data(data, design)
