"""Assumption (vi): whether rows that are missing from the analysis are missing alike in all arms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from msmmiv.design import Label
from msmmiv.diagnose.assignment import (
    Assigned,
    Scores,
    hits_law,
    noncentrality,
    one_sided,
    site_slopes,
    units_assigned,
)
from msmmiv.diagnose.evidence import Evidence
from msmmiv.errors import count
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic, chi2_test, f_test
from msmmiv.linalg import Array, frozen, gram_pinv
from msmmiv.moments.cells import Moments

__all__ = ["Attrition", "ColumnAttrition", "attrition"]

CHECK = "balance.attrition_by_arm"
_NAME = "rows missing by arm"
_NULL = "rows are missing from all arms of a site alike"
_SITES = "rows missing by arm, site by site"
#: Fewest sites with missing rows, and missing rows, for a test across sites; missing rows per contrast for chi-squared.
FEWEST_SITES, FEWEST_ACROSS, FEWEST_MISSING = 10, 20, 10
DRAWS = 1999


@dataclass(frozen=True, eq=False)
class ColumnAttrition:
    """Rows that lack one column (or any), against complete rows.

    Attributes
    ----------
    column : str
        A column, or "any declared column".
    missing : (K, A) array
        Rows that lack it, by site and arm.
    share : (A,) array
        Of all rows of each arm.
    difference, std_error : (D,) arrays
        Share missing in each arm minus the control's, pooled within sites.
    site_difference, site_std_error : (K, D) arrays
    test, by_site : TestStatistic or NotApplicable
        No pooled difference; no difference in any site.
    detectable : float
        Smallest difference in shares, the same in all sites, that is found with 80% power.
    """

    column: str
    missing: Array
    share: Array
    difference: Array
    std_error: Array
    site_difference: Array
    site_std_error: Array
    test: TestResult
    by_site: TestResult
    detectable: float


@dataclass(frozen=True, eq=False)
class Attrition:
    """Rows missing from the analysis by site and arm, and whether arms differ.

    Attributes
    ----------
    sites, arms : tuple
    columns : tuple of ColumnAttrition
        One per column that lacks values in sites that are analysed; exact for each.
    incomplete : ColumnAttrition or None
        Any declared column; None where rows that lack several columns cannot be told apart.
    test : TestStatistic or NotApplicable
        Of ``incomplete``, or the smallest p-value of a column after Holm.
    unplaced : int
        Missing values in rows without a site or arm.
    assigned : {"rows", "clusters"}
    blocked : bool
        Whether the design has blocks, by which missing rows are not counted.
    """

    sites: tuple[Label, ...]
    arms: tuple[Label, ...]
    columns: tuple[ColumnAttrition, ...]
    incomplete: ColumnAttrition | None
    test: TestResult
    unplaced: int
    assigned: Assigned
    blocked: bool

    def to_frame(self) -> pd.DataFrame:
        """One row per column and arm: rows missing, share, difference from the control, std_error, p_value."""
        rows = []
        for c in self._all():
            for a, arm in enumerate(self.arms):
                gap = (np.nan, np.nan) if a == 0 else (c.difference[a - 1], c.std_error[a - 1])
                rows.append(
                    {
                        "column": c.column, "arm": arm, "missing": c.missing[:, a].sum(), "share": c.share[a],
                        "difference": gap[0], "std_error": gap[1], "p_value": c.test.pvalue,
                    }
                )  # fmt: skip
        return pd.DataFrame(
            rows, columns=["column", "arm", "missing", "share", "difference", "std_error", "p_value"]
        )

    def site_frame(self) -> pd.DataFrame:
        """One row per column, site and arm but the control: difference and std_error, for the figure."""
        rows = [
            (c.column, self.sites[k], self.arms[d + 1], c.site_difference[k, d], c.site_std_error[k, d])
            for c in self._all()
            for k, d in np.argwhere(np.isfinite(c.site_difference)).tolist()
        ]
        return pd.DataFrame(rows, columns=["column", "site", "arm", "difference", "std_error"])

    def _all(self) -> tuple[ColumnAttrition, ...]:
        return self.columns if self.incomplete is None else (self.incomplete, *self.columns)

    def evidence(self) -> tuple[Evidence, ...]:
        """The pooled test as evidence (context where there are blocks), and the sites' as context."""
        if not self.columns:
            whole = isinstance(self.test, NotApplicable) and self.test.reason.startswith("no row")
            reading = "No row is missing from the analysis." if whole else ""
            return (Evidence(CHECK, self.test, "evidence", reading),)
        shown = self.incomplete or min(self.columns, key=lambda c: (np.isnan(c.test.pvalue), c.test.pvalue))
        by_arm = ", ".join(f"{s:.1%} of arm {a!r}" for a, s in zip(self.arms, shown.share, strict=True))
        reading = f"Rows that lack {_what(shown.column)}: {by_arm}."
        if self.incomplete is None:
            reading += " Some rows lack several columns, so columns are tested one by one."
        if self.unplaced:
            reading += (
                f" {count(self.unplaced, 'missing value')} of rows without site or arm cannot be placed."
            )
        if self.blocked:
            reading += (
                " Missing rows are counted by site, not by block: where the arms' shares differ between blocks, blocks "
                "can make this difference, so it decides nothing."
            )
        seen = ""
        if np.isfinite(shown.detectable) and isinstance(self.test, TestStatistic):
            size = f"{100 * shown.detectable:.1f} percentage points"
            seen = f"A difference of {size} in all sites would be found with 80% power."
        return (
            Evidence(CHECK, self.test, "context" if self.blocked else "evidence", reading, seen),
            Evidence(
                CHECK,
                shown.by_site,
                "context",
                "This asks whether the arms of any one site lose rows differently, in either direction."
                if isinstance(shown.by_site, TestStatistic)
                else "",
            ),
        )


def attrition(moments: Moments, *, assigned: Assigned | None = None, seed: int = 0) -> Attrition:
    """Compare the shares of rows left out for missing values between the arms of each site.

    Use it whenever rows were left out: attrition that differs by arm breaks a perfect randomisation. It reads
    the sample flow that travels with the moments.

    Parameters
    ----------
    moments : Moments
    assigned : {"rows", "clusters"}, optional
        As in `covariate_balance`. Missing rows are not counted by cluster: with clusters the test takes sites as the
        independent units. Say "rows" only where people are missing one by one: a class without a record of its
        teacher loses all its pupils, however these were assigned.
    seed : int
        Of the shuffles behind the test site by site.

    Notes
    -----
    A column is tested among the complete rows and the rows that lack it: both are known by site and arm. The pooled
    statistic is that of Cochran, Mantel and Haenszel. For two arms its p-value is the mid-p of the exact law of the sum
    of hypergeometric counts; for more, chi-squared. The flow counts a row under each column that it lacks, so rows
    that lack any column are known only where no row lacks two, or one column is missing in all of them.

    Examples
    --------
    >>> import pandas as pd, msmmiv as mm
    >>> df = pd.DataFrame({"s": [1] * 8 + [2] * 8, "t": [0, 1] * 8, "m": 1.0, "y": 2.0})
    >>> df.loc[[0, 2, 4, 8], "y"] = None
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> found = attrition(mm.Moments.from_data(df, d))
    >>> found.to_frame()[["column", "missing"]].head(2).to_dict("list")
    {'column': ['any declared column', 'any declared column'], 'missing': [4.0, 0.0]}
    """
    kind = units_assigned(moments, assigned) if moments.arms else "rows"
    tables, unplaced, why = _tables(moments)
    design = moments.design
    if why:
        return Attrition(
            moments.sites,
            moments.arms,
            (),
            None,
            NotApplicable(_NAME, why),
            unplaced,
            kind,
            bool(design.block),
        )
    complete = np.zeros((moments.n_sites, len(moments.arms)))
    np.add.at(complete, (moments.site, moments.arm), moments.n)
    rng = np.random.default_rng(seed)
    columns = tuple(_column(name, lost, complete, kind, rng) for name, lost in tables.items())
    whole = _incomplete(moments, tables)
    incomplete = None if whole is None else _column("any declared column", whole, complete, kind, rng)
    test = incomplete.test if incomplete is not None else _holm(columns)
    return Attrition(
        moments.sites, moments.arms, columns, incomplete, test, unplaced, kind, bool(design.block)
    )


def _what(column: str) -> str:
    return column if column.startswith("any ") else repr(column)


def _tables(moments: Moments) -> tuple[dict[str, Array], int, str]:
    """(K, A) rows missing by column, values that cannot be placed, and why there is nothing to test."""
    flow = moments.flow
    if flow.untold:
        return {}, 0, "small counts of missing rows were left out when the moments were saved (min_cell)"
    if not flow.incomplete:
        return {}, 0, "no row is missing a declared column"
    if not moments.arms:
        return {}, 0, "the treatment is a dose: missing rows are counted by site and not by dose"
    counted = {c: 0 for c, _ in flow.missing}
    sites, arms = ({label: i for i, label in enumerate(x)} for x in (moments.sites, moments.arms))
    tables: dict[str, Array] = {}
    unplaced = 0
    for cell in flow.missing_cells:
        counted[cell.column] = counted.get(cell.column, 0) + cell.rows
        if _absent(cell.site) or _absent(cell.arm):
            unplaced += cell.rows
        elif cell.site in sites and cell.arm in arms:
            table = tables.setdefault(cell.column, np.zeros((len(sites), len(arms))))
            table[sites[cell.site], arms[cell.arm]] += cell.rows
    if any(rows != counted[c] for c, rows in flow.missing):
        return (
            {},
            unplaced,
            "small counts of missing rows were left out when the moments were saved (min_cell)",
        )
    if not tables:
        return (
            {},
            unplaced,
            "no row of the sites analysed is missing a declared column and has a site and an arm",
        )
    return tables, unplaced, ""


def _absent(label: Label | None) -> bool:
    return label is None or label != label  # noqa: PLR0124 - NaN


def _incomplete(moments: Moments, tables: dict[str, Array]) -> Array | None:
    """(K, A) rows that lack any column, where the counts by column tell."""
    rows = dict(moments.flow.missing)
    if sum(rows.values()) == moments.flow.incomplete:
        return frozen(np.sum(list(tables.values()), axis=0))
    whole = [c for c in tables if rows[c] == moments.flow.incomplete]
    return tables[whole[0]] if whole else None


def _column(
    name: str, lost: Array, complete: Array, kind: Assigned, rng: np.random.Generator
) -> ColumnAttrition:
    found = _scores(lost, complete)
    arms, n = lost.sum(axis=0), (lost + complete).sum(axis=0)
    inverse, _ = gram_pinv(found.precision.sum(axis=0)[None])
    parts = found.covariances()
    if kind == "clusters":
        c = found.score[:, :, 0]
        parts = c[:, :, None] * c[:, None, :]
    cov = inverse[0] @ parts.sum(axis=0) @ inverse[0]
    own, own_error = site_slopes(found, len(lost))
    test = _clustered(found, int(lost.sum())) if kind == "clusters" else _exact(found, lost, complete)
    if kind == "clusters":  # a site's own error would need the clusters
        own_error = np.full_like(own_error, np.nan)
    error = np.sqrt(np.clip(np.diag(cov), 0, None))
    difference = inverse[0] @ found.score.sum(axis=0)[:, 0]
    detectable = np.nan
    if isinstance(test, TestStatistic) and (error > 0).all():
        detectable = float(error.max()) * noncentrality(1, test.df_denom or 1e6) ** 0.5
    return ColumnAttrition(
        name, frozen(lost), frozen(arms / np.where(n > 0, n, np.nan)), frozen(difference), frozen(error),
        frozen(own[:, :, 0]), frozen(own_error[:, :, 0]), test, _by_site(found, lost, complete, kind, rng), detectable,
    )  # fmt: skip


def _scores(lost: Array, complete: Array) -> Scores:
    """Numerators of the differences in the share missing, with the covariance of shuffled rows."""
    n = lost + complete
    total, hit = n.sum(axis=1), lost.sum(axis=1)
    safe = np.where(total > 0, total, 1.0)
    share, rate = n[:, 1:] / safe[:, None], hit / safe
    diagonal = np.eye(n.shape[1] - 1) * n[:, None, 1:]
    labels = diagonal - total[:, None, None] * share[:, :, None] * share[:, None, :]
    spread = (hit * (1.0 - rate))[:, None, None]
    score = (lost[:, 1:] - n[:, 1:] * rate[:, None])[:, :, None]
    return Scores(np.arange(len(n)), score, labels, spread, total, n[:, 1:], labels, spread)


def _exact(found: Scores, lost: Array, complete: Array) -> TestResult:
    n = lost + complete
    score, cov = found.score.sum(axis=0)[:, 0], found.covariances().sum(axis=0)
    inverse, rank = gram_pinv(cov[None])
    degrees = int(rank[0])
    if degrees == 0:
        return NotApplicable(_NAME, "no site has missing rows and several arms")
    stat = float(score @ inverse[0] @ score)
    if n.shape[1] > 2:
        if lost.sum() < FEWEST_MISSING * degrees:
            return NotApplicable(
                _NAME, f"too few rows are missing ({int(lost.sum())}) for {count(n.shape[1], 'arm')}"
            )
        return chi2_test(_NAME, _NULL, stat, degrees)
    if cov[0, 0] > 1000.0:  # the law is normal by then
        return chi2_test(_NAME, _NULL, stat, 1)
    least, mass = hits_law(lost.sum(axis=1), n.sum(axis=1), n[:, 1])
    if min(mass[0], mass[-1]) > 0.05:
        why = f"too few rows are missing ({int(lost.sum())}) for any pattern of them to be surprising"
        return NotApplicable(_NAME, why)
    seen = float(lost[:, 1].sum())
    below, above = one_sided(least, mass, seen)
    p = min(1.0, 2.0 * (min(below, above) - mass[round(seen) - least] / 2.0))
    return TestStatistic(_NAME, _NULL, stat, p, 1, law="shuffled rows within sites (exact, mid-p)")


def _clustered(found: Scores, rows: int) -> TestResult:
    """Sites as the independent units: people who leave may leave by clusters."""
    c = found.score[found.active * found.spread[:, 0, 0] > 0, :, 0]
    k, d = c.shape
    if k < max(FEWEST_SITES, 3 * d):
        why = f"too few sites: {k} with missing rows, which are not counted by cluster, and clusters were assigned"
        return NotApplicable(_NAME, why)
    if rows < FEWEST_ACROSS:
        return NotApplicable(_NAME, f"too few rows are missing ({rows}) for a test across sites")
    inverse, rank = gram_pinv((c.T @ c)[None])
    r, total = int(rank[0]), c.sum(axis=0)
    if r == 0:
        return NotApplicable(_NAME, "the share missing does not differ between arms in any site")
    square = float(total @ inverse[0] @ total)  # at most K
    return f_test(_NAME, _NULL, square / r * (k - r) / max(k - square, 1e-12), r, k - r)


def _by_site(
    found: Scores, lost: Array, complete: Array, kind: Assigned, rng: np.random.Generator
) -> TestResult:
    """Sum over sites of each site's own statistic, against shuffled rows."""
    if kind == "clusters":
        return NotApplicable(_SITES, "missing rows are not counted by cluster, and clusters were assigned")
    used = found.active * found.spread[:, 0, 0] > 0
    if not used.any():
        return NotApplicable(_SITES, "no site has missing rows and several arms")
    inverse, _ = gram_pinv(found.covariances()[used])
    n, hit = (lost + complete)[used], lost.sum(axis=1)[used]
    mean = n[:, 1:] * (hit / n.sum(axis=1))[:, None]
    if used.sum() * DRAWS > 5_000_000:
        return NotApplicable(_SITES, "so many sites have missing rows that the table is to be read instead")

    def off(counts: Array) -> Array:
        away = counts - mean
        out: Array = np.einsum("...kd,kde,...ke->...", away, inverse, away)
        return out

    drawn = np.empty((DRAWS, *mean.shape))
    left, rest = np.broadcast_to(hit, (DRAWS, len(hit))).astype(np.int64), n.sum(axis=1).astype(np.int64)
    for a in range(1, n.shape[1]):
        size = n[:, a].astype(np.int64)
        got = rng.hypergeometric(left, rest - left, size)
        drawn[:, :, a - 1] = got
        left, rest = left - got, rest - size
    seen, law = float(off(lost[used, 1:])), off(drawn)
    p = (1 + int((law >= seen * (1 - 1e-12)).sum())) / (1 + DRAWS)
    return TestStatistic(
        _SITES, _NULL, seen, p, int(used.sum()), law=f"{DRAWS} shuffles of rows within sites"
    )


def _holm(columns: tuple[ColumnAttrition, ...]) -> TestResult:
    tests = [c.test for c in columns if isinstance(c.test, TestStatistic)]
    if not tests:
        return columns[0].test
    least = min(tests, key=lambda t: t.pvalue)
    p = min(1.0, least.pvalue * len(tests))
    law = f"{least.dist}; Holm over {count(len(tests), 'column')}"
    return TestStatistic(_NAME, _NULL, least.stat, p, least.df, least.df_denom, law)
