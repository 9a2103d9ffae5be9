"""Formulas as text: nothing of LaTeX is left, indices are kept, names of letters inside words stay."""

from __future__ import annotations

import pytest

import msmmiv as mm
from msmmiv.show.formulas import NOTATION, greek, marked, unicode_math

FORMS = [f for a in mm.load_assumptions() for f in (a, *a.variants, *a.parts)]


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.id)
def test_every_formal_statement_becomes_a_line(form):
    text = unicode_math(form.formal)
    assert not set(text) & set("\\\n\ue000\ue001")
    assert "  " not in text
    assert text.count("{") == text.count("}") == form.formal.count(r"\{")
    assert text.count("(") == text.count(")")


@pytest.mark.parametrize(
    ("tex", "line"),
    [
        (r"Y(\mathbf m) = Y(\mathbf 0) + \sum_{p=1}^{P} m_p\,\Delta_p", "Y(m) = Y(0) + ∑_(p=1)^P m_p Δ_p"),
        (r"T \perp Y(t) \mid s, \qquad t \in \mathbb T,\; s \in \{1,\dots,K\}", "T ⊥ Y(t) | s, t ∈ 𝕋, s ∈ {1, …, K}"),
        ("\n\\Gamma_p = 0 \\;\\;\\forall p,s\n\\qquad\\text{or}\\qquad \\Gamma_p", "Γ_p = 0 ∀ p, s or Γ_p"),
        (r"\operatorname{rank}(\mathbf G) = P, \quad \mathbf{G} = (\gamma_{ps})_{K \times P}",
         "rank(G) = P, G = (γ_ps)_(K × P)"),
        (r"K \ge Q, \text{ span } \mathbb R^P", "K ≥ Q, span ℝ^P"),
        (r"E[\delta_{qs} \mid \gamma_{1s},\dots] = \delta_q", "E[δ_qs | γ_1s, …] = δ_q"),
    ],
)  # fmt: skip
def test_some_lines_word_for_word(tex, line):
    assert unicode_math(tex) == line


def test_what_is_not_known_stays():
    assert unicode_math(r"\nabla x") == r"\nabla x"


def test_words_that_hold_a_name_stay():
    text = "The sum of a summary, mutual pirates, one phial, rhotic delta; M1 and Cov_s stay."
    assert greek(text) == text.replace("delta;", "δ;")
    assert greek("[E w g g']^{-1} E[w g^2 g'(delta_s - delta)]") == "[E w g g']⁻¹ E[w g² g'(δ_s - δ)]"
    assert not [f.id for f in FORMS if hasattr(f, "breaks") and {"{", "}", "^"} & set(greek(f.breaks))]


def test_marks_are_escaped_and_set():
    assert marked("<b>x_i</b>") == "&lt;b&gt;x<sub>i</sub>&lt;/b&gt;"
    assert marked("Cov_s(Γ_p)") == "Cov<sub>s</sub>(Γ<sub>p</sub>)"
    assert "_" not in marked(NOTATION)
