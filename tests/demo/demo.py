#!/usr/bin/env python3
"""The main job, start to end: start the server, ask it about a long document, show the answer, stop it.

Needs nothing but Python's standard library. Exits 1 if the server does not start, a request fails,
or an answer is wrong.
"""

import argparse
import pathlib
import random
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "client"), str(HERE.parents[1] / "models" / "training")]

import corpus  # noqa: E402
from chat_client import ChatClient, ServerError  # noqa: E402
from fit_length import LengthFitter  # noqa: E402
from server_process import ServerProcess  # noqa: E402

FACTS = 5  # that can be asked for; the corpus hides a few more


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mobius", required=True, help="the server binary")
    parser.add_argument("--config", default="configs/embedded.json")
    parser.add_argument("--tokens", type=int, default=32_000, help="length of the document, about")
    parser.add_argument("--questions", type=int, default=1, choices=range(1, FACTS + 1),
                        help="how many to ask, one after the other in one conversation")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another document")
    parser.add_argument("--max-tokens", type=int, default=48, help="longest answer")
    return parser.parse_args()


def show_progress(done, total, started):
    width = 32
    filled = width * done // max(total, 1)
    text = f"  reading [{'#' * filled}{'.' * (width - filled)}] {done:,} of {total:,} tokens"
    if sys.stdout.isatty():
        print(f"\r{text}", end="\n" if done == total else "", flush=True)
    elif done == total:
        print(f"{text} in {time.monotonic() - started:.1f} s")


def ask(client, model, messages, max_tokens):
    """Streams one answer to the terminal."""
    started = time.monotonic()
    begun = False

    def show_text(text):
        nonlocal begun
        if not begun:
            print("Answer:   ", end="")
            begun = True
        # Whatever a model writes: nothing that commands the terminal.
        print(text.translate({code: " " for code in range(32)}), end="", flush=True)

    answer = client.chat(messages, on_text=show_text,
                         on_progress=lambda p: show_progress(p["done"], p["total"], started),
                         model=model, max_tokens=max_tokens, temperature=0,
                         mobius={"progress": True})
    print()
    return answer


def fit_document(client, model, seed, tokens):
    """A document of about `tokens` tokens of this model, and questions about it."""

    def count_tokens(text):
        answer = client.chat([{"role": "user", "content": text}], model=model, max_tokens=1)
        return answer.usage["prompt_tokens"]

    def make(characters):
        return corpus.make_dialogue("single", random.Random(seed), "eval", characters, turns=FACTS)

    return LengthFitter(count_tokens).fit(make, tokens).dialogue


def share(reads):
    return f"{100 * reads['read'] / reads['total']:.1f} %" if reads["total"] else "none"


def show_numbers(answer):
    usage, extension = answer.usage, answer.mobius
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    decode_seconds = (extension["total_ms"] - extension["ttft_ms"]) / 1000
    decoded = usage["completion_tokens"] - 1
    print(f"\n  prompt tokens            {usage['prompt_tokens']:,}"
          + (f", {cached:,} of them from the cache" if cached else ""))
    print(f"  answer tokens            {usage['completion_tokens']:,}")
    print(f"  time to first token      {extension['ttft_ms'] / 1000:.2f} s"
          f"  ({(usage['prompt_tokens'] - cached) / extension['ttft_ms'] * 1000:,.0f} prompt tokens/s)")
    if decoded > 0 and decode_seconds > 0:
        print(f"  decode                   {decoded / decode_seconds:,.0f} tokens/s")
    print(f"  KV blocks read, prefill  {share(extension['prefill_blocks'])} of full attention's")
    print(f"  KV blocks read, decode   {share(extension['decode_blocks'])} of full attention's\n")


def converse(arguments, client):
    """Asks the questions and shows what comes. Returns the wrong answers: (turn, text)."""
    model = client.model()["id"]
    dialogue = fit_document(client, model, arguments.seed, arguments.tokens)
    print(f"Model:    {model}")
    print(f"Document: {len(dialogue.document):,} characters of prose with facts hidden in it")
    messages, wrong = [], []
    for index, turn in enumerate(dialogue.turns[:arguments.questions]):
        print(f"Question: {turn.question}")
        content = dialogue.first_message() if index == 0 else turn.question
        messages.append({"role": "user", "content": content})
        answer = ask(client, model, messages, arguments.max_tokens)
        messages.append({"role": "assistant", "content": answer.text})
        show_numbers(answer)
        if corpus.grade(turn, answer.text) < 1:
            wrong.append((turn, answer.text))
    return wrong


def main():
    arguments = parse_arguments()
    started = time.monotonic()
    with ServerProcess(arguments.mobius, arguments.config) as server:
        wrong = converse(arguments, ChatClient(server.address))
    print(f"From start to stop: {time.monotonic() - started:.1f} s")
    for turn, text in wrong:
        print(f"\nWRONG: asked {turn.question!r}, the answer {text!r} does not contain "
              f"{turn.expect[0]!r}.", file=sys.stderr)
    if wrong:
        return 1
    print("Right: what was hidden in the document is in the answer.")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ServerError, RuntimeError, OSError) as error:
        sys.exit(f"demo: {error}")
