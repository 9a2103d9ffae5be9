"""The nine assumptions as data: what each one says, what breaks without it, and which checks speak to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from msmmiv.design import Estimand

__all__ = ["Assumption", "AssumptionPart", "AssumptionVariant", "Prompts", "Testable"]

Testable = Literal["by design", "partly", "no"]


@dataclass(frozen=True, slots=True)
class Prompts:
    """One question per field of research, in the words of that field.

    Attributes
    ----------
    education, political_science, epidemiology : str
        The prompt shown to an author from that field.
    """

    education: str
    political_science: str
    epidemiology: str


@dataclass(frozen=True, slots=True)
class AssumptionPart:
    """A clause of an assumption that can be looked at by itself, such as (viii.b).

    Attributes
    ----------
    id : str
        The assumption's id, a dot, and a letter.
    title, statement : str
        The clause in a few words, and in a sentence.
    formal : str
        The clause in LaTeX, without delimiters.
    testable : {"by design", "partly", "no"}
        How far design or data can settle it.
    checks : tuple of str
        The diagnostics that speak to it.
    """

    id: str
    title: str
    statement: str
    formal: str
    testable: Testable
    checks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssumptionVariant:
    """The form that an assumption takes for one estimand, such as (vii.b) for the LATE.

    Attributes
    ----------
    id : str
        The assumption's id, a dot, and a letter.
    estimand : {"ate", "late"}
        The estimand that needs this variant.
    title, statement, formal, breaks, data_can_say, testable, checks, decisive
        As in `Assumption`.
    """

    id: str
    estimand: Estimand
    title: str
    statement: str
    formal: str
    breaks: str
    data_can_say: str
    testable: Testable
    checks: tuple[str, ...]
    decisive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Assumption:
    r"""One of the nine assumptions of a multisite, multiple-mediator IV analysis.

    Attributes
    ----------
    id : str
        Roman numeral, "i" to "ix".
    title, statement : str
        The assumption in a few words, and in plain sentences.
    formal : str
        The assumption in LaTeX, without delimiters.
    estimand : tuple of {"ate", "late"}
        The estimands that need it.
    breaks : str
        What goes wrong without it, with the bias where a formula is known.
    data_can_say : str
        What the data, or the design, can contribute.
    testable : {"by design", "partly", "no"}
        That contribution in a word.
    dag_edges_ruled_out : tuple of str
        Edges that the causal graph may not have, such as ``"T -> Y"``. ``M_p`` and ``M_q`` are any
        two mediators, ``U`` and ``X`` unmeasured and measured causes, ``T_other`` and ``M_other``
        belong to other people; Greek names are a person's (``Gamma_p``, ``Delta_p``) or a site's
        (``gamma_ps``, ``delta_ps``) compliance and effect.
    checks : tuple of str
        The diagnostics that speak to it, named as in ``msmmiv/audit/check_names.py``.
    decisive : tuple of str
        Those that can contradict it; none where nothing in the data can.
    questions : tuple of str
        What the author has to answer in prose.
    prompts : Prompts
        The same in the words of a field of research.
    references : tuple of str
        Where to read more.
    variants : tuple of AssumptionVariant
        One per estimand, or none.
    parts : tuple of AssumptionPart
        The clauses, or none.
    """

    id: str
    title: str
    statement: str
    formal: str
    estimand: tuple[Estimand, ...]
    breaks: str
    data_can_say: str
    testable: Testable
    dag_edges_ruled_out: tuple[str, ...]
    checks: tuple[str, ...]
    decisive: tuple[str, ...]
    questions: tuple[str, ...]
    prompts: Prompts
    references: tuple[str, ...]
    variants: tuple[AssumptionVariant, ...] = ()
    parts: tuple[AssumptionPart, ...] = ()

    def variant_for(self, estimand: Estimand) -> AssumptionVariant | None:
        """Return the variant that an estimand needs, or None where there are no variants.

        Parameters
        ----------
        estimand : {"ate", "late"}
            The estimand of the analysis.

        Returns
        -------
        AssumptionVariant or None
            The variant; None when one wording serves both estimands.

        Examples
        --------
        >>> from msmmiv.audit import load_assumptions
        >>> seventh = load_assumptions()[6]
        >>> seventh.variant_for("late").id
        'vii.b'
        """
        return next((v for v in self.variants if v.estimand == estimand), None)
