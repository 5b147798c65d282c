"""Curves of a training run: log.jsonl to curves.json and curves.png.

    python models/training/plot.py build/training/log.jsonl models/mobius-tiny
"""

import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def read(path):
    """{"loss": [...], "evaluations": [...], "runs": [...]} of the log; a resumed run's repeated steps count once."""
    lines = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    runs = [line for line in lines if "started" in line]
    loss = {line["step"]: line for line in lines if "answer_loss" in line}
    evaluations = {(line["step"], line["length"], line["evaluation"]): line for line in lines if "evaluation" in line}
    return {"runs": runs, "loss": [loss[step] for step in sorted(loss)],
            "evaluations": [evaluations[key] for key in sorted(evaluations)]}


def broken(points, key):
    """(steps, values) with a gap where training was at other lengths in between."""
    steps, values = [], []
    for point in points:
        if steps and point["step"] - steps[-1] > 100:
            steps.append(point["step"])
            values.append(float("nan"))
        steps.append(point["step"])
        values.append(point[key])
    return steps, values


def draw(curves, path):
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 8), sharex=True)
    lengths = sorted({point["length"] for point in curves["loss"]})
    for length in lengths:
        points = [p for p in curves["loss"] if p["length"] == length]
        upper.plot(*broken(points, "answer_loss"), label=f"{length:,} tokens")
    upper.set(yscale="log", ylabel="loss of answer tokens (nats)", title="mobius-tiny: training")
    for mode, style in (("full", "o"), ("moba", "x")):
        points = [p for p in curves["evaluations"] if p["evaluation"].startswith(mode)]
        for length in lengths:
            own = [p for p in points if p["length"] == length]
            lower.plot([p["step"] for p in own], [100 * p["mean"] for p in own], style, label=f"{mode}, {length:,}",
                       color=f"C{lengths.index(length)}")
    lower.set(xlabel="step (65,536 tokens)", ylabel="held-out answers exactly right (%)", ylim=(0, 101))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    log, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    curves = read(log)
    (out / "curves.json").write_text(json.dumps(curves, indent=0) + "\n")
    draw(curves, out / "curves.png")


if __name__ == "__main__":
    main()
