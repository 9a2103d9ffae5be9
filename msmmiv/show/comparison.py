"""Which fits stand beside a headline: every estimator with and without a direct effect."""

from __future__ import annotations

from typing import Any, Protocol

from msmmiv.errors import MsmmivError
from msmmiv.estimate import Estimator, Method
from msmmiv.inference.covariance import CovType
from msmmiv.inference.results import Estimate
from msmmiv.show.words import one_line

__all__ = ["Fitted", "compared"]


class Fitted(Protocol):
    """What can be fitted (`msmmiv.Study`), which stands above this room."""

    def fit(  # noqa: D102
        self, estimator: Method | Estimator | None = None, *, cov_type: CovType | None = None,
        direct_effect: bool = False,
    ) -> Estimate: ...  # fmt: skip


def compared(
    study: Fitted, headline: Estimate, cov_type: CovType | None = None
) -> tuple[tuple[Estimate, ...], tuple[str, ...]]:
    """The headline, what stands beside it, and every estimator with and without a direct effect, no fit twice.

    Parameters
    ----------
    study : Study
    headline : Estimate
        The first; its kind of direct effect comes before the other.
    cov_type : str, optional
        The covariance that was asked for, for 2SLS and OLS.

    Returns
    -------
    tuple of Estimate
    tuple of str
        Each fit that cannot be had, and why.

    Examples
    --------
    >>> import msmmiv as mm
    >>> study = mm.Study(mm.data.star())
    >>> fits, skipped = compared(study, study.fit())
    >>> [(f.method, f.cov_type) for f in fits if f.direct_effect]
    [('2sls', 'cluster'), ('2sls', 'site'), ('ujive', 'site'), ('liml', 'site'), ('ols', 'cluster')]
    >>> skipped
    ()
    """
    fits: dict[tuple[Any, ...], Estimate] = {}
    skipped: dict[str, None] = {}
    for fit in (headline, *headline.beside):
        fits.setdefault(_key(fit), fit)
    for direct in (headline.direct_effect, not headline.direct_effect):
        wanted: list[tuple[Method | None, CovType | None]] = [
            ("2sls", cov_type), ("2sls", None), ("2sls", "site"), (None, None), ("ujive", "site"), ("liml", "site"),
            ("bc_linear", "site"), ("ols", cov_type),
        ]  # fmt: skip
        if direct:
            wanted.remove(("bc_linear", "site"))  # its direct effects are those of `decompose`
        for name, kind in dict.fromkeys(wanted):
            try:
                fit = study.fit(name, cov_type=kind, direct_effect=direct)
            except MsmmivError as error:
                what = " ".join([name or "by rule", *([kind] if kind else []), *["+ direct effect"] * direct])
                skipped.setdefault(f"{what}: {one_line(error)}")
                continue
            same = any(_kind(fit) == _kind(f) for f in fits.values())
            if not (
                same and name == "ujive"
            ):  # by rule, with the interval that fits the strength of instruments
                fits.setdefault(_key(fit), fit)
    return tuple(fits.values()), tuple(skipped)


def _key(fit: Estimate) -> tuple[Any, ...]:
    return *_kind(fit), fit.small_sample, fit.interval


def _kind(fit: Estimate) -> tuple[Any, ...]:
    return fit.method, fit.cov_type, fit.direct_effect
