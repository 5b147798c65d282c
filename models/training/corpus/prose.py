"""Haystacks: text in which facts hide. Generated prose, repeated noise sentences, and a book where one is given."""

import functools
import os
import re

from . import values, words

#: A plain-text book in the public domain; without it, haystacks are generated text alone.
BOOK_VARIABLE = "MOBIUS_TRAINING_BOOK"

_TIMES = """In the first week of spring|Long before noon|On the evening of the fair|After the flood had gone|Every other
winter|At the turn of the tide|Without a word to anyone|Some years later|Towards midnight|On the third day|When the snow
had melted|Before the bells rang|During the long drought|Late in the autumn|That same morning|Once the guests had
left|For the rest of the season|Not far from the border|At the end of the street|Between two storms|As usual|To
everyone's surprise|According to an old custom|In those days|Shortly after supper|By the light of a single
lamp""".replace("\n", " ").split("|")
_PEOPLE = """the ferryman|a retired clockmaker|the harbour pilot|an old gardener|the librarian|a travelling surveyor|the
baker's daughter|a quiet engineer|the lighthouse keeper|two young sailors|the mayor|a tired messenger|the schoolmaster|an
honest merchant|the widow next door|a group of pilgrims|the night watchman|the stationmaster|a famous painter|the
cook|three brothers|the judge's clerk|a stranger from the south|the innkeeper|several musicians|the doctor's
wife""".replace("\n", " ").split("|")
_DEEDS = """mended a broken lantern|counted the barges twice|copied a map by hand|waited for the rain to stop|wrote a
letter that was never sent|argued about the price of rope|planted a row of pear trees|closed the shutters early|listened
to the bells across the water|carried sacks of flour up the hill|looked for a lost key|sold the last of the
apples|walked along the wall|spoke about the weather|slept through the whole concert|painted the fence again|read the
newspaper aloud|asked for a second cup of tea|left the gate open|forgot an umbrella|measured the depth of the
well|watched the swallows|promised to return|told the same story as before|lost a game of chess|repaired the old
pump|borrowed a ladder""".replace("\n", " ").split("|")
_WHERE = """the northern quay|a walled orchard|the old observatory|the reading room|a narrow lane|the covered market|the
mill by the weir|an empty theatre|the customs house|a wooden bridge|the edge of the forest|the back of the church|a
crowded inn|the town hall|the river bank|the upper floor|a stony beach|the railway station|the village green|the
courtyard|the far side of the lake|a small chapel""".replace("\n", " ").split("|")
_REMARKS = """Nobody thought more about it.|It was the kind of day that leaves no trace.|The air smelled of tar and
apples.|People spoke of it for a while, then of other things.|A grey cat watched from the wall.|The ledger says nothing
else about that month.|It is hard to say why.|The road was long and the cart was slow.|Even the oldest could not remember
such a summer.|There was no answer.|The lamps were lit one after another.|Somewhere a door closed.|The water rose by a
hand's breadth.|That was all.|The rest is well known.|Most of the shops were already shut.|The wind turned in the
night.|No one had expected anything else.""".replace("\n", " ").split("|")
_NOISE = [
    ["The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again."],
    ["The train leaves on time.", "The tea is warm.", "The street is quiet.", "Nothing happens here."],
    ["One step follows another.", "The clock ticks on.", "Rain falls on the roof.", "All is as it was."],
    ["The page is blank.", "The pen is dry.", "The hour is late.", "We carry on as before."],
]


def _scene(rng, split):
    form = rng.randrange(7)
    person, deed, place, time = (rng.choice(_PEOPLE), rng.choice(_DEEDS), rng.choice(_WHERE), rng.choice(_TIMES))
    if form == 0:
        return f"{time} {person} {deed} near {place}."
    if form == 1:
        return f"{time}, {person} {deed}."
    if form == 2:
        return f"{person[0].upper()}{person[1:]} {deed}, and {rng.choice(_PEOPLE)} {rng.choice(_DEEDS)}."
    if form == 3:
        return f"Near {place}, {person} {deed}."
    if form == 4:
        name = words.draw(rng, split, words.person)
        return f"{name} {deed} and then {rng.choice(_DEEDS)}."
    if form == 5:
        return f"The {rng.choice(words.ADJECTIVES)} {rng.choice(words.NOUNS)} of {person} stood by {place}."
    return (f"There were {rng.randrange(2, 90)} {rng.choice(words.ADJECTIVES)} {rng.choice(words.NOUNS)}s in "
            f"{words.draw(rng, split, words.town)}, and {person} {deed}.")


def _lookalike(rng, split):
    """Prose that resembles a fact without answering any question."""
    form = rng.randrange(4)
    if form == 0:
        return f"{words.draw(rng, split, words.person)} was once seen near {words.draw(rng, split, words.town)} with a cart of {rng.choice(words.FOODS)}."
    if form == 1:
        return f"The {words.draw(rng, split, values.two_words)} was talked about at the {rng.choice(words.PLACES)} of {words.draw(rng, split, words.town)} in {values.year(rng)}."
    if form == 2:
        return f"About {words.draw(rng, split, values.number)} people heard of {words.draw(rng, split, words.person)} that year."
    return f"The parcel marked {words.draw(rng, split, values.code)} went to {words.draw(rng, split, words.town)} for {values.amount(rng)}."


@functools.lru_cache(maxsize=4)
def _book_sentences(path, split):
    with open(path, encoding="utf-8-sig") as file:
        text = file.read().replace("\r\n", "\n")
    # The novel alone: no header, no table of contents, no licence.
    begin, end = re.search(r"CHAPTER I\s+[\"“]Well", text), text.find("End of the Project Gutenberg")
    if begin is None or end < 0:
        raise ValueError(f"{path}: not Project Gutenberg's text 2600 (no first chapter, or no end)")
    text = text[begin.end() - len("“Well"):end]
    # The last tenth is read in evaluation only.
    cut = len(text) * 9 // 10
    text = text[:cut] if split == "train" else text[cut:]
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    sentences = [sentence for paragraph in paragraphs
                 for sentence in re.split(r"(?<=[.!?][\"'”’]) |(?<=[a-z][.!?]) ", paragraph)]
    return [s for s in sentences if 20 <= len(s) <= 600]


def book_sentences(split):
    path = os.environ.get(BOOK_VARIABLE, "")
    return _book_sentences(path, split) if path else []


def haystack(rng, split):
    """Yields sentences without end, of one style or of a mixture."""
    book = book_sentences(split)
    style = rng.choices(("prose", "book", "noise", "mixed"), (4, 2 if book else 0, 1, 3))[0]
    noise = rng.choice(_NOISE)
    at = rng.randrange(len(book)) if book else 0
    while True:
        kind = style if style != "mixed" else rng.choice(("prose", "book" if book else "prose", "noise"))
        if kind == "noise":
            yield from noise
        elif kind == "book":
            yield book[at % len(book)]
            at += 1
        elif rng.random() < 0.12:
            yield rng.choice(_REMARKS)
        elif rng.random() < 0.1:
            yield _lookalike(rng, split)
        else:
            yield _scene(rng, split)
