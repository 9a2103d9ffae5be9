"""The packaged example: class-by-arm moments of Project STAR, kindergarten (no pupil rows)."""

from __future__ import annotations

from importlib.resources import as_file, files
from typing import Literal, TypeAlias

from msmmiv.errors import check_choice
from msmmiv.moments.cells import Moments

__all__ = ["StarAnalysis", "star"]

StarAnalysis: TypeAlias = Literal["math", "math_covariates", "math_two_mediators", "reading"]


def star(analysis: StarAnalysis = "math") -> Moments:
    """Moments of Tennessee's class size experiment: 79 schools, small classes against regular ones.

    The treatment ``small`` was randomised to pupils and teachers inside schools; the mediators are
    ``class_size`` (pupils in the class) and ``tch_exp`` (years the teacher has taught); cells are class by
    arm. Computed by this package from the public-domain file of Achilles et al. (2008), Harvard
    Dataverse doi:10.7910/DVN/SIWH9F, with ``examples/make_star_moments.py``.

    Parameters
    ----------
    analysis : {"math", "math_covariates", "math_two_mediators", "reading"}
        Scaled math score on class size; with pupil covariates; on class size and teacher experience;
        scaled reading score on class size.

    Returns
    -------
    Moments

    Examples
    --------
    >>> import msmmiv as mm
    >>> mm.data.star()
    Moments(5,871 rows in 325 cells: 79 sites, 2 arms, 325 clusters)
    """
    check_choice(analysis, StarAnalysis, "analysis")
    with as_file(files(__name__) / f"star_{analysis}.csv") as path:
        return Moments.load(path)
