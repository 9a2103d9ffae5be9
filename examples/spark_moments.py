"""Sum a trial on a Spark cluster; what comes back to the driver is one line per site and arm.

spark-submit examples/spark_moments.py PATH --outcome y --treatment t --mediator m --site s --out moments.csv
python examples/spark_moments.py    # a small made-up trial, in local mode
"""

import argparse
import tempfile
from pathlib import Path

from pyspark.sql import SparkSession

import msmmiv as mm


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "path", nargs="?", help="Parquet that the cluster can read, such as s3a://bucket/trial/"
    )
    parser.add_argument("--outcome", default="outcome")
    parser.add_argument("--treatment", default="treatment")
    parser.add_argument("--mediator", action="append", dest="mediators")
    parser.add_argument("--site", default="site")
    parser.add_argument("--min-cell", type=int, default=10)
    parser.add_argument("--out", default="moments.csv")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    with tempfile.TemporaryDirectory() as folder:
        if given.path is None:
            made = mm.simulate(sites=20, people=100, seed=5)
            given.path = str(Path(folder) / "trial.parquet")
            made.frame.to_parquet(given.path)
            design, given.out = made.design, str(Path(folder) / "moments.csv")
        else:
            design = mm.Design(
                outcome=given.outcome, treatment=given.treatment, mediators=given.mediators or ["mediator"],
                site=given.site,
            )  # fmt: skip
        spark = SparkSession.builder.appName("msmmiv").getOrCreate()
        try:
            study = mm.Study(spark.read.parquet(given.path), design)
            study.moments.save(given.out, min_cell=given.min_cell)
        finally:
            spark.stop()
        print(study.flow)
        print(f"{study.moments.n_cells} cells of {study.moments.n.sum():,.0f} people came to the driver")
        print(mm.Study(mm.Moments.load(given.out)).fit().summary)


if __name__ == "__main__":
    main()
