"""Formulas as text: a page without a network cannot set LaTeX, and plain names of Greek letters read badly."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["NOTATION", "greek", "marked", "unicode_math"]

#: What the letters of the nine assumptions mean, for a line above them.
NOTATION: Final = (
    "In the formulas: g_s are the compliances of site s (γ_ps that of mediator p) and w_s its weight; δ are the "
    "mediators' effects (δ_s in site s); Γ_p and Δ_p are one person's compliance and effect; κ_s is a direct effect; "
    "a prime transposes; E, Var and Cov go over sites, Cov_s over people in one; plim is what the estimate tends to."
)

_GREEK: Final = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ",
    "pi": "π", "phi": "φ", "rho": "ρ", "sigma": "σ", "tau": "τ", "Gamma": "Γ", "Delta": "Δ",
}  # fmt: skip
_MACROS: Final = _GREEK | {
    "perp": "⊥", "mid": "|", "in": "∈", "forall": "∀", "dots": "…", "sum": "∑", "times": "×", "ge": "≥", "le": "≤",
    "qquad": " ", "quad": " ",
}  # fmt: skip
_RAISED: Final = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_WORDS: Final = re.compile(rf"(?<![A-Za-z])({'|'.join(_GREEK)})(?![A-Za-z])")


def unicode_math(tex: str) -> str:
    r"""LaTeX of the kind that the assumptions use as one line of text; an unknown macro stays as it is.

    Indices that are more than a word stand in parentheses.

    Examples
    --------
    >>> unicode_math(r"\operatorname{Cov}(\Gamma_p,\Delta_p \mid S = s) = 0 \quad \text{for all } p")
    'Cov(Γ_p, Δ_p | S = s) = 0 for all p'
    >>> unicode_math(r"\sum_{p=1}^{P} m_p\,\Delta_p, \qquad T, M_p \in \{0,1\}")
    '∑_(p=1)^P m_p Δ_p, T, M_p ∈ {0, 1}'
    """
    text = tex.replace(r"\{", "\ue000").replace(r"\}", "\ue001")
    text = re.sub(r"\\mathbf\s*", "", text)
    text = re.sub(r"\\mathbb\s*([A-Z])", lambda m: {"R": "ℝ", "T": "𝕋"}.get(m[1], m[1]), text)
    text = re.sub(r"\\[,;: ]", " ", text)
    text = re.sub(r"\\([A-Za-z]+)", lambda m: _MACROS.get(m[1], m[0]), text)
    text = re.sub(r"\\(?:text|operatorname)\{([^{}]*)\}", r"\1", text)
    text = _indices(text).replace("{", "").replace("}", "")
    text = text.replace("\ue000", "{").replace("\ue001", "}")
    return re.sub(r",(?=\S)", ", ", " ".join(text.split()))


def greek(text: str) -> str:
    """Sentences with formulas in plain letters, such as ``kappa_s`` and ``A^{-1}``, with the signs themselves.

    Examples
    --------
    >>> greek("The bias is A^{-1} sum_s w_s g_s kappa_s, or kappa mu / (mu^2 + tau^2) in summary.")
    'The bias is A⁻¹ ∑_s w_s g_s κ_s, or κ μ / (μ² + τ²) in summary.'
    """
    text = re.sub(r"(?<![A-Za-z])sum_", "∑_", text)
    return _indices(_WORDS.sub(lambda m: _GREEK[m[1]], text))


def marked(text: str) -> Markup:
    """The text escaped for a page, with its indices set as such.

    Examples
    --------
    >>> print(marked("A⁻¹ ∑_(s=1)^K w_s < 1"))
    A⁻¹ ∑<sub>s=1</sub><sup>K</sup> w<sub>s</sub> &lt; 1
    """
    from markupsafe import Markup, escape

    page = str(escape(text))
    for sign, tag in (("_", "sub"), (r"\^", "sup")):
        page = re.sub(rf"{sign}(?:\(([^()]*)\)|(\w+))", rf"<{tag}>\1\2</{tag}>", page)
    return Markup(page)  # noqa: S704 - escaped above; only our own tags were added


def _indices(text: str) -> str:
    """Braces of indices gone, and whole numbers raised."""
    text = re.sub(r"\^\{?(-?\d+)\}?", lambda m: m[1].translate(_RAISED), text)
    return re.sub(
        r"([_^])\{([^{}]*)\}", lambda m: m[1] + (m[2] if re.fullmatch(r"\w+", m[2]) else f"({m[2]})"), text
    )
