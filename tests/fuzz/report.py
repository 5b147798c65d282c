#!/usr/bin/env python3
"""Adds what one run of a target found, by its log, to a JSON file of all targets. Called by run.sh."""

import argparse
import datetime
import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/quality"))

from results import commit_of, local_hardware  # noqa: E402


def last_number(pattern, log):
    found = re.findall(pattern, log)
    return int(found[-1]) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True)
    parser.add_argument("--log", type=pathlib.Path, required=True)
    parser.add_argument("--seconds", type=int, required=True, help="that it was given")
    parser.add_argument("--exit-code", type=int, required=True)
    parser.add_argument("--findings", nargs="*", default=[], help="files that the fuzzer left")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    log = arguments.log.read_text(errors="replace")
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results[arguments.target] = {
        "command": f"tests/fuzz/run.sh -s {arguments.seconds} -o FILE {arguments.target}",
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit_of(ROOT),
        "hardware": local_hardware(),
        "executions": last_number(r"stat::number_of_executed_units: *(\d+)", log),
        "ran_seconds": last_number(r"Done \d+ runs in (\d+) second", log),
        "coverage_edges": last_number(r"\bcov: (\d+)", log),
        "coverage_features": last_number(r"\bft: (\d+)", log),
        "corpus_inputs": last_number(r"\bcorp: (\d+)", log),
        "peak_rss_mb": last_number(r"stat::peak_rss_mb: *(\d+)", log),
        "exit_code": arguments.exit_code,
        "findings": [pathlib.Path(name).name for name in arguments.findings],
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


if __name__ == "__main__":
    main()
