"""Which fits stand beside a headline, and how they come by its covariance and its kind of set."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

from msmmiv.errors import MsmmivError
from msmmiv.estimate import Estimator, Method
from msmmiv.inference.covariance import CovType, SmallSample
from msmmiv.inference.results import Estimate, Interval
from msmmiv.show.words import one_line

__all__ = ["Fitted", "alike", "compared", "kind_of", "named_or_by_rule"]


_BESIDE: tuple[Method, ...] = ("2sls", "ujive", "liml", "bc_linear", "ols")


class Fitted(Protocol):
    """What can be fitted (`msmmiv.Study`), which stands above this room."""

    def fit(  # noqa: D102
        self, estimator: Method | Estimator | None = None, *, cov_type: CovType | None = None,
        direct_effect: bool = False, small_sample: SmallSample | None = None, interval: Interval = "wald",
    ) -> Estimate: ...  # fmt: skip


def kind_of(fit: Estimate) -> tuple[CovType, SmallSample | None, Interval]:
    """Covariance, small-sample form (sets from scores have their own) and interval: as `Study.fit` takes them."""
    cov_type, small_sample = cast("CovType", fit.cov_type), cast("SmallSample | None", fit.small_sample)
    return cov_type, None if fit.interval == "score" else small_sample, fit.interval


def alike(study: Fitted, estimator: Method | Estimator, fit: Estimate, *, direct_effect: bool) -> Estimate:
    """An estimator with covariance, small-sample form and interval of a fit, to stand beside it.

    Raises
    ------
    MsmmivError
        The estimator does not have them.

    Examples
    --------
    >>> import msmmiv as mm
    >>> study = mm.Study(mm.data.star())
    >>> liml = alike(study, "liml", study.fit(), direct_effect=False)
    >>> liml.cov_type, liml.interval
    ('site', 'score')
    """
    cov_type, small_sample, interval = kind_of(fit)
    return study.fit(
        estimator, cov_type=cov_type, direct_effect=direct_effect, small_sample=small_sample, interval=interval
    )  # fmt: skip


def named_or_by_rule(
    study: Fitted, estimator: Method | Estimator | None = None, *, direct_effect: bool = False
) -> Estimate:
    """The fit that the rule chooses; or the estimator that is named, with covariance and interval of that one.

    Examples
    --------
    >>> import msmmiv as mm
    >>> fit = named_or_by_rule(mm.Study(mm.data.star()), "2sls")
    >>> fit.method, fit.cov_type, fit.interval
    ('2sls', 'site', 'score')
    """
    chosen = study.fit(direct_effect=direct_effect)
    return chosen if estimator is None else alike(study, estimator, chosen, direct_effect=direct_effect)


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
    [('2sls', 'cluster'), ('ujive', 'site'), ('2sls', 'site'), ('liml', 'site'), ('ols', 'site')]
    >>> skipped
    ()
    """
    fits: dict[tuple[Any, ...], Estimate] = {}
    reasons: dict[str, None] = {}

    def add(what: str, *ways: Callable[[], Estimate]) -> Estimate | None:
        found = _first(ways)
        if isinstance(found, Estimate):
            return fits.setdefault(_key(found), found)
        reasons[f"{what}{more}: {found}"] = None
        return None

    for fit in (headline, *headline.beside):
        fits.setdefault(_key(fit), fit)
    for direct in (headline.direct_effect, not headline.direct_effect):
        more = " + direct effect" * direct
        named = partial(study.fit, direct_effect=direct)
        for kind in dict.fromkeys((cov_type, None)):
            add(f"2sls {kind or ''}".strip(), partial(named, "2sls", cov_type=kind))
        like = add("by rule", named)
        if not headline.rule or like is None or direct == headline.direct_effect:
            like = headline
        for name in _BESIDE:
            if direct and name == "bc_linear":
                continue  # its direct effects are those of `decompose`
            # Whatever cannot have the headline's covariance is shown by site, once.
            by_site = (
                f for f in fits.values() if (f.method, f.direct_effect, f.cov_type) == (name, direct, "site")
            )
            shown = next(by_site, None)
            add(
                f"{name} site",
                partial(alike, study, name, like, direct_effect=direct),
                partial(replace, shown) if shown else partial(named, name, cov_type="site"),
            )
    return tuple(fits.values()), tuple(reasons)


def _first(ways: Iterable[Callable[[], Estimate]]) -> Estimate | str:
    """The first of these that there is, or why the last is none."""
    why = ""
    for way in ways:
        try:
            return way()
        except MsmmivError as error:
            why = one_line(error)
    return why


def _key(fit: Estimate) -> tuple[Any, ...]:
    return fit.method, fit.direct_effect, *kind_of(fit)
