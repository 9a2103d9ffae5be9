"""Words in column names that speak for a role, in a few languages; names alone never decide."""

from __future__ import annotations

import re

from msmmiv.document.columns import tokens

__all__ = ["hinted", "is_reference"]

_WORDS = {
    "site": "site sites school ecole schule escuela scuola lycee hospital hopital krankenhaus clinic clinique klinik "
            "centre center quartier commune district village city ville stadt town county state province region ward "
            "campus store branch station facility office agency location etablissement etablissements colegio "
            "instituto gemeinde standort municipio comune spital ospedale",
    "treatment": "treat treated treatment t z arm arms assigned assignment offer offered condition randomized "
                 "randomised intervention trt tx bras traitement traite traites traitee behandlung behandelt "
                 "tratamiento tratado tratados trattamento trattato offre angebot oferta offerta",
    "cluster": "class classroom classe klasse cluster household hh family teacher room team section",
    "block": "block bloc strata stratum lottery batch pair",
    "weights": "weight weights wt wgt pweight poids gewicht",
    "outcome": "outcome y score result endline posttest earnings income wage math maths mathematics read reading note",
    "mediators": "mediator m dose dosage hours heures stunden takeup uptake participation attendance attended "
                 "compliance enrolled exposure received",
}  # fmt: skip
_HINTS = {role: frozenset(words.split()) for role, words in _WORDS.items()}
_EXACT = {
    "site": {"site", "site_id", "siteid"}, "treatment": {"treatment", "treated", "treat", "t", "arm"},
    "outcome": {"outcome", "y"},
}  # fmt: skip
_REFERENCE = frozenset((
    "control", "controls", "placebo", "none", "no", "usual", "regular", "comparison", "standard", "waitlist",
    "temoin", "temoins", "controle", "controles", "kontrolle", "kontrollgruppe",
))  # fmt: skip


def hinted(name: str, role: str) -> int:
    """How much a name speaks for a role: 2 if it is the role's own, 1 if a word of it does, otherwise 0.

    >>> hinted("site", "site"), hinted("École", "site"), hinted("age", "site")
    (2, 1, 0)
    """
    if name.strip().casefold() in _EXACT.get(role, ()):
        return 2
    words = tokens(name)
    numbered = role in ("mediators", "outcome") and re.fullmatch(r"[my]\d+", name.casefold())
    return int(
        bool(words & _HINTS[role]) or bool(numbered and name.casefold()[0] == role[0].replace("o", "y"))
    )


def is_reference(label: object) -> bool:
    """Whether a label reads like that of a control arm.

    >>> is_reference("Control group"), is_reference("groupe contrôle"), is_reference("letter")
    (True, True, False)
    """
    return bool(tokens(str(label)) & _REFERENCE)
