"""A long document with facts hidden in it, the same for the same seed."""

import random
from dataclasses import dataclass

PEOPLE = ["the ferryman", "a retired clockmaker", "the harbour pilot", "an old gardener", "the librarian",
          "a travelling surveyor", "the baker's daughter", "a quiet engineer", "the lighthouse keeper"]
PLACES = ["the northern quay", "a walled orchard", "the old observatory", "the reading room", "a narrow lane",
          "the covered market", "the mill by the weir", "an empty theatre", "the customs house"]
DEEDS = ["mended a broken lantern", "counted the barges twice", "copied a map by hand", "waited for the rain to stop",
         "wrote a letter that was never sent", "argued about the price of rope", "planted a row of pear trees",
         "closed the shutters early", "listened to the bells across the water"]
TIMES = ["In the first week of spring", "Long before noon", "On the evening of the fair", "After the flood had gone",
         "Every other winter", "At the turn of the tide", "Without a word to anyone", "Some years later"]
REMARKS = ["Nobody thought more about it.", "It was the kind of day that leaves no trace.",
           "The air smelled of tar and apples.", "People spoke of it for a while, then of other things.",
           "A grey cat watched from the wall.", "The ledger says nothing else about that month."]


@dataclass
class Document:
    text: str
    question: str
    answer: str  # the words that a right answer contains


def make_document(characters: int, seed: int) -> Document:
    """Prose of about `characters` characters in which one sentence answers the question."""
    rng = random.Random(seed)
    code = str(rng.randrange(10_000, 100_000))
    fact = f"The secret number of the lighthouse is {code}."
    paragraphs, length = [], 0
    while length < characters:
        sentences = []
        for _ in range(rng.randrange(4, 8)):
            sentences.append(f"{rng.choice(TIMES)} {rng.choice(PEOPLE)} {rng.choice(DEEDS)} near {rng.choice(PLACES)}.")
            if rng.random() < 0.3:
                sentences.append(rng.choice(REMARKS))
        paragraphs.append(" ".join(sentences))
        length += len(paragraphs[-1]) + 2
    # Neither at the start nor at the end, where a model finds it without searching.
    where = rng.randrange(len(paragraphs) // 4, max(len(paragraphs) // 4 + 1, len(paragraphs) * 3 // 4))
    paragraphs.insert(where, fact)
    return Document("\n\n".join(paragraphs), "What is the secret number of the lighthouse?", code)
