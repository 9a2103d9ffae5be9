"""Design: which column plays which role. It holds no data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from msmmiv.errors import DesignError, check_choice, listing
from msmmiv.notebook import card, pairs

__all__ = ["Design", "Estimand", "Label", "TreatmentKind", "WeightKind"]

Label: TypeAlias = str | int | float | bool
TreatmentKind: TypeAlias = Literal["arms", "continuous"]
WeightKind: TypeAlias = Literal["analytic", "frequency", "probability"]
Estimand: TypeAlias = Literal["ate", "late"]

#: Role names in the order in which they are printed; each is a field of `Design`.
_COLUMN_ROLES = (
    "outcome",
    "treatment",
    "mediators",
    "site",
    "covariates",
    "block",
    "cluster",
    "weights",
)
_MANY = ("mediators", "covariates")


@dataclass(frozen=True, kw_only=True)
class Design:
    """The roles of the columns in a multisite trial; build it first, everything else reads it.

    A treatment is randomised inside each site and moves the mediators; the outcome is explained by the
    mediators. The design is validated when it is made, never changes, is hashable and prints itself.

    Parameters
    ----------
    outcome, treatment : str
        Column names.
    mediators : str or sequence of str
        One or more numeric columns, P of them.
    site : str
        Column name.
    covariates : sequence of str, optional
        Numeric pre-treatment columns that enter with one slope each, common to all sites.
    block : str, optional
        Randomisation block inside a site: intercepts are per block, instruments stay per site.
    cluster : str, optional
        Group inside a site (classroom, household) for cluster-robust covariances. Labels are global.
    weights : str, optional
        Column of positive weights; ``weight_kind`` must say what they mean.
    weight_kind : {"analytic", "frequency", "probability"}, optional
        Analytic: precision of a row. Frequency: the row stands for that many identical rows.
        Probability: inverse inclusion probability.
    control : str, int, float or bool, optional
        Label of the reference arm. Needed unless the arms are 0/1 (or False/True), where 0 is meant.
    treatment_kind : {"arms", "continuous"}
        Arms are labels; a continuous treatment is a dose with a linear effect on every mediator.
    estimand : {"ate", "late"}
        What the coefficients are read as: average effects, or effects among compliers (two arms and
        0/1 mediators only).

    Raises
    ------
    DesignError
        A column in two roles, an empty or repeated role, or options that contradict each other.
    ChoiceError
        A value outside a closed list.

    See Also
    --------
    Design.from_formula : the same from one line of text.

    Examples
    --------
    >>> import msmmiv as mm
    >>> d = mm.Design(outcome="math", treatment="small", mediators=["class_size"], site="school")
    >>> print(d)
    outcome      math
    treatment    small (arms; control: 0)
    mediators    class_size
    site         school
    estimand     average effects across sites (ate)
    """

    outcome: str
    treatment: str
    mediators: tuple[str, ...]
    site: str
    covariates: tuple[str, ...] = ()
    block: str | None = None
    cluster: str | None = None
    weights: str | None = None
    weight_kind: WeightKind | None = None
    control: Label | None = None
    treatment_kind: TreatmentKind = "arms"
    estimand: Estimand = "ate"

    def __post_init__(self) -> None:
        for role in _MANY:
            value = getattr(self, role)
            names = (value,) if isinstance(value, str) else () if value is None else value
            if not isinstance(names, Iterable):
                raise DesignError(f"The {role} must be column names, not {value!r}.")
            if isinstance(names, set | frozenset):
                raise DesignError(f"The {role} are a set, which has no order. Give a list: {role}=[...].")
            object.__setattr__(self, role, tuple(names))
        control: Any = self.control
        if hasattr(control, "item"):  # a numpy scalar: keep the plain value
            control = control.item()
        if isinstance(control, float) and control.is_integer():  # as in the labels of arms
            control = int(control)
        object.__setattr__(self, "control", control)
        self._check_names()
        check_choice(self.treatment_kind, TreatmentKind, "treatment_kind")
        check_choice(self.estimand, Estimand, "estimand")
        self._check_options()

    def _check_names(self) -> None:
        if not self.mediators:
            raise DesignError("A design needs at least one mediator: mediators=[...].")
        seen: dict[str, str] = {}
        for role, name in self.roles():
            given: object = name
            if not isinstance(given, str) or not given:
                raise DesignError(f"The {role} must be a column name, not {name!r}.")
            if name in seen:
                hint = (
                    " For standard errors clustered by site, leave `cluster` out and ask for cov_type='site'."
                    if {role, seen[name]} == {"site", "cluster"}
                    else ""
                )
                raise DesignError(
                    f"Column {name!r} is in two roles: {seen[name]} and {role}. "
                    f"Give each role its own column.{hint}"
                )
            seen[name] = role

    def _check_options(self) -> None:
        control: Any = self.control
        if control is not None and (not isinstance(control, str | int | float) or control != control):  # noqa: PLR0124
            raise DesignError(f"The control must be the label of an arm (text or a number), not {control!r}.")
        if self.weights is None and self.weight_kind is not None:
            raise DesignError(f"weight_kind={self.weight_kind!r} was given without weights=.")
        if self.weights is not None:
            if self.weight_kind is None:
                raise DesignError(
                    f"weights={self.weights!r} needs weight_kind=: 'analytic' (precision of a row), "
                    "'frequency' (copies of a row) or 'probability' (inverse inclusion probability)."
                )
            check_choice(self.weight_kind, WeightKind, "weight_kind")
        if self.treatment_kind == "continuous":
            if self.control is not None:
                raise DesignError("A continuous treatment has no control arm; leave `control` out.")
            if self.estimand == "late":
                raise DesignError(
                    "estimand='late' needs two arms and 0/1 mediators; the treatment is continuous. "
                    "Use estimand='ate'."
                )

    def roles(self) -> tuple[tuple[str, str], ...]:
        """Every (role, column) pair in a fixed order, one pair per column.

        Examples
        --------
        >>> import msmmiv as mm
        >>> mm.Design(outcome="y", treatment="t", mediators="m", site="s").roles()[:2]
        (('outcome', 'y'), ('treatment', 't'))
        """
        pairs: list[tuple[str, str]] = []
        for role in _COLUMN_ROLES:
            value = getattr(self, role)
            if role in _MANY:
                pairs += [(role[:-1], name) for name in value]
            elif value is not None or role in ("outcome", "treatment", "site"):
                pairs.append((role, value))
        return tuple(pairs)

    @property
    def variables(self) -> tuple[str, ...]:
        """Columns whose moments are taken: outcome, mediators, covariates, then a continuous treatment."""
        dose = (self.treatment,) if self.treatment_kind == "continuous" else ()
        return (self.outcome, *self.mediators, *self.covariates, *dose)

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the roles: the design's name in results."""
        roles = self.to_dict()
        if isinstance(self.control, bool):  # False equals 0, and equal designs have one name
            roles["control"] = int(self.control)
        text = json.dumps(roles, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The roles as plain JSON-able values; ``Design(**d)`` gives the design back.

        Examples
        --------
        >>> import msmmiv as mm
        >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
        >>> mm.Design(**d.to_dict()) == d
        True
        """
        out = {f.name: getattr(self, f.name) for f in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in out.items()}

    @classmethod
    def from_formula(cls, formula: str, **options: Any) -> Design:
        """Read ``"outcome ~ covariates | site | mediators ~ treatment"``; write 1 for no covariates.

        The order is that of fixest. Names with spaces go in backticks. Covariates are plain columns:
        make transformed columns in the data first, so that every engine sees the same numbers. The
        intercepts are those of the sites, so a leading ``1 +`` says nothing new and ``0 +`` is refused.

        Parameters
        ----------
        formula : str
        **options
            The remaining fields of `Design` (``cluster=``, ``block=``, ``weights=``, ...).

        Raises
        ------
        DesignError
            When the text does not have that shape, or an option says again what is in it.

        Examples
        --------
        >>> import msmmiv as mm
        >>> d = mm.Design.from_formula("math ~ female | school | class_size + tch_exp ~ small")
        >>> d.mediators, d.covariates, d.site, d.treatment
        (('class_size', 'tch_exp'), ('female',), 'school', 'small')
        """
        shape = (
            "The formula must read 'outcome ~ covariates | site | mediators ~ treatment' "
            "(write 1 for no covariates)"
        )
        if not isinstance(formula, str):
            raise DesignError(f"{shape}; it must be text, not {type(formula).__name__}.")
        again = [k for k in ("outcome", "covariates", "site", "mediators", "treatment") if k in options]
        if again:
            raise DesignError(
                f"{listing(again, quote=True)} is already in the formula {formula!r}. Say it once: in the formula, "
                "or with Design(...) and keywords only."
            )
        parts = _split(formula, "|")
        if len(parts) != 3:
            raise DesignError(f"{shape}; {formula!r} has {len(parts)} parts between bars, not 3.")
        left, right = _split(parts[0], "~"), _split(parts[2], "~")
        if len(left) != 2 or len(right) != 2:
            raise DesignError(f"{shape}; the first and third part of {formula!r} each need one '~'.")
        for role, text in (("outcome", left[0]), ("site", parts[1]), ("treatment", right[1])):
            if len(_names(text)) != 1:
                raise DesignError(f"{shape}; the {role} must be one column, not {text.strip()!r}.")
        return cls(
            outcome=_names(left[0])[0],
            covariates=_covariates(left[1]),
            site=_names(parts[1])[0],
            mediators=_names(right[0]),
            treatment=_names(right[1])[0],
            **options,
        )

    def _repr_html_(self) -> str:
        kind = self.treatment_kind if self.control is None else f"arms; control: {self.control}"
        return card("Design", pairs(self.roles()), notes=[f"Treatment: {kind}; estimand: {self.estimand}."])

    def __str__(self) -> str:
        kind: str = self.treatment_kind
        if kind == "arms":
            kind += f"; control: {0 if self.control is None else self.control}"
        lines = {
            "outcome": self.outcome,
            "treatment": f"{self.treatment} ({kind})",
            "mediators": ", ".join(self.mediators),
            "site": self.site,
            "covariates": ", ".join(self.covariates),
            "block": self.block and f"{self.block} (own intercept; instruments stay per site)",
            "cluster": self.cluster,
            "weights": self.weights and f"{self.weights} ({self.weight_kind})",
            "estimand": {
                "ate": "average effects across sites (ate)",
                "late": "effects among compliers (late)",
            }[self.estimand],
        }
        return "\n".join(f"{role:<12} {text}" for role, text in lines.items() if text)


def _split(text: str, mark: str) -> list[str]:
    """Split at ``mark`` outside backticks."""
    parts, quoted = [""], False
    for letter in text:
        if letter == "`":
            quoted = not quoted
        if letter == mark and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    if quoted:
        raise DesignError(f"A backtick is left open in {text!r}.")
    return parts


def _covariates(text: str) -> tuple[str, ...]:
    """Names in the covariate part, where a lone or leading 1 stands for the intercepts."""
    bare = "".join(text.split("`")[::2])
    if re.search(r"(^|[+-])\s*0\s*($|[+-])|-\s*1\s*($|[+-])", bare):
        raise DesignError(
            f"{text.strip()!r} asks for no intercept, but site intercepts are always there. "
            "Write 1 for no covariates, or only their names."
        )
    text = re.sub(r"^\s*1\s*(\+(?=\s*[^\s+])|$)", "", text)
    return _names(text)


def _names(text: str) -> tuple[str, ...]:
    """Column names in a sum of plain terms such as ``a + `b c```; formulaic reads the sum.

    A column that is there twice is also twice in the answer, for the design to refuse.
    """
    from formulaic import Formula
    from formulaic.errors import FormulaicError

    if not text.strip():
        return ()
    marks = sorted({m for part in text.split("`")[::2] for m in part if m in "-*/^:%"})
    if marks:
        raise DesignError(
            f"{text.strip()!r} is not a sum of columns: {listing(marks, quote=True)} has no meaning here. Make "
            "products and powers as columns in the data first, and put names that hold such a sign in backticks."
        )
    try:
        terms: Sequence[Any] = list(Formula(f"0 + {text}", _ordering="none"))
    except FormulaicError as error:
        raise DesignError(
            f"Could not read {text.strip()!r} as a sum of columns: {str(error).splitlines()[0]}"
        ) from error
    names: list[str] = []
    for term in terms:
        factors = list(term.factors)
        plain = len(factors) == 1 and str(factors[0].eval_method).endswith("LOOKUP")
        if not plain:
            raise DesignError(
                f"{str(term)!r} is not a plain column. Make that column in the data first "
                f"(columns so far: {listing(names) or 'none'})."
            )
        names.append(str(factors[0].expr))
    # Formulaic keeps a repeated term once.
    pieces = [piece.strip(" \t\n()").strip("`") for piece in _split(text, "+")]
    return tuple(name for name in names for _ in range(max(1, pieces.count(name))))
