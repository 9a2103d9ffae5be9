"""The ways in which a simulated trial can break one assumption, as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

__all__ = ["VIOLATIONS", "Broken", "Violation"]

#: The assumptions that a simulated trial can break.
Violation: TypeAlias = Literal["i", "ii", "iii", "iv", "v", "vi", "vii.a", "vii.b", "viii", "ix"]


@dataclass(frozen=True)
class Broken:
    """How one assumption is broken.

    Attributes
    ----------
    variants : dict from name to (strength, words)
        The first is the default. The words say what happens, with ``{strength}`` in them.
    mediators, covariates : int
        How many are needed at least.
    binary : bool
        Whether it can be combined with 0/1 mediators.
    """

    variants: dict[str, tuple[float, str]]
    mediators: int = 1
    covariates: int = 0
    binary: bool = False


VIOLATIONS: Final[dict[str, Broken]] = {
    "i": Broken(
        {
            "share": (1.0, "controls' outcomes rise by {strength:g} times the share treated in their site"),
            "peers": (0.3, "outcomes rise by {strength:g} per unit of the first mediator's mean among peers"),
        },
        binary=True,
    ),
    "ii": Broken(
        {"constant": (0.3, "assignment moves the outcome by {strength:g} past the mediators")}, binary=True
    ),
    "iii": Broken(
        {"saturation": (0.7, "the second unit of the dose moves the mediators by {strength:.0%} less than the first")}
    ),
    "iv": Broken(
        {
            "quadratic": (0.3, "the outcome is quadratic in the first mediator, {strength:g} m1^2"),
            "interaction": (0.4, "the first two mediators interact, {strength:g} m1 m2"),
        }
    ),
    "v": Broken({"cascade": (0.5, "one unit of the first mediator moves the second by {strength:g}")}, mediators=2),
    "vi": Broken(
        {
            "assignment": (0.4, "assignment leans {strength:g} towards people with a high covariate and common cause"),
            "unmeasured": (0.4, "assignment leans {strength:g} towards people with a high common cause, not measured"),
            "attrition": (0.2, "{strength:.0%} of the treated leave, those with a low common cause first"),
        }
    ),
    "vii.a": Broken(
        {"covariate": (0.3, "inside sites compliance and effect both rise with a covariate: covariance {strength:g}")},
        covariates=1,
    ),
    "vii.b": Broken(
        {
            "everywhere": (0.15, "a share {strength:g} of the people do the opposite of what they are assigned to"),
            "sites": (0.5, "in one site of five a share {strength:g} do the opposite of what they are assigned to"),
        },
        binary=True,
    ),
    "viii": Broken(
        {"proportional": (1.0, "the last mediator's compliance is a share {strength:g} in proportion to the first's")},
        mediators=2,
        binary=True,
    ),
    "ix": Broken(
        {
            "compliance": (0.5, "a site's effect rises by {strength:g} with a unit of its compliance"),
            "covariate": (0.6, "a site covariate raises compliance, and the effect by {strength:g} as much"),
            "cross": (0.5, "the effect of the first mediator rises by {strength:g} with compliance of the second"),
            "size": (0.3, "the effect rises by {strength:g} with a standard deviation of the log size of the site"),
        },
        binary=True,
    ),
}  # fmt: skip
