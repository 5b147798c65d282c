#!/usr/bin/env python3
"""Prints held-out text of models/training/corpus, for mobius-perplexity.

Documents as they are evaluated (fresh ones, whose planted names and values training never saw), one after
another until there are enough characters.
"""

import argparse
import pathlib
import random
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "models" / "training"))

import corpus  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=1_000_000)
    parser.add_argument("--document", type=int, default=100_000, help="characters of each document")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    rng = random.Random(chosen.seed)
    written = 0
    while written < chosen.characters:
        text = corpus.make_dialogue("single", rng, "eval", chosen.document).document
        print(text, end="\n\n")
        written += len(text) + 2


if __name__ == "__main__":
    main()
