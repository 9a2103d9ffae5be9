"""The page of a two-stage fit in the order of Stata's ivreg2, for readers who know that page.

Numbers and their order are that program's (option ``small``, intercepts partialled out); the words are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

from msmmiv.errors import ChoiceError, count
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test

__all__ = ["Identification", "Ivreg2Page", "ivreg2_page"]

#: An `Estimate`, whose file imports this one.
Estimate: TypeAlias = Any

WIDTH = 78
_METHODS = {
    "2sls": "Two-stage least squares",
    "liml": "Limited-information maximum likelihood",
    "fuller": "Fuller",
}


@dataclass(frozen=True)
class Identification:
    """Under- and weak identification, and over-identification where the covariance is robust.

    Attributes
    ----------
    underidentification : TestResult
        Anderson's LM statistic, or Kleibergen and Paap's; all rows counted.
    cragg_donald : TestResult
        F form.
    kleibergen_paap : TestResult or None
        F form; None where errors are taken as homoskedastic.
    hansen : TestResult or None
        J of two-step GMM; likewise.
    critical : tuple of (str, float, float or NotApplicable)
        Stock and Yogo's values by criterion ("bias" or "size") and limit.
    exogeneity : TestResult or None
        Robust test of exogeneity where it takes a pass over the rows; None where the fit has it.
    """

    underidentification: TestResult
    cragg_donald: TestResult
    kleibergen_paap: TestResult | None
    hansen: TestResult | None
    critical: tuple[tuple[str, float, float | NotApplicable], ...]
    exogeneity: TestResult | None = None


@dataclass(frozen=True, repr=False)
class Ivreg2Page:
    """The page (``str``) and its numbers by the names that ivreg2 stores them under (`to_dict`).

    Attributes
    ----------
    text : str
    numbers : tuple of (str, float or int)
    """

    text: str
    numbers: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, float]:
        """Numbers by ivreg2's names: ``N, N_clust, F, r2, rmse, idstat, iddf, idp, cdf, rkf, sargan, j, jdf, jp``.

        Also ``rss``, ``yyc`` and ``r2_within``, ``Fdf1``, ``Fdf2``, ``Fp``, and ``estat``, ``estatdf``, ``estatp`` for
        the test of exogeneity. A number that does not exist is left out. ``r2`` and ``yyc`` are those of a model
        with its intercepts as dummies; what ivreg2 stores after ``partial()`` is here ``r2_within``.
        """
        return dict(self.numbers)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


def ivreg2_page(fit: Estimate, found: Identification) -> Ivreg2Page:
    """Put the page together; `Estimate.ivreg2` is the public way.

    Parameters
    ----------
    fit : Estimate
    found : Identification

    Raises
    ------
    ChoiceError
        An estimator that ivreg2 does not have.
    """
    if fit.method not in _METHODS:
        raise ChoiceError(
            f"ivreg2() lays out '2sls', 'liml' and Fuller, which that program has; for {fit.method!r} see summary."
        )
    numbers: dict[str, float] = {}
    lines = [
        *_header(fit, numbers),
        *_coefficients(fit),
        *_identified(fit, found, numbers),
        *_overidentified(fit, found, numbers),
        *_exogenous(fit, found, numbers),
        *_lists(fit),
    ]
    kept = tuple((k, v) for k, v in numbers.items() if not math.isnan(v))
    return Ivreg2Page("\n".join(lines) + "\n", kept)


def _header(fit: Estimate, numbers: dict[str, float]) -> list[str]:
    total = fit.rss / (1.0 - fit.r2) if fit.r2 != 1.0 else math.nan
    inside = fit.rss / (1.0 - fit.r2_within) if fit.r2_within != 1.0 else math.nan
    numbers |= {"N": fit.nobs}
    rows = [("Number of obs", f"{fit.nobs:,}")]
    if fit.n_clusters:
        numbers["N_clust"] = fit.n_clusters
        rows.append(("Number of clusters", f"{fit.n_clusters:,}"))
    if fit.status is None:
        f = fit.wald_test(list(fit.terms))
        numbers |= {"F": f.stat, "Fdf1": f.df, "Fdf2": float(f.df_denom or math.nan), "Fp": f.pvalue}
        rows += [(f"F({f.df}, {f.df_denom:.4g})", f"{f.stat:.4f}"), ("Prob > F", f"{f.pvalue:.4f}")]
        numbers |= {"yyc": total, "rss": fit.rss, "r2": fit.r2, "r2_within": fit.r2_within}
        numbers["rmse"] = fit.sigma2**0.5
    left = [
        f"Total (centred) SS       = {_sum(total)}",
        f"  within intercepts      = {_sum(inside)}",
        f"Residual SS              = {_sum(fit.rss)}",
    ]
    right = [
        *rows, ("Centred R2", f"{fit.r2:.4f}"), ("  within intercepts", f"{fit.r2_within:.4f}"),
        ("Root MSE", f"{fit.sigma2**0.5:.5g}"),
    ]  # fmt: skip
    if fit.status is not None:
        left, right = [], rows
    title = f"{_METHODS[fit.method]}, site-by-treatment instruments"
    made = [f"Estimates efficient for {_assumed(fit)};", f"statistics {_robust_to(fit)}"]
    out = [title, "-" * len(title), *made, ""]
    left = [""] * (len(right) - len(left)) + left
    out += [f"{a:<40}{name:>24} = {value:>10}" for a, (name, value) in zip(left, right, strict=True)]
    return [*out, ""]


def _assumed(fit: Estimate) -> str:
    return "homoskedasticity only" if fit.cov_type != "bekker" else "homoskedasticity only (many instruments)"


def _robust_to(fit: Estimate) -> str:
    if fit.cov_type in ("classical", "bekker"):
        return "assume it too"
    if fit.cov_type in ("cluster", "site"):
        name = fit.design.site if fit.cov_type == "site" else fit.design.cluster
        return f"allow for clusters ({_cut(str(name), 30)})"
    return f"allow for heteroskedasticity ({fit.cov_type})"


def _coefficients(fit: Estimate) -> list[str]:
    name = _cut(fit.design.outcome, 13)
    out = [f"{name:>13} | {'Coef.':>11}{'Std. err.':>11}{'t':>8}{'P>|t|':>8}   [95% conf. interval]", _rule()]
    for row in fit.tidy().itertuples(index=False):
        if fit.status is None:
            cells = f"{row.estimate:>11.6g}{row.std_error:>11.6g}{row.statistic:>8.2f}{row.p_value:>8.3f}"
            cells += f"{row.conf_low:>12.6g}{row.conf_high:>12.6g}"
        else:
            cells = f"{'(none)':>11}"
        out.append(f"{_cut(str(row.term), 13):>13} | {cells}")
    return [*out, _rule(), *([f"No point estimate: {fit.status}."] if fit.status else [])]


def _identified(fit: Estimate, found: Identification, numbers: dict[str, float]) -> list[str]:
    under, cd, rk = found.underidentification, found.cragg_donald, found.kleibergen_paap
    out = _tested("Underidentification", under)
    numbers |= {"idstat": under.stat, "idp": under.pvalue, "cdf": cd.stat}
    if isinstance(under, TestStatistic):
        numbers["iddf"] = under.df
    out += [_rule(), *_value("Weak identification, Cragg-Donald Wald F", cd)]
    if rk is not None:
        out += _value("                     Kleibergen-Paap rk Wald F", rk)
        numbers["rkf"] = rk.stat
    numbers["widstat"] = cd.stat if rk is None else rk.stat
    return [*out, *_critical(fit, found), _rule()]


def _critical(fit: Estimate, found: Identification) -> list[str]:
    """Stock and Yogo's values for two-stage least squares, one line each."""
    head = "Stock-Yogo critical values at 5%:"
    if fit.method != "2sls":
        return [f"{head} those for {fit.method} are other tables, not held here"]
    out: list[str] = []
    why = ""
    for criterion, limit, value in found.critical:
        words = f"{limit:.0%} maximal IV {'relative bias' if criterion == 'bias' else 'size'}"
        if isinstance(value, NotApplicable):
            why = value.reason
            continue
        lead = head if not out else ""
        out.append(f"{lead:<34}{words:<32}{value:>12.2f}")
    if not out:
        return _wrapped(f"{head} none ({why})")
    if found.kleibergen_paap is not None:
        out.append("(tabulated for independent errors of one variance, which are not assumed here)")
    return out


def _overidentified(fit: Estimate, found: Identification, numbers: dict[str, float]) -> list[str]:
    test: TestResult = fit.sargan
    if found.hansen is not None:
        why = "two-step J is computed at two-stage least squares; fit '2sls' for it"
        test = found.hansen if fit.method == "2sls" else NotApplicable("Hansen J", why)
    name = "sargan" if found.hansen is None else "j"
    numbers |= {name: test.stat, f"{name}p": test.pvalue}
    if isinstance(test, TestStatistic):
        numbers[f"{name}df"] = test.df
    return [*_tested("Overidentification", test), _rule()]


def _exogenous(fit: Estimate, found: Identification, numbers: dict[str, float]) -> list[str]:
    """Durbin's statistic, a difference of two Sargan statistics; else the robust F of the regression form."""
    classical = fit.cov_type in ("classical", "bekker")
    test: TestResult = fit.wu_hausman if classical else found.exogeneity or fit.wu_hausman_robust
    if classical and isinstance(test, TestStatistic) and test.df_denom is not None:
        ratio = test.stat * test.df / test.df_denom
        test = chi2_test("Durbin", test.null, fit.nobs * ratio / (1.0 + ratio), test.df)
    numbers |= {"estat": test.stat, "estatp": test.pvalue}
    if isinstance(test, TestStatistic):
        numbers["estatdf"] = test.df
    out = _tested("Endogeneity", test)
    if isinstance(test, TestStatistic) and not classical:
        out.append("(regression form; ivreg2 prints a difference of two J statistics instead)")
    return [*out, _rule()]


def _lists(fit: Estimate) -> list[str]:
    design = fit.design
    included = [t for t in fit.terms if t not in design.mediators]
    excluded = fit.n_instruments - sum(t.startswith("direct_effect") for t in fit.terms if t in included)
    per = design.site if not design.block else f"{design.site} ({design.block})"
    lists = {
        "Instrumented:": ", ".join(design.mediators),
        "Included instruments:": ", ".join(included) or "none",
        "Excluded instruments:": f"{design.treatment} in each {design.site}: {count(excluded, 'instrument')}",
        "Partialled out:": f"{count(fit.n_intercepts, 'intercept')} of {per}",
    }
    return [line for name, text in lists.items() for line in _wrapped(f"{name:<22}{_flat(text)}", hang=22)]


def _tested(what: str, test: TestResult) -> list[str]:
    """A statistic and its p-value, right-aligned under one another, as ivreg2 has them."""
    lines = _value(f"{what}, {_flat(test.name)}", test)
    if isinstance(test, TestStatistic):
        law = f"Chi-sq({test.df})" if test.df_denom is None else f"F({test.df}, {test.df_denom:g})"
        lines.append(f"{f'{law} P-value =':>{WIDTH - 12}}{test.pvalue:>12.4f}")
    return lines


def _value(name: str, test: TestResult) -> list[str]:
    if isinstance(test, TestStatistic):
        return [f"{name + ':':<{WIDTH - 12}}{test.stat:>12.3f}"]
    return _wrapped(f"{name}: not available ({test.reason})", hang=2)


def _rule() -> str:
    return "-" * WIDTH


def _sum(value: float) -> str:
    return f"{value:.10g}"


def _flat(text: str) -> str:
    """Labels on one line, without what moves a terminal's cursor."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _cut(text: str, width: int) -> str:
    plain = _flat(text)
    return plain if len(plain) <= width else f"{plain[: width - 1]}~"


def _wrapped(text: str, *, hang: int = 0) -> list[str]:
    import textwrap

    lead = text[:hang] if hang > 2 else ""
    return textwrap.wrap(
        text[len(lead) :], WIDTH, initial_indent=lead, subsequent_indent=" " * hang, break_on_hyphens=False
    )  # fmt: skip
