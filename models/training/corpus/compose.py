"""Documents: planted sentences among haystack sentences, cut into paragraphs."""

import random

from . import prose
from .dialogue import Dialogue
from .facts import World
from .tasks import EDGE_TASKS, TASKS, beginnings, edge, quote, quote_paragraph


def _place(rng, hay, planted):
    """hay with the planted (depth, sentence) pairs among it, in the order of their depths."""
    spots = [(depth if depth is not None else rng.random(), order, sentence)
             for order, (depth, sentence) in enumerate(planted)]
    spots.sort()
    result, taken = [], 0
    for depth, _, sentence in spots:
        upto = round(depth * len(hay))
        result += hay[taken:upto]
        taken = max(taken, upto)
        result.append(sentence)
    return result + hay[taken:]


def paragraphs(rng, sentences):
    """Sentences joined into paragraphs of a length typical of this document."""
    longest = rng.choice((3, 6, 6, 10, 30))
    result, at = [], 0
    while at < len(sentences):
        count = rng.randrange(1, longest + 1)
        result.append(" ".join(sentences[at:at + count]))
        at += count
    return result


def _hay(rng, split, characters):
    source = prose.haystack(rng, split)
    sentences, length = [], 0
    while length < characters:
        sentences.append(next(source))
        length += len(sentences[-1]) + 1
    return sentences


def _plant(rng, split, world, task, depth):
    while True:
        planted = TASKS[task](rng, split, world, depth)
        if planted.turns:
            return planted


def make_dialogue(task, rng, split, characters, depth=None, turns=1):
    """A document of about `characters` characters with `turns` questions of one task about it.

    depth: where in the document the answer to the first question lies, 0 the start and 1 the end; None: anywhere.
    A few facts that nobody asks for lie beside it. Deterministic in the state of `rng`.
    """
    world = World(rng, split)
    sentences, asked = [], []
    if task not in EDGE_TASKS:
        for i in range(turns):
            planted = _plant(rng, split, world, task, depth if i == 0 else None)
            sentences += planted.sentences
            asked += planted.turns
    for _ in range(rng.randrange(2, 6)):
        sentences += _plant(rng, split, world, "single", None).sentences
    hay = _hay(rng, split, max(200, characters - sum(len(s) for _, s in sentences)))
    placed = _place(rng, hay, sentences)
    if task in EDGE_TASKS:
        asked = [edge(rng, task, placed)]
    elif task == "copy" and rng.random() < 0.5:
        asked[0] = quote(rng, placed, beginnings(placed), depth) or asked[0]
    return Dialogue(task, "\n\n".join(paragraphs(rng, placed)), asked)


#: How often each task is asked about a training document.
_WEIGHTS = {"single": 8, "multi_key": 5, "relation": 7, "multi_value": 2, "multi_query": 4, "variable_tracking": 7,
            "frequent_word": 1, "copy": 3, "absent": 2}


def _length(turns):
    return sum(len(turn.question) + len(turn.answer) + 30 for turn in turns)


def training_dialogue(rng, characters):
    """A document with facts of all tasks, crowded or far between, and the questions in random order."""
    world = World(rng, "train")
    sentences, asked = [], []
    many = max(3, min(600, round(characters / rng.choice((150, 250, 400, 400, 2500, 8000)))))
    names = list(_WEIGHTS)
    # Some documents are about one task alone: that is what evaluation and users have.
    only = rng.choice(names) if rng.random() < 0.25 else None
    # What is to be repeated grows with the document, or nothing would teach it over long distances.
    quotes = max(rng.choice((0, 1, 2)), min(120, round(characters / rng.choice((1500, 3000, 6000, 12000)))))
    budget = characters * 0.8 - quotes * 150
    for task in rng.choices(names, _WEIGHTS.values(), k=many):
        planted = TASKS[only or task](rng, "train", world, None)
        cost = sum(len(s) for _, s in planted.sentences) + _length(planted.turns)
        if cost > budget:
            continue
        budget -= cost
        sentences += planted.sentences
        asked += planted.turns
    length = sum(len(s) for _, s in sentences) + _length(asked) + quotes * 200
    placed = _place(rng, _hay(rng, "train", max(100, characters - length)), sentences)
    parts = paragraphs(rng, placed)
    asked += [edge(rng, task, placed) for task in EDGE_TASKS if rng.random() < (0.4 if characters < 10_000 else 0.8)]
    begun = beginnings(placed)
    for _ in range(quotes):
        turn = quote_paragraph(rng, parts) if rng.random() < 0.15 else quote(rng, placed, begun)
        if turn:
            asked.append(turn)
    rng.shuffle(asked)
    return Dialogue("mixed", "\n\n".join(parts), asked)


def seeded(*key):
    """A generator of its own for a key such as (seed, step, index): no sample depends on another."""
    return random.Random("/".join(str(part) for part in key))
