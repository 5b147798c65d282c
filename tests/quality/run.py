#!/usr/bin/env python3
"""Measures what a model finds in long documents, with full attention and with MoBA.

Asks a server the questions of models/training/corpus at several lengths and depths, grades the
answers, and writes DIR/results.json, DIR/summary.txt and a heat map for each mode. Started again
with the same DIR it measures only what is missing there.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path += [str(HERE.parent / "client"), str(ROOT / "models" / "training")]

import corpus  # noqa: E402
from corpus.prose import BOOK_VARIABLE  # noqa: E402
from cases import depths_of, grid, parse_block, parse_lengths, parse_modes  # noqa: E402
from chat_client import ChatClient  # noqa: E402
from evaluator import Evaluator, log_to_stderr  # noqa: E402
from heatmap import draw, file_name  # noqa: E402
from report import in_order, summary  # noqa: E402
from results import Results, describe_run, fingerprint, load  # noqa: E402
from server_process import ServerProcess  # noqa: E402

DEFAULT_LENGTHS = "4096,8192,16384,32768,65536,131072"


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_argument_group("the server: one that runs, or one started here")
    where.add_argument("--server", metavar="URL", help="a running server, http://host:port")
    where.add_argument("--config", help="configuration to start --mobius with")
    where.add_argument("--mobius", default=str(ROOT / "build/release/server/mobius"),
                       help="the server's binary (default %(default)s)")
    where.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                       help="a setting for the started server, such as kv.bytes=8000000000")
    where.add_argument("--timeout", type=float, default=3600, help="seconds without a byte")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--lengths", default=DEFAULT_LENGTHS,
                      help="tokens of prompt and answer (default %(default)s); those beyond the "
                      "server's context are left out")
    what.add_argument("--depths", type=int, default=5, help="depths of the fact, spread evenly")
    what.add_argument("--samples", type=int, default=1, help="documents per task, length and depth")
    what.add_argument("--tasks", default=",".join(corpus.TASKS), help="default %(default)s")
    what.add_argument("--modes", default="full:full,moba:moba,moba:full",
                      help="PREFILL:DECODE each; \"server\" sends no attention settings, which also "
                      "suits servers other than Mobius (default %(default)s)")
    what.add_argument("--blocks", default="512/8", help="MoBA's BLOCK/TOP_K (default %(default)s)")
    what.add_argument("--full-last-layers", type=int, metavar="N",
                      help="last layers that stay full; default: the server's setting")
    what.add_argument("--turns", type=int, default=1, help="questions per document")
    what.add_argument("--seed", type=int, default=1)
    what.add_argument("--parallel", type=int, default=1,
                      help="documents at a time; above 1, TTFT includes waiting for each other")
    parser.add_argument("--out", required=True, metavar="DIR")
    parser.add_argument("--report", action="store_true",
                        help="measure nothing: write summary and heat maps of DIR/results.json anew")
    parser.add_argument("--hardware", help="the server's machine, when it is not this one")
    parser.add_argument("--commit", help="what was measured, where git cannot say")
    parser.add_argument("--no-plots", action="store_true", help="without heat maps (and matplotlib)")
    chosen = parser.parse_args(arguments)
    wanted = 0 if chosen.report else 1
    if (chosen.server is not None) + (chosen.config is not None) != wanted:
        parser.error("give either --server or --config, and neither with --report")
    for name in ("samples", "turns", "parallel"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} is {getattr(chosen, name)}; must be at least 1")
    try:
        chosen.lengths = parse_lengths(chosen.lengths)
        chosen.depths = depths_of(chosen.depths)
        chosen.blocks = [parse_block(text) for text in chosen.blocks.split(",")]
        chosen.modes = parse_modes(chosen.modes.split(","), chosen.blocks, chosen.full_last_layers)
    except ValueError as error:
        parser.error(str(error))
    chosen.tasks = chosen.tasks.split(",")
    for task in chosen.tasks:
        if task not in corpus.TASKS:
            parser.error(f"task {task!r}: must be one of {', '.join(corpus.TASKS)}")
    for text in chosen.set:
        if "=" not in text:
            parser.error(f"--set {text!r}: write KEY=VALUE")
    return chosen


def write_report(data, out, plots):
    text = summary(data)
    (out / "summary.txt").write_text(text + "\n")
    print(text)
    if not plots:
        return
    model = data["settings"]["model"]
    for mode in in_order(case["mode"] for case in data["cases"]):
        path = out / file_name(mode)
        draw([c for c in data["cases"] if c["mode"] == mode], f"{model}, {mode}", path)
        log_to_stderr(f"wrote {path}")


def checkpoint_of(config):
    """Fingerprint of the model that a configuration names: the same name may have been trained on."""
    return fingerprint(pathlib.Path(config["model"]["path"]).glob("*.safetensors"))


def merged(config, overrides):
    """A configuration with "a.b" settings of the command line in their places."""
    result = json.loads(json.dumps(config))
    for key, value in overrides.items():
        section, _, name = key.partition(".")
        result.setdefault(section, {})[name] = value
    return result


def measure(chosen, client, config, hardware):
    """`config` is None for a server that was not started here."""
    model = client.model()
    run = describe_run(ROOT, model, hardware, chosen.commit)
    run["config"] = config
    # What decides questions and answers; results of other questions or models are not continued.
    book = os.environ.get(BOOK_VARIABLE)
    settings = {"model": model["id"], "checkpoint": config and checkpoint_of(config), "seed": chosen.seed,
                "turns": chosen.turns, "split": "eval",
                "corpus": fingerprint(pathlib.Path(corpus.__file__).parent.glob("*.py")),
                "book": fingerprint([pathlib.Path(book)]) if book else None}
    out = pathlib.Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    results = Results(out / "results.json", settings, run)
    evaluator = Evaluator(client, model["id"], corpus, results, chosen.modes, seed=chosen.seed, turns=chosen.turns,
                          max_context=(model.get("mobius") or {}).get("max_context"),
                          log=log_to_stderr)
    keys = list(grid(chosen.tasks, chosen.lengths, chosen.depths, chosen.samples))
    done = 0
    try:
        done = evaluator.run(keys, chosen.parallel)
    finally:
        log_to_stderr(f"{len(results.cases)} cases in {results.path}")
        if results.cases:
            write_report(results.data, out, not chosen.no_plots)
    return done


def main():
    chosen = parse_arguments()
    if not chosen.no_plots:
        import matplotlib  # noqa: F401, better missing now than after hours
    if chosen.report:
        out = pathlib.Path(chosen.out)
        write_report(load(out / "results.json"), out, not chosen.no_plots)
        return
    with contextlib.ExitStack() as stack:
        address = chosen.server
        hardware = chosen.hardware
        config = None
        if address is None:
            settings = dict(text.split("=", 1) for text in chosen.set)
            config = merged(json.loads(pathlib.Path(chosen.config).read_text()), settings)
            address = stack.enter_context(
                ServerProcess(chosen.mobius, chosen.config, settings)).address
        elif hardware is None and not any(
                name in address for name in ("127.0.0.1", "localhost", "[::1]")):
            hardware = "unknown (another machine)"
        client = ChatClient(address, chosen.timeout, os.environ.get("OPENAI_API_KEY"))
        measure(chosen, client, config, hardware)


if __name__ == "__main__":
    try:
        main()
    except (RuntimeError, OSError, ValueError, http.client.HTTPException) as error:
        sys.exit(f"quality: {error}")
    except KeyboardInterrupt:
        sys.exit("quality: interrupted; start it again with the same --out to go on")
