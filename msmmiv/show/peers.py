"""LIML and UJIVE in other programs, where the algebra is the same; and that the rest has no peer."""

from __future__ import annotations

from msmmiv.show.analysis import Analysis
from msmmiv.show.reproduce import fit_options, linearmodels_lines, r_name

__all__ = ["PEERS", "other_lines"]

PEERS = (
    "LIML is computed by linearmodels too, and LIML and UJIVE by the R package ManyIV for one mediator, two arms and "
    "exclusion, without blocks, covariates, weights and clusters; coefficients then agree to rounding, standard errors "
    "need not. UJIVE with several mediators, clusters or a direct effect, the BC estimators, and the confidence sets "
    "from site scores are in no other program that we know of; our own lines stand here instead."
)


def other_lines(analysis: Analysis) -> tuple[tuple[str, str], ...]:
    """Pairs of a program's name and its lines, for the direct effect of the headline.

    Examples
    --------
    >>> import msmmiv as mm
    >>> for name, lines in other_lines(mm.Study(mm.data.star()).analysis()):
    ...     print(f"{name}: {lines.splitlines()[-1]}")
    msmmiv: study.fit("liml", cov_type="site", interval="score")
    Python (linearmodels), LIML: print(model.fit(cov_type="clustered", clusters=df['school'], debiased=True))
    """
    out = [("Python (linearmodels), LIML", linearmodels_lines(analysis, "IVLIML"))]
    if own := _own(analysis):
        out.insert(0, ("msmmiv", own))
    return (*out, ("R (ManyIV), LIML and UJIVE", _many(analysis))) if _coincides(analysis) else tuple(out)


def _own(analysis: Analysis) -> str:
    """The fits of this analysis, with their covariances and sets."""
    free, lines = analysis.headline.direct_effect, []
    for name in ("ujive", "liml"):
        found = next((f for f in analysis.fits if f.method == name and f.direct_effect == free), None)
        if found is not None:
            lines.append(f"study.fit({', '.join(fit_options(found))})")
    file = (analysis.stamp or {}).get("study file")
    if lines and file is not None:  # whose lines for Python run the whole and name no study
        lines = [
            "from msmmiv.document import read_study",
            "",
            f"study = read_study({file!r}).study()",
            *lines,
        ]
    return "\n".join(lines)


def _coincides(analysis: Analysis) -> bool:
    """Kolesar's leave-one-out over people is the correction by site: one mediator, two arms, nothing else."""
    d = analysis.moments.design
    plain = not (d.block or d.covariates or d.weights or d.cluster or analysis.headline.direct_effect)
    return plain and len(d.mediators) == 1 and len(analysis.moments.arms) == 2


def _many(analysis: Analysis) -> str:
    d, arms = analysis.moments.design, analysis.moments.arms
    y, m, s, t = (r_name(name) for name in (d.outcome, d.mediators[0], d.site, d.treatment))
    second = (
        repr(arms[1]) if isinstance(arms[1], int | float) else '"' + str(arms[1]).replace('"', '\\"') + '"'
    )
    model = f"{y} ~ {m} + as.factor({s}) | as.factor({s}) * treated"
    return "\n".join([
        'library(ManyIV)  # remotes::install_github("kolesarm/ManyIV")',
        f"df$treated <- as.integer(df${t} == {second})",
        f"IVreg({model}, data = df)  # the row of LIML",
        f"ujive({model}, data = df)  # the row of UJIVE",
    ])  # fmt: skip
