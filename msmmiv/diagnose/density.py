"""Assumptions (ii) and (vii.b) together: instrumental inequalities for one 0/1 mediator and two arms.

Without defiers, and with no effect but through the mediator M,

    P(Y in B, M = 1 | treated) >= P(Y in B, M = 1 | control),   P(Y in B, M = 0 | control) >= P(Y in B, M = 0 | treated)

in every site and for every set B. Positive averages over sites keep the inequalities, and sites are small, so
within-site differences are pooled with the weights of 2SLS and B runs over intervals of the outcome.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from msmmiv.diagnose.assignment import Assigned, units_assigned
from msmmiv.diagnose.evidence import Evidence
from msmmiv.diagnose.monotonicity import is_binary
from msmmiv.inference.tests import NotApplicable, TestResult, TestStatistic
from msmmiv.linalg import Array, Codes, group_sum
from msmmiv.moments.cells import Moments
from msmmiv.moments.opening import open_rows
from msmmiv.moments.sums import Rows

__all__ = ["InstrumentalInequalities", "instrumental_inequalities"]

CHECK = "monotonicity.density"
_NAME = "instrumental inequalities"
_NULL = (
    "outcome densities of those with and without the mediator are ordered by arm as (ii) and (vii.b) imply"
)
#: Intervals with fewer hits, or a smaller share of the units' rows, are left out: their z is noise.
LEAST_HITS, LEAST_SHARE = 10, 0.02
DRAWS = 999


@dataclass(frozen=True, eq=False)
class InstrumentalInequalities:
    """The largest violation over intervals of the outcome, against shuffled assignment.

    Attributes
    ----------
    cells : DataFrame
        One row per interval and value of the mediator: ``mediator, lower, upper, difference`` (in the direction that
        must not be negative), ``std_error, z``.
    test : TestStatistic or NotApplicable
    detectable : float
        Violation, in shares of the rows of an arm, of an interval of middling size that is found with 80% power.
    centred : bool
        Whether outcomes are measured from the mean of their site (block).
    """

    cells: pd.DataFrame
    test: TestResult
    detectable: float
    centred: bool

    def to_frame(self) -> pd.DataFrame:
        """The intervals."""
        return self.cells

    def evidence(self) -> tuple[Evidence, ...]:
        """The test; small p-values contradict exclusion, monotonicity or ignorable assignment, without saying which."""
        if isinstance(self.test, NotApplicable):
            return (Evidence(CHECK, self.test, "evidence"),)
        worst = self.cells.iloc[int(self.cells["z"].argmin())]
        unit = ", measured from the site's mean" if self.centred else ""
        reading = (
            f"The most negative difference has z {worst['z']:.2f}: people with mediator {worst['mediator']:.0f} and an "
            f"outcome from {worst['lower']:.3g} to {worst['upper']:.3g}{unit}. A small p-value contradicts exclusion "
            "(ii), monotonicity (vii.b) or ignorable assignment (vi), and does not say which; a large one is weak "
            "support, because compliers can hide a violation."
        )
        seen = (
            f"A violation by {100 * self.detectable:.1f}% of an arm's rows in one interval would be found with 80% "
            "power."
        )
        return (
            Evidence(CHECK, self.test, "evidence", reading, seen if np.isfinite(self.detectable) else ""),
        )


def instrumental_inequalities(
    moments: Moments,
    *,
    rows: Any = None,
    assigned: Assigned | None = None,
    bins: int = 8,
    draws: int = DRAWS,
    seed: int = 0,
) -> InstrumentalInequalities:
    """Test the inequalities that exclusion and monotonicity imply for the joint law of outcome and mediator.

    Use it with one 0/1 mediator and two arms. A 0/1 outcome is read from the moments; any other needs the rows.

    Parameters
    ----------
    moments : Moments
    rows : DataFrame, path or Rows, optional
        The data behind the moments, for outcomes that are not 0/1.
    assigned : {"rows", "clusters"}, optional
        As in `covariate_balance`.
    bins : int
        Outcome intervals start and end at this many quantiles of the pooled outcome, measured from site means.
    draws : int
        Shuffles of assignment within sites.
    seed : int
        With it p is the same whatever the order of the rows and the names of the sites.

    Notes
    -----
    For an interval B and M = m let c be the sum over sites of the treated units' excess of rows with Y in B and M = m,
    and v its variance over orders of the labels. The statistic is the largest -c / sqrt(v) for m = 1 and c / sqrt(v)
    for m = 0. Where all inequalities bind, treatment moves neither Y nor M, and shuffling the labels within sites has
    the law of the statistic exactly; where some are slack the test is conservative. The inequalities are those of
    Balke and Pearl (1997) and Heckman and Vytlacil (2005), the weighting of intervals by their error that of
    Kitagawa (2015, Econometrica 83: 2043-2063); means of trimmed outcomes (Huber and Mellace 2015) follow from them.
    With several mediators they are not implied mediator by mediator.

    Examples
    --------
    >>> import numpy as np, pandas as pd, msmmiv as mm
    >>> rng = np.random.default_rng(1)
    >>> df = pd.DataFrame({"s": np.repeat(range(20), 40), "t": np.tile([0, 1], 400), "u": rng.random(800)})
    >>> df["m"] = ((df["u"] < 0.6) & (df["t"] == 1)).astype(int)
    >>> df["y"] = df["m"] + rng.normal(size=800)
    >>> d = mm.Design(outcome="y", treatment="t", mediators="m", site="s")
    >>> bool(instrumental_inequalities(mm.Moments.from_data(df, d), rows=df).test.pvalue > 0.05)
    True
    """
    if why := _refused(moments):
        return _none(why)
    kind = units_assigned(moments, assigned)
    if rows is not None:
        table, edges, centred = _from_rows(moments, rows, kind, bins)
    elif is_binary(moments, 0) and moments.design.weight_kind in (None, "frequency"):
        table, edges, centred = _from_moments(moments), np.array([[0.0, 0.0], [1.0, 1.0]]), False
    else:
        return _none(
            "the outcome is not 0/1 and unweighted, and moments do not hold its distribution: the rows are missing "
            "(rows=...)"
        )
    return _tested(table, edges, kind, draws, np.random.default_rng(seed), centred=centred)


def _refused(moments: Moments) -> str:
    if len(moments.design.mediators) > 1:
        return (
            "with several mediators the inequalities are not implied for each one: treatment may reach the outcome "
            "through the others"
        )
    if len(moments.arms) != 2:
        return "the inequalities compare two arms"
    if not is_binary(moments, 1):
        return "the mediator is not 0/1"
    return ""


def _none(why: str) -> InstrumentalInequalities:
    columns = ["mediator", "lower", "upper", "difference", "std_error", "z"]
    return InstrumentalInequalities(
        pd.DataFrame(columns=columns), NotApplicable(_NAME, why), np.nan, centred=False
    )


@dataclass(frozen=True, eq=False)
class _Table:
    """Counts (U, 2 bins) of each unit or cell by category (M = 0 first), its stratum, arm and number of units."""

    counts: Array
    stratum: Codes
    treated: Array


def _from_moments(moments: Moments) -> _Table:
    """Counts of (Y, M) in each cell of a 0/1 outcome."""
    n, y, m = moments.n, moments.first.mean[:, 0], moments.first.mean[:, 1]
    both = moments.first.scatter[:, 0, 1] / moments.first.weight + y * m
    shares = np.column_stack([1.0 - y - m + both, y - both, m - both, both])
    return _Table(np.round(n[:, None] * shares), moments.intercept, (moments.arm == 1).astype(float))


def _from_rows(moments: Moments, rows: Any, kind: Assigned, bins: int) -> tuple[_Table, Array, bool]:
    """Counts of (bin of Y, M) in each unit, and the ends (bins, 2) of the bins."""
    design = moments.design
    opened = rows if isinstance(rows, Rows) else open_rows(rows, design, missing="drop")
    frame = opened.collect()
    # Sorted, because a mean over rows in another order may differ in its last digit, and so on which side of a cut.
    frame = frame[frame[design.site].isin(moments.sites)].sort_values(design.outcome)
    keys = [design.site, *([design.block] if design.block else [])]
    stratum = frame.groupby(keys, sort=False).ngroup()
    y, values = frame[design.outcome], np.unique(frame[design.outcome])
    centred = len(values) > bins
    if centred:
        y = y - y.groupby(stratum).transform("mean")
        cuts = np.unique(np.quantile(y, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="inverted_cdf"))
        code = np.searchsorted(cuts, y.to_numpy(), side="right")
        ends = np.column_stack([np.append(float(y.min()), cuts), np.append(cuts, float(y.max()))])
    else:
        code, ends = np.searchsorted(values, y.to_numpy()), np.column_stack([values, values])
    category = code + len(ends) * (frame[design.mediators[0]].to_numpy() > 0.5)
    treated = (frame[design.treatment] != moments.arms[0]).astype(int)
    unit = [stratum, treated, *([frame[design.cluster]] if kind == "clusters" and design.cluster else [])]
    copies = frame[design.weights] if design.weight_kind == "frequency" else pd.Series(1.0, frame.index)
    wide = copies.groupby([*(u.to_numpy() for u in unit), category]).sum().unstack(fill_value=0)
    wide = wide.reindex(columns=range(2 * len(ends)), fill_value=0.0)
    index = wide.index
    table = _Table(
        wide.to_numpy(dtype=float),
        np.asarray(index.get_level_values(0), dtype=np.int64),
        np.asarray(index.get_level_values(1), dtype=float),
    )
    return table, ends, centred


def _ordered(table: _Table) -> _Table:
    """Units and strata in an order that their contents decide: random numbers then meet the same ones.

    Without it p would depend on the order of the rows, or on what sites are called.
    """
    content = np.column_stack([table.stratum, table.treated, table.counts])
    content = content[np.lexsort(content[:, ::-1].T)]  # by stratum, then by what is in the unit
    parts = np.split(content[:, 1:], np.flatnonzero(np.diff(content[:, 0])) + 1)
    parts.sort(key=lambda part: (len(part), part.ravel().tolist()))
    rows = np.concatenate(parts)
    stratum = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return _Table(rows[:, 1:], stratum, rows[:, 0])


def _tested(
    table: _Table, ends: Array, kind: Assigned, draws: int, rng: np.random.Generator, *, centred: bool
) -> InstrumentalInequalities:
    """The statistic, its law, and the table of intervals."""
    bins, table = len(ends), _ordered(table)
    strata = int(table.stratum.max()) + 1
    seen, variance, shuffled, scale = (
        _rows_law(table, strata, draws, rng) if kind == "rows" else _clusters_law(table, strata, draws, rng)
    )
    low, high = np.triu_indices(bins)
    one = ((np.arange(bins) >= low[:, None]) & (np.arange(bins) <= high[:, None])).astype(float)
    zero = np.zeros_like(one)
    # In the direction that must not be negative: more treated with M = 1, fewer with M = 0.
    pick = np.concatenate([np.hstack([-one, zero]), np.hstack([zero, one])])
    size = np.einsum("ij,jk,ik->i", pick, variance, pick)
    hits = np.abs(pick) @ table.counts.sum(axis=0)
    use = (hits >= max(LEAST_HITS, LEAST_SHARE * table.counts.sum())) & (size > 1e-9)
    if not use.any():
        return _none("too few rows in any interval of the outcome, or no site with both arms")
    error = np.sqrt(size[use])
    z = (pick[use] @ seen) / error
    law = -((shuffled @ pick[use].T) / error).min(axis=1)
    stat = float(-z.min())
    p = (1 + int((law >= stat - 1e-9).sum())) / (1 + len(law))
    cells = pd.DataFrame(
        {
            "mediator": np.repeat([0, 1], len(low))[use], "lower": np.tile(ends[low, 0], 2)[use],
            "upper": np.tile(ends[high, 1], 2)[use], "difference": (pick[use] @ seen) / scale,
            "std_error": error / scale, "z": z,
        }
    )  # fmt: skip
    if len(np.unique(law.round(9))) < 20:
        return _none("too few units: assignment can be shuffled in too few ways")
    words = f"{len(law)} shuffles of {kind} within sites; {int(use.sum())} intervals"
    test = TestStatistic(_NAME, _NULL, stat, p, int(use.sum()), law=words)
    detectable = float((np.quantile(law, 0.95) + 0.8416) * np.median(error) / scale)
    return InstrumentalInequalities(cells, test, detectable, centred)


def _rows_law(
    table: _Table, strata: int, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, float]:
    """Treated rows by category beyond what shuffling expects: seen, covariance, draws; and sum n p (1 - p)."""
    treated = table.treated > 0.5
    total = group_sum(table.counts, table.stratum, strata)
    own = group_sum(table.counts[treated], table.stratum[treated], strata)
    n, n1 = total.sum(axis=1), own.sum(axis=1)
    use = (n1 > 0) & (n1 < n)
    total, own, n, n1 = total[use], own[use], n[use], n1[use]
    factor = n1 * (n - n1) / n / np.maximum(n - 1.0, 1.0)
    mean = total * (n1 / n)[:, None]
    spread = np.diag((factor[:, None] * total).sum(axis=0))
    spread -= np.einsum("s,sj,sk->jk", factor / n, total, total)
    shuffled = np.zeros((draws, total.shape[1]))
    whole, rest, left = (np.broadcast_to(x, (draws, *x.shape)).astype(np.int64) for x in (total, n, n1))
    for j in range(total.shape[1]):
        got = rng.hypergeometric(whole[:, :, j], rest - whole[:, :, j], left)
        shuffled[:, j] = (got - mean[:, j]).sum(axis=1)
        rest, left = rest - whole[:, :, j], left - got
    return (own - mean).sum(axis=0), spread, shuffled, float((n1 * (n - n1) / n).sum())


def _clusters_law(
    table: _Table, strata: int, draws: int, rng: np.random.Generator
) -> tuple[Array, Array, Array, float]:
    """The same with the labels of whole clusters shuffled within strata."""
    order = np.argsort(table.stratum, kind="stable")
    counts, stratum, treated = table.counts[order], table.stratum[order], table.treated[order]
    rows = counts.sum(axis=1)
    share = group_sum(counts, stratum, strata) / group_sum(rows, stratum, strata)[:, None]
    z = counts - rows[:, None] * share[stratum]
    units = np.bincount(stratum, minlength=strata)
    own = np.bincount(stratum, treated, strata)
    factor = own * (units - own) / np.maximum(units, 1) / np.maximum(units - 1.0, 1.0)
    spread = np.einsum("u,uj,uk->jk", factor[stratum], z, z)
    keys = stratum[:, None] + rng.random((len(stratum), draws))
    labels = treated[np.argsort(keys, axis=0)]
    rate = group_sum(treated * rows, stratum, strata) / group_sum(rows, stratum, strata)
    scale = float((rows * rate[stratum] * (1.0 - rate[stratum])).sum())
    return treated @ z, spread, labels.T @ z, scale
