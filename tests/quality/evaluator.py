"""Asks the server every question of a grid in every mode, and grades the answers."""

import concurrent.futures
import sys
import threading
import time

from chat_client import ServerError
from fit_length import LengthFitter, make_with

TOLERANCE = 0.05  # of the wanted length, by the server's own count
ATTEMPTS = 4  # at a document's length
RETRY_SECONDS = (1, 5, 20)  # when the server is full or starting
SHOWN_ANSWER = 300  # characters kept in the results


def answer_tokens(turn):
    """Room for an answer: more than a right one needs, so that a wordy one is not cut."""
    return max(48, len(turn.answer) // 2 + 16)


class Evaluator:
    """`corpus` is models/training/corpus, or something else with its make_dialogue and grade.
    `max_context` is the server's, where it is known."""

    def __init__(self, client, model, corpus, results, modes, *, seed, split="eval", turns=1,
                 max_context=None, log=print):
        self._client = client
        self._model = model
        self._corpus = corpus
        self._results = results
        self._modes = modes
        self._seed = seed
        self._split = split
        self._turns = turns
        self._max_context = max_context
        self._log = log
        self._fitter = LengthFitter(self._count_tokens)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._measured = self._missing = 0

    # ---- asking --------------------------------------------------------------------------------

    def _chat(self, messages, max_tokens, mode):
        options = {"model": self._model, "max_tokens": max_tokens, "temperature": 0}
        if mode and mode.extension():
            options["mobius"] = mode.extension()
        for seconds in (*RETRY_SECONDS, None):
            try:
                answer = self._client.chat(messages, **options)
                break
            except ServerError as error:
                if error.status not in (429, 503) or seconds is None:
                    raise
                time.sleep(seconds)
        if "prompt_tokens" not in answer.usage:
            raise RuntimeError("the server's answers have no usage.prompt_tokens; "
                               "without it no length can be met")
        return answer

    def _count_tokens(self, text):
        # One token is the least that can be asked for. Full or MoBA makes no difference here.
        answer = self._chat([{"role": "user", "content": text}], 1, None)
        return answer.usage["prompt_tokens"]

    def _converse(self, dialogue, mode):
        """Asks all turns, with the model's own answers in between, and measures them."""
        messages, scores, answers = [], [], []
        for index, turn in enumerate(dialogue.turns):
            content = dialogue.first_message() if index == 0 else turn.question
            messages.append({"role": "user", "content": content})
            answer = self._chat(messages, answer_tokens(turn), mode)
            messages.append({"role": "assistant", "content": answer.text})
            scores.append(self._corpus.grade(turn, answer.text))
            answers.append(answer)
        first = answers[0]
        ttft = first.mobius.get("ttft_ms")
        if ttft is not None:
            ttft /= 1000
        elif first.seconds_to_first_token is not None:
            ttft = first.seconds_to_first_token
        else:
            ttft = first.seconds  # an empty answer: its end is all there is to see
        measured = {
            "score": sum(scores) / len(scores),
            "prompt_tokens": first.usage["prompt_tokens"],
            "cached_tokens": (first.usage.get("prompt_tokens_details") or {}).get("cached_tokens"),
            "completion_tokens": sum(answer.usage.get("completion_tokens", 0) for answer in answers),
            "ttft_seconds": round(ttft, 4),
            "seconds": round(sum(answer.seconds for answer in answers), 4),
            "prefill_blocks": first.mobius.get("prefill_blocks"),
            "decode_blocks": first.mobius.get("decode_blocks"),
            "expect": [list(turn.expect) for turn in dialogue.turns],
            "answers": [answer.text[:SHOWN_ANSWER] for answer in answers],
        }
        if len(scores) > 1:
            measured["scores"] = scores
        return measured

    # ---- lengths -------------------------------------------------------------------------------

    def _wanted_tokens(self, key, make):
        """Prompt tokens to aim at: the length less what the answers take, so that a document of the
        server's whole context still fits."""
        turns = make(1000).turns
        reserve = sum(answer_tokens(turn) for turn in turns)
        reserve += sum(len(turn.question) for turn in turns[1:]) // 2
        return max(key.length - reserve, key.length // 2)

    def _ask(self, key, mode):
        """One case. The first mode that asks a document settles how long it is for all modes."""
        make = make_with(self._corpus.make_dialogue, key, self._seed, self._split, self._turns)
        known = self._results.characters_of(key)
        if known is not None:
            return self._converse(make(known), mode)
        wanted = self._wanted_tokens(key, make)
        fitted = self._fitter.fit(make, wanted)
        characters, dialogue = fitted.characters, fitted.dialogue
        tried = set()
        while True:
            tried.add(characters)
            more = len(tried) < ATTEMPTS
            try:
                measured = self._converse(dialogue, mode)
                found = measured["prompt_tokens"]
            except ServerError as error:
                if not error.prompt_too_long or not more:
                    raise
                measured, found = None, 1.03 * wanted
            if measured and (abs(found - wanted) <= TOLERANCE * wanted or not more):
                break
            corrected = self._fitter.scaled(characters, found, wanted)
            if measured and corrected in tried:
                break
            characters = corrected
            dialogue = make(characters)
        self._results.set_characters(key, characters)
        return measured

    # ---- the grid ------------------------------------------------------------------------------

    def _evaluate(self, key):
        """All modes of one document, in order: they share its length. Returns the cases measured."""
        count = 0
        for mode in self._modes:
            if self._stop.is_set():
                break
            if self._results.has(key, mode):
                continue
            measured = self._ask(key, mode)
            self._results.add(key, mode, measured)
            count += 1
            self._log(f"[{self._progress()}] {str(key):36} {mode.name:18} score {measured['score']:.2f}  "
                      f"{measured['prompt_tokens']:7} tokens  TTFT {measured['ttft_seconds']:.2f} s")
        return count

    def _progress(self):
        with self._lock:
            self._measured += 1
            return f"{self._measured}/{self._missing}"

    def run(self, keys, parallel=1):
        """Measures what is missing. A length that the server cannot hold is noted and left out; any
        other failure ends the run, with everything before it kept."""
        too_long = set()
        self._measured = 0
        self._missing = sum(not self._results.has(key, mode) for key in keys for mode in self._modes)

        def evaluate(key):
            if self._stop.is_set() or key.length in too_long:
                return 0
            if self._max_context and key.length > self._max_context:
                too_long.add(key.length)
                self._results.set_too_long(
                    key.length, f"the server's context is {self._max_context} tokens")
                return 0
            try:
                return self._evaluate(key)
            except ServerError as error:
                if not error.prompt_too_long:
                    raise
                too_long.add(key.length)
                self._results.set_too_long(key.length, f"the server refused it: {error.message}")
                return 0

        pool = concurrent.futures.ThreadPoolExecutor(max_workers=parallel)
        try:
            futures = [pool.submit(evaluate, key) for key in keys]
            return sum(future.result() for future in concurrent.futures.as_completed(futures))
        except BaseException:
            self._stop.set()
            self._client.abort()  # a long prompt would hold up Ctrl-C for minutes
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self._results.save()


def log_to_stderr(line):
    print(line, file=sys.stderr, flush=True)
