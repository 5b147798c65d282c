#!/usr/bin/env python3
"""Draws reports of `mobius bench` side by side: plot_load.py OUT.png REPORT.json...

Needs matplotlib (tests/quality/requirements.txt).
"""

import argparse
import json
import pathlib
import sys

LATENCIES = (("ttft_ms", "time to first token"), ("itl_ms", "between tokens"), ("e2e_ms", "end to end"))


def read_report(path):
    """(name, report), or an error that names the file."""
    try:
        report = json.loads(pathlib.Path(path).read_text())
    except (OSError, ValueError) as error:
        raise SystemExit(f"plot_load: {path}: {error}") from error
    if not isinstance(report, dict) or report.get("what") != "mobius bench":
        raise SystemExit(f"plot_load: {path}: is no report of mobius bench")
    return pathlib.Path(path).stem, report


def title(report):
    throughput = report["throughput"]
    failed = report["requests"]["failed"]
    return (f"{throughput['requests_per_s']:.2f} requests/s, "
            f"{throughput['output_tokens_per_s']:.1f} tokens/s" + (f", {failed} failed" if failed else ""))


def draw(reports, out):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7.5), constrained_layout=True)
    for axis, (key, label) in zip(axes.flat, LATENCIES):
        for name, report in reports:
            curve = report[key].get("curve")
            if curve:
                # Events of one network packet lie no time apart, which a logarithm cannot show.
                axis.plot([max(value, 0.01) for value in curve], [i / 100 for i in range(101)],
                          label=f"{name}: {title(report)}")
        axis.set(xlabel=f"{label}, ms", ylabel="share of requests" if key != "itl_ms" else "share of gaps",
                 ylim=(0, 1))
        axis.set_xscale("log")
        axis.grid(alpha=0.3)
    timeline = axes.flat[3]
    for name, report in reports:
        rows = report["per_request"]
        good = [(row["at_s"], row["ttft_ms"]) for row in rows if "error" not in row and "ttft_ms" in row]
        bad = [row["at_s"] for row in rows if "error" in row]
        points = timeline.plot(*zip(*good), ".", label=name) if good else timeline.plot([], [], ".", label=name)
        timeline.plot(bad, [0] * len(bad), "x", color=points[0].get_color())
    timeline.set(xlabel="due after the start, s (x: failed)", ylabel="time to first token, ms")
    timeline.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small")
    figure.savefig(out, dpi=120)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="picture to write (.png, .svg, .pdf)")
    parser.add_argument("reports", nargs="+", help="written by mobius bench --out")
    arguments = parser.parse_args()
    reports = [read_report(path) for path in arguments.reports]
    try:
        draw(reports, arguments.out)
    except ImportError:
        sys.exit("plot_load: matplotlib is missing; pip install -r tests/quality/requirements.txt")


if __name__ == "__main__":
    main()
