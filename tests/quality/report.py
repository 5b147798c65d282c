"""Tables of a results file: scores, MoBA against full attention, and how much was read."""

import math
import statistics
from collections import defaultdict


def percent(value):
    return "-" if value is None else f"{100 * value:.1f}"


def length_name(tokens):
    return f"{tokens // 1024}K" if tokens % 1024 == 0 else str(tokens)


def mean(values):
    values = list(values)
    return statistics.fmean(values) if values else None


def in_order(values):
    return list(dict.fromkeys(values))


def render_table(header, rows):
    """Columns as wide as they need; the first to the left, the others to the right."""
    table = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]

    def line(row):
        return "  ".join([row[0].ljust(widths[0])] +
                         [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]).rstrip()

    return "\n".join([line(table[0]), "  ".join("-" * width for width in widths),
                      *(line(row) for row in table[1:])])


def scores_by_cell(cases):
    """{(task, length): [score]}"""
    cells = defaultdict(list)
    for case in cases:
        cells[case["task"], case["length"]].append(case["score"])
    return cells


def macro_average(cells, length, tasks):
    """Every task counts the same, however many samples it has."""
    means = [mean(cells[task, length]) for task in tasks if cells.get((task, length))]
    return mean(means)


def score_table(cases, tasks, lengths):
    cells = scores_by_cell(cases)
    rows = [[task] + [percent(mean(cells.get((task, length), []))) for length in lengths]
            for task in tasks]
    rows.append(["all tasks"] + [percent(macro_average(cells, length, tasks)) for length in lengths])
    return render_table(["score, %"] + [length_name(length) for length in lengths], rows)


def paired_differences(cases, reference):
    """[(task, length, score - reference score)] of documents that both modes were asked."""
    expected = {case["document"]: case["score"] for case in reference}
    return [(case["task"], case["length"], case["score"] - expected[case["document"]])
            for case in cases if case["document"] in expected]


def with_error(values):
    """Mean and its standard error, in points."""
    if not values:
        return "-"
    text = f"{100 * statistics.fmean(values):+.1f}"
    if len(values) > 1:
        text += f" ±{100 * statistics.stdev(values) / math.sqrt(len(values)):.1f}"
    return text


def difference_table(cases, reference, tasks, lengths, reference_name):
    differences = paired_differences(cases, reference)
    cells = defaultdict(list)
    for task, length, value in differences:
        for row in (task, "all tasks"):
            cells[row, length].append(value)
            cells[row, "all"].append(value)
    columns = [*lengths, "all"]
    rows = [[row] + [with_error(cells.get((row, column), [])) for column in columns]
            for row in [*tasks, "all tasks"]]
    header = [f"minus {reference_name}, points"]
    return render_table(header + [length_name(length) for length in lengths] + ["all"], rows)


def share_read(cases, phase):
    """KV blocks read of those that full attention would read; None where the server does not say."""
    reads = [case[phase] for case in cases if case.get(phase)]
    total = sum(entry["total"] for entry in reads)
    return sum(entry["read"] for entry in reads) / total if total else None


def seconds(value):
    return "-" if value is None else f"{value:.2f}"


def cost_table(cases, lengths):
    """What MoBA saves. "last query" is the usual figure of merit, 1 - k B / n, of MoBA's layers at
    the prompt's end; "read" counts all queries, layers and heads."""
    rows = []
    for length in lengths:
        here = [case for case in cases if case["length"] == length]
        if not here:
            continue
        tokens = mean(case["prompt_tokens"] for case in here)
        policy = next((phase for phase in (here[0]["attention"] or {}).values()
                       if isinstance(phase, dict) and phase["mode"] == "moba"), None)
        sparsity = None
        if policy:
            sparsity = max(0.0, 1 - policy["block"] * policy["top_k"] / tokens)
        # Of prompts that were computed whole.
        times = [case["ttft_seconds"] for case in here if not case.get("cached_tokens")]
        first_token = statistics.median(times) if times else None
        rows.append([length_name(length), len(here), f"{tokens:.0f}",
                     f"{min(c['prompt_tokens'] for c in here)}-{max(c['prompt_tokens'] for c in here)}",
                     percent(share_read(here, "prefill_blocks")),
                     percent(share_read(here, "decode_blocks")), percent(sparsity),
                     seconds(first_token)])
    return render_table(["length", "cases", "tokens", "from-to", "prefill read, %", "decode read, %",
                         "sparsity at last query, %", "TTFT, s"], rows)


def overview(by_mode, lengths):
    """One line for each mode: the mean of all tasks at each length, and against full attention."""
    reference = by_mode.get("full:full", [])
    rows = []
    for mode, cases in by_mode.items():
        cells = scores_by_cell(cases)
        tasks = in_order(case["task"] for case in cases)
        scores = [percent(macro_average(cells, length, tasks)) for length in lengths]
        differences = [d for _, _, d in paired_differences(cases, reference)]
        against = with_error(differences) if mode != "full:full" else "-"
        rows.append([mode, *scores, len(cases), against,
                     percent(share_read(cases, "prefill_blocks"))])
    return render_table(["all tasks, score, %", *(length_name(length) for length in lengths),
                         "cases", "minus full:full", "prefill read, %"], rows)


def summary(data):
    """The whole report of a results file as text."""
    cases = data["cases"]
    tasks = in_order(case["task"] for case in cases)
    lengths = sorted({case["length"] for case in cases})
    modes = in_order(case["mode"] for case in cases)
    by_mode = {mode: [case for case in cases if case["mode"] == mode] for mode in modes}
    reference = by_mode.get("full:full", [])
    run = data["runs"][-1]
    lines = [f"{data['settings']['model']}, {run['date']}, commit {run['commit']}, "
             f"{run['server'].get('device') or 'unknown device'}, {run['hardware']}",
             "", overview(by_mode, lengths)]
    for mode in modes:
        lines += ["", f"== {mode}", "", score_table(by_mode[mode], tasks, lengths)]
        if reference and mode != "full:full":
            lines += ["", difference_table(by_mode[mode], reference, tasks, lengths, "full:full")]
        lines += ["", cost_table(by_mode[mode], lengths)]
    for entry in data["too_long"]:
        if entry["length"] in lengths:
            continue  # measured after all, with a larger context
        lines += ["", f"{length_name(entry['length'])} not measured: {entry['why']}"]
    return "\n".join(lines)
