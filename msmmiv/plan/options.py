"""What `simulate` was asked for: defaults, and what cannot be had."""

from __future__ import annotations

from typing import Any, Final, get_args

import numpy as np

from msmmiv.diagnose.sensitivity_parts import as_numbers, one_number
from msmmiv.errors import ChoiceError, DataError, check_choice, count, listing, whole_number
from msmmiv.plan.process import Recipe
from msmmiv.plan.violations import VIOLATIONS, Broken, Violation

__all__ = ["recipe_of"]

#: Variants that take two mediators, those whose strength is a share, and those of which somebody must be left.
_TWO = {"interaction", "cross"}
_SHARES = {"everywhere", "sites", "proportional", "attrition", "saturation"}
_BELOW_ONE = {"everywhere", "sites", "attrition"}
#: Whole numbers with the least that each must be; numbers, and whether they may be negative; truth values.
_COUNTS: Final = {"sites": 1, "people": 12, "mediators": 1, "arms": 2, "covariates": 0}
_NUMBERS: Final = {"compliance_mean": True, "compliance_sd": False, "effect_sd": False}
_SWITCHES: Final = ("dose", "binary")


def recipe_of(
    violation: str | None, variant: str | None, strength: float | None, options: dict[str, Any]
) -> tuple[Recipe, str]:
    """What `simulate` was asked for, checked, and what happens in words."""
    if violation is not None:
        check_choice(violation, Violation, "violation")
    elif variant is not None or strength is not None:
        raise ChoiceError("variant and strength say how an assumption is violated; name it: violation='ii'.")
    known = VIOLATIONS[violation] if violation else None
    kinds = known.variants if known else {"": (0.0, "all assumptions hold")}
    kind = next(iter(kinds)) if variant is None else variant
    if kind not in list(kinds):  # a list: what is asked for may be nothing that a table can be searched for
        raise ChoiceError(f"variant={variant!r} of {violation!r} is not one of {listing(kinds, quote=True)}.")
    amount = kinds[kind][0] if strength is None else one_number(strength, "strength")
    recipe = _sized(violation or "", kind, amount, _options(options))
    _check(recipe)
    return recipe, kinds[kind][1].format(strength=amount)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """What was asked for beside the violation, each in its own kind of value."""
    allowed = [f for f in Recipe.__dataclass_fields__ if f not in {"broken", "variant", "strength"}]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise ChoiceError(
            f"{listing(unknown, quote=True)} is not an option of simulate(): {listing(allowed)}."
        )
    out: dict[str, Any] = {}
    for name, value in given.items():
        if name in _COUNTS:
            out[name] = whole_number(value, name, least=_COUNTS[name])
        elif name in _NUMBERS:
            out[name] = one_number(value, name, negative=_NUMBERS[name])
        elif name in _SWITCHES:
            if not isinstance(value, bool | np.bool_):
                raise ChoiceError(f"{name}={value!r} must be True or False.")
            out[name] = bool(value)
        else:
            out[name] = np.ravel(as_numbers(value))
            if not np.isfinite(out[name]).all():
                raise DataError(f"{name}={value!r} must be numbers, one per mediator, such as [0.5, 0.3].")
    return out


def _sized(violation: str, variant: str, strength: float, options: dict[str, Any]) -> Recipe:
    """Defaults, where the violation asks for more than one mediator, three arms or 0/1 mediators."""
    binary = options.get("binary", violation == "vii.b")
    mediators = options.get("mediators", 2 if violation in {"v", "viii"} or variant in _TWO else 1)
    mean, sd = (0.45, 0.15) if binary else (0.8, 0.5)
    given = {
        "sites": 40, "people": 60, "arms": 3 if violation == "iii" else 2, "dose": violation == "iii", "covariates": 2,
        "effects": np.resize([0.5, 0.3, 0.4], mediators), "compliance_mean": mean, "compliance_sd": sd,
        "effect_sd": 0.1, **options, "mediators": mediators, "binary": binary,
    }  # fmt: skip
    effects = tuple(given.pop("effects").tolist())
    return Recipe(broken=violation, variant=variant, strength=strength, effects=effects, **given)


def _check(recipe: Recipe) -> None:
    if recipe.broken:
        _check_violation(recipe, VIOLATIONS[recipe.broken])
    if recipe.dose and recipe.binary:
        raise ChoiceError("A dose moves 0/1 mediators along no line; leave dose or binary out.")
    if len(recipe.effects) != recipe.mediators:
        raise DataError(
            f"effects holds {len(recipe.effects)} values for {count(recipe.mediators, 'mediator')}."
        )


def _check_violation(recipe: Recipe, needs: Broken) -> None:
    name = recipe.broken
    if recipe.mediators < max(needs.mediators, 2 if recipe.variant in _TWO else 1):
        raise ChoiceError(f"({name}), {recipe.variant!r}, takes two mediators; mediators={recipe.mediators}.")
    if recipe.covariates < needs.covariates:
        raise ChoiceError(
            f"({name}) is violated through a measured covariate; covariates={recipe.covariates}."
        )
    if recipe.binary and not needs.binary:
        fine = [v for v in get_args(Violation) if VIOLATIONS[v].binary]
        raise ChoiceError(f"({name}) is not simulated with 0/1 mediators; {listing(fine)} are.")
    if name == "vii.b" and not (recipe.binary and recipe.arms == 2):
        raise ChoiceError(
            "(vii.b) speaks of defiers, who exist with two arms and 0/1 mediators: leave binary and arms out."
        )
    if name == "iii" and (recipe.arms < 3 or not recipe.dose):
        raise ChoiceError(
            f"(iii) holds by construction with arms={recipe.arms}, dose={recipe.dose}: between two arms there is "
            "always a line, and arms need none. Leave both out: a dose of three values is then drawn."
        )
    if recipe.variant in _SHARES and not 0.0 <= recipe.strength <= 1.0:
        raise DataError(f"strength={recipe.strength:g} is a share here and must lie between 0 and 1.")
    if recipe.variant in _BELOW_ONE and recipe.strength == 1.0:
        raise DataError(
            "strength=1 is a share here and must be below 1: nobody would stay, or do as assigned."
        )
