"""A run as a page that opens from disk: python -m reports outputs/<date>/<run>

Writes report.html to the run's folder; the run may still be training, or have failed. Several
runs are compared on one page: python -m reports RUN1 RUN2 --out comparison.html
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m reports",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        help="the page that compares several runs (default: comparison.html)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the samples that are compared (default: 0)"
    )
    args = parser.parse_args()

    from runs.errors import readable_errors

    with readable_errors():
        print(report(args))


def report(args: argparse.Namespace) -> Path:
    """Writes the page and returns where it is."""
    from reports.page import write_comparison, write_report

    if len(args.runs) > 1:
        return write_comparison(args.runs, args.out, args.seed)
    return write_report(args.runs[0])


if __name__ == "__main__":
    main()
