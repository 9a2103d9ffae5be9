"""Every figure of a study by name: draw some for a page and a column, and read the numbers behind them.

python examples/figures.py
"""

import tempfile
from pathlib import Path

import msmmiv as mm
from msmmiv.show.plots import StudyPlots, figure_names


def main() -> None:
    study = mm.Study(mm.data.star())
    plot = StudyPlots(study)  # also study.plot
    print(f"{len(figure_names())} figures: {', '.join(figure_names())}")

    weights = plot.weights("2sls")
    told = weights.data
    average = (told["share"] * told["ratio"]).sum()
    print(f"largest share {told['share'].max():.3f}, the five largest {told['share'][:5].sum():.3f}")
    print(f"average of the sites' ratios {average:.6f}, 2SLS {study.fit('2sls').params['class_size']:.6f}")

    without = plot.leave_one_out("2sls").data["estimate"]
    print(f"without any one site the effect lies between {without.min():.3f} and {without.max():.3f}")

    with tempfile.TemporaryDirectory() as folder:
        for picture in (weights, plot.at("column").scatter()):
            path = picture.savefig(Path(folder) / f"{picture.name}.pdf")
            print(f"{path.name}: {picture.figure.get_figwidth():.1f} inches wide; {picture.caption[:60]}...")


if __name__ == "__main__":
    main()
