"""Documents of a wanted length in tokens, on any server.

A server counts tokens only of what it is asked, so a new document is judged by a small sample of it,
and corrected once the true count of the whole is known.
"""

import random
from dataclasses import dataclass

SAMPLE_CHARACTERS = 4000
SAMPLE_SLICES = 8
CLOSE_ENOUGH = 0.02  # of the wanted length, by the sample


def slices_of(text):
    """About SAMPLE_CHARACTERS of a text in evenly spread pieces that end between words."""
    if len(text) <= SAMPLE_CHARACTERS:
        return text
    size = SAMPLE_CHARACTERS // SAMPLE_SLICES
    pieces = []
    for i in range(SAMPLE_SLICES):
        start = (len(text) - size) * i // (SAMPLE_SLICES - 1)
        if start:
            space = text.find(" ", start, start + size)
            start = space + 1 if space >= 0 else start
        end = text.find(" ", start + size, start + 2 * size)
        pieces.append(text[start:end if end >= 0 else start + size])
    return " ".join(pieces)


@dataclass
class Fitted:
    dialogue: object
    characters: int  # asked of the generator
    expected_tokens: int  # of the first question's prompt, by the sample


class LengthFitter:
    """`count_tokens(text)` asks the server how many prompt tokens a user's message makes."""

    def __init__(self, count_tokens):
        self._count = count_tokens
        self._overhead = None
        self._characters_per_token = 4.0  # where the next search begins

    @property
    def overhead(self):
        """Tokens of a prompt beside the message: the chat template's."""
        if self._overhead is None:
            self._overhead = max(self._count("a") - 1, 0)
        return self._overhead

    def tokens_per_character(self, text):
        sample = slices_of(text)
        return max(self._count(sample) - self.overhead, 1) / len(sample)

    def fit(self, make, tokens):
        """Searches `make(characters)` for the dialogue whose first message has about `tokens`."""
        characters = max(int((tokens - self.overhead) * self._characters_per_token), 200)
        rate = None
        best = None
        tried = set()
        while characters not in tried and len(tried) < 6:
            tried.add(characters)
            dialogue = make(characters)
            message = dialogue.first_message()
            if rate is None:
                rate = self.tokens_per_character(message)
            fitted = Fitted(dialogue, characters, round(self.overhead + rate * len(message)))
            # A generator adds whole sentences, so that a search may step to and fro.
            if best is None or (abs(fitted.expected_tokens - tokens) <
                                abs(best.expected_tokens - tokens)):
                best = fitted
            if abs(best.expected_tokens - tokens) <= CLOSE_ENOUGH * tokens:
                break
            characters = self.scaled(characters, fitted.expected_tokens, tokens)
        self._characters_per_token = best.characters / max(tokens - self.overhead, 1)
        return best

    def scaled(self, characters, found, wanted):
        """Characters to ask for when `characters` gave `found` tokens."""
        factor = max(wanted - self.overhead, 1) / max(found - self.overhead, 1)
        return max(int(characters * factor), 200)


def make_with(make_dialogue, key, base_seed, split, turns):
    """A function of the characters alone: everything else about the document follows from its key."""

    def make(characters):
        rng = random.Random(key.seed(base_seed))
        return make_dialogue(key.task, rng, split, characters, depth=key.depth, turns=turns)

    return make
