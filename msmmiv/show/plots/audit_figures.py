"""The figures of an audit one by one, and the reason where one cannot be drawn."""

from __future__ import annotations

from typing import Any

from msmmiv.audit.result import Audit
from msmmiv.errors import DataError
from msmmiv.inference.tests import NotApplicable
from msmmiv.show.plots.balance import balance
from msmmiv.show.plots.falsification import falsification
from msmmiv.show.plots.independence import independence
from msmmiv.show.plots.origin import origin
from msmmiv.show.plots.picture import Picture
from msmmiv.show.plots.sensitivity import sensitivity_plot
from msmmiv.show.words import one_line

__all__ = ["balance_of", "falsification_of", "independence_of", "origin_of", "sensitivity_of"]


def origin_of(audit: Audit) -> Picture:
    """The line through the origin; refused where there is no plane."""
    found = _result(audit, "origin")
    return origin(found, _result(audit, "effects"))


def falsification_of(audit: Audit) -> Picture:
    """Curvature with one mediator, the squared prediction with several."""
    kind = "curvature" if "curvature" in audit.results else "reset"
    return falsification(_result(audit, kind), _result(audit, "effects"))


def balance_of(audit: Audit) -> Picture:
    """Differences of covariates between arms."""
    if audit.results.get("balance") is None:
        raise DataError(
            "There is no balance to draw: the design has no covariates. Name them as covariates= (-x on the command "
            "line)."
        )
    return balance(audit.results["balance"])


def independence_of(audit: Audit) -> Picture:
    """Correlations across sites."""
    return independence(_result(audit, "independence").matrix)


def sensitivity_of(audit: Audit, name: str) -> Picture:
    """Coefficients along the size of a failure."""
    return sensitivity_plot(_result(audit, name))


def _result(audit: Audit, name: str) -> Any:
    """What a check found, or the reason why it found nothing."""
    found = audit.results.get(name)
    if found is None or isinstance(found, NotApplicable):
        why = found.reason if isinstance(found, NotApplicable) else _evidence(audit, name)
        raise DataError(f"There is nothing to draw for {name.replace('_', ' ')}: {one_line(why)}.")
    return found


def _evidence(audit: Audit, name: str) -> str:
    """The reason that the audit's own table gives, where it has one."""
    frame = audit.evidence_frame()
    told = frame.loc[frame["check"].str.contains(name, regex=False), "not_applicable"]
    return next((str(why) for why in told if why), "the audit could not compute it from what is held").rstrip(
        "."
    )
