"""What a report rests on, as a list of references."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Reference", "references"]


@dataclass(frozen=True)
class Reference:
    """One entry of the list.

    Attributes
    ----------
    who, title, where : str
        Authors and year, title, and the rest.
    about : str
        The word in the report that it stands behind.
    """

    who: str
    title: str
    where: str
    about: str


_SEEDS = (
    Reference(
        "Reardon, S. F., and Raudenbush, S. W. (2013).",
        "Under what assumptions do site-by-treatment instruments identify average causal effects?",
        "Sociological Methods & Research 42: 143–163.", "",
    ),
    Reference(
        "Fu, J. (2023).",
        "Extract mechanisms from heterogeneous effects: a new identification strategy for mediation analysis.",
        "Working paper.", "",
    ),
)  # fmt: skip
_BEHIND = (
    Reference(
        "Anderson, T. W., and Rubin, H. (1949).",
        "Estimation of the parameters of a single equation in a complete system of stochastic equations.",
        "Annals of Mathematical Statistics 20: 46–63.", "LIML",
    ),
    Reference(
        "Cragg, J. G., and Donald, S. G. (1993).",
        "Testing identifiability and specification in instrumental variable models.",
        "Econometric Theory 9: 222–240.", "Cragg-Donald",
    ),
    Reference(
        "Kleibergen, F., and Paap, R. (2006).",
        "Generalized reduced rank tests using the singular value decomposition.",
        "Journal of Econometrics 133: 97–126.", "Kleibergen-Paap",
    ),
    Reference(
        "Kolesár, M. (2013).",
        "Estimation in an instrumental variables model with treatment effect heterogeneity.",
        "Working paper, Princeton University.", "UJIVE",
    ),
    Reference(
        "Montiel Olea, J. L., and Pflueger, C. (2013).",
        "A robust test for weak instruments.",
        "Journal of Business & Economic Statistics 31: 358–369.", "Montiel Olea",
    ),
    Reference(
        "Robin, J.-M., and Smith, R. J. (2000).",
        "Tests of rank.",
        "Econometric Theory 16: 151–175.", "Robin-Smith",
    ),
    Reference(
        "Sanderson, E., and Windmeijer, F. (2016).",
        "A weak instrument F-test in linear IV models with multiple endogenous variables.",
        "Journal of Econometrics 190: 212–221.", "Sanderson-Windmeijer",
    ),
    Reference(
        "Stock, J. H., and Yogo, M. (2005).",
        "Testing for weak instruments in linear IV regression.",
        "In D. W. K. Andrews and J. H. Stock (eds.), Identification and Inference for Econometric Models, 80–108. "
        "Cambridge University Press.", "Stock-Yogo",
    ),
)  # fmt: skip


def references(page: str) -> tuple[Reference, ...]:
    """The two papers that the method comes from, and those behind the names that stand on a page.

    Examples
    --------
    >>> [r.who for r in references("The F of Cragg-Donald is 9; UJIVE is -1.2.")][2:]
    ['Cragg, J. G., and Donald, S. G. (1993).', 'Kolesár, M. (2013).']
    """
    return _SEEDS + tuple(r for r in _BEHIND if r.about in page)
