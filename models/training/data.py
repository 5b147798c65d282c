"""Batches of training and evaluation tokens, each a function of (seed, step) alone."""

import multiprocessing
import os

import numpy as np

import corpus
from chat import NONE, Chat

#: Characters per token of this corpus, a little under what is measured, so that most documents fit.
_CHARACTERS_PER_TOKEN = 3.7


def _fill_with(chat, make, length, retries=8):
    """One dialogue that fills up to `length` tokens, shortened until its answers fit."""
    share = 1.0
    for attempt in range(retries):
        rendered = chat.render(make(attempt, int(length * _CHARACTERS_PER_TOKEN * share)), length)
        if rendered is not None and len(rendered[0]) > length * 0.5:
            return rendered
        share *= 0.85
    raise RuntimeError(f"no dialogue of {length} tokens could be made")


def training_sequence(chat, seed, step, index, length):
    """(tokens, weights) of `length` + 1 entries, padded at the end with weight 0."""
    rng = corpus.seeded("train", seed, step, index)
    kind = rng.random()
    parts, room = [], length + 1
    if kind >= 0.2:  # one document as long as the sequence; below, several shorter ones
        parts.append(_fill_with(
            chat, lambda attempt, characters: corpus.training_dialogue(
                corpus.seeded("train", seed, step, index, attempt), characters), length + 1))
        room -= len(parts[-1][0])
    misses = 0
    while room > 300 and misses < 3:
        if kind < 0.03:  # many short conversations without a document
            rendered = chat.render(corpus.small_talk(rng), room)
        else:
            upto = min(room, rng.choice((300, 500, 1000, 2000, 4000))) * 0.8 ** misses
            rendered = chat.render(corpus.training_dialogue(rng, int(upto * 2.6)), room)
        if rendered is None:
            misses += 1
            continue
        parts.append(rendered)
        room -= len(rendered[0])
    return _padded(chat, parts, length + 1)


def evaluation_sequence(chat, task, seed, index, length, turns):
    """One held-out dialogue of one task."""
    make = lambda attempt, characters: corpus.make_dialogue(
        task, corpus.seeded("eval", seed, task, index, attempt), "eval", characters, turns=turns)
    return _padded(chat, [_fill_with(chat, make, length + 1)], length + 1)


def _padded(chat, parts, size):
    tokens = np.full(size, chat.pad, np.int32)
    weights = np.full(size, NONE, np.float32)
    at = 0
    for ids, weight in parts:
        tokens[at:at + len(ids)] = ids
        weights[at:at + len(ids)] = weight
        at += len(ids)
    return tokens, weights


_chat = None


def _start(tokenizer_file):
    global _chat
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _chat = Chat(tokenizer_file)


def _make(job):
    seed, step, index, length = job
    return training_sequence(_chat, seed, step, index, length)


class Loader:
    """Makes the sequences of coming steps in worker processes; batches come in the order of the steps."""

    def __init__(self, tokenizer_file, workers):
        context = multiprocessing.get_context("fork")
        self.pool = context.Pool(workers, _start, (str(tokenizer_file),))

    def batches(self, seed, first_step, last_step, batch, length):
        """Yields (tokens [batch, length + 1], weights likewise) for steps first_step to last_step - 1."""
        jobs = ((seed, step, index, length) for step in range(first_step, last_step) for index in range(batch))
        ahead = self.pool.imap(_make, _throttled(jobs, self), chunksize=1 if length > 8192 else 4)
        for _ in range(first_step, last_step):
            rows = []
            for _ in range(batch):
                rows.append(next(ahead))
                self.slots.release()
            yield np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])

    def close(self):
        self.pool.terminate()
        self.pool.join()


def _throttled(jobs, loader, ahead=2048):
    """imap reads its jobs without bound; this holds it to some steps ahead of training."""
    import threading
    loader.slots = threading.Semaphore(ahead)

    def produce():
        for job in jobs:
            loader.slots.acquire()
            yield job
    return produce()
