"""The decomposition as one HTML file, in the dress of the report."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from msmmiv.estimate.between.decomposition import Decomposition
from msmmiv.estimate.between.interaction import READING
from msmmiv.show.decomposition_tables import decomposition_frames, decomposition_tables
from msmmiv.show.decomposition_words import answers
from msmmiv.show.plots import Picture, decomposition_pictures
from msmmiv.show.plots.decomposition_curves import simex_fit
from msmmiv.show.provenance import versions
from msmmiv.show.template import filled, in_report
from msmmiv.show.words import one_line

__all__ = ["render_decomposition"]


def render_decomposition(
    found: Decomposition,
    *,
    pictures: Sequence[Picture] | None = None,
    frames: dict[str, pd.DataFrame] | None = None,
) -> str:
    """The decomposition as one self-contained HTML page: no network, no other file.

    Parameters
    ----------
    found : Decomposition
    pictures : sequence of Picture, optional
        The pictures of `decomposition_pictures`, if they were drawn already.
    frames : dict of str to DataFrame, optional
        Likewise the frames of `decomposition_frames`.

    Examples
    --------
    >>> import msmmiv as mm
    >>> from msmmiv.estimate.between.decompose import decompose
    >>> page = render_decomposition(decompose(mm.data.star()))
    >>> page.startswith("<!doctype html>"), page.count("<svg ")
    (True, 4)
    """
    from markupsafe import Markup

    frames = decomposition_frames(found) if frames is None else frames
    drawn = {p.name: p for p in (decomposition_pictures(found) if pictures is None else pictures)}
    # The SVG is ours and escaped where it was made; everything else is escaped by the template.
    svgs = {name: Markup(p.svg()) for name, p in drawn.items()}  # noqa: S704
    simex = simex_fit(found) if "simex_extrapolation" not in drawn else ""
    return filled(
        in_report("decomposition.html.j2"),
        title=f"Effect on {one_line(found.rows.outcome)} through {', '.join(map(one_line, found.rows.mediators))}",
        answers=answers(found),
        rows=found.rows,
        tables=decomposition_tables(found, frames),
        spread=str(found.direct_spread).splitlines(),
        reading=READING,
        interaction=str(found.interaction),
        notes=list(dict.fromkeys([*found.notes, *found.fit.notes])),
        scatters=[name for name in drawn if name.startswith("decomposition")],
        curves=[name for name in drawn if name.startswith("confidence_curve")],
        no_simex=simex if isinstance(simex, str) else "",
        pictures=drawn,
        svgs=svgs,
        versions=versions(),
        seed=found.seed,
        draws=found.draws,
    )
