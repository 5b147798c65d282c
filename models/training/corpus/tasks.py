"""The tasks: each plants sentences in a document and asks about them."""

import string
from dataclasses import dataclass, field

from . import facts, words
from .dialogue import Turn

ABSENT = "The text does not say."


@dataclass
class Planted:
    """Sentences to hide, each with its depth in [0, 1] or None for anywhere, and the questions about them."""
    sentences: list = field(default_factory=list)
    turns: list = field(default_factory=list)


def _listing(items):
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def single(rng, split, world, depth):
    fact = world.fact(owned=False)
    return Planted([(depth, facts.state(rng, split, fact))],
                   [Turn(facts.ask(rng, split, fact.entity, fact.attribute), fact.answer, [fact.value])])


def multi_key(rng, split, world, depth):
    """One fact among near misses: the same attribute of others, other attributes of the same."""
    fact = world.fact()
    planted = Planted([(depth, facts.state(rng, split, fact))],
                      [Turn(facts.ask(rng, split, fact.entity, fact.attribute), fact.answer, [fact.value])])
    for _ in range(rng.randrange(2, 6)):
        planted.sentences.append((None, facts.state(rng, split, world.fact(attribute=fact.attribute))))
    siblings = facts.siblings(rng, split, fact.attribute)
    for attribute in rng.sample(siblings, min(len(siblings), rng.randrange(1, 3))):
        near = world.fact_of(attribute, fact.entity)
        if near:
            planted.sentences.append((None, facts.state(rng, split, near)))
    return planted


def multi_value(rng, split, world, depth):
    """One key, several values: all of them are asked for, in the order of the text."""
    fact = world.fact()
    several = [fact]
    while len(several) < rng.choice((2, 3, 3, 4)):
        other = world.another_value(fact)
        if other.value not in [f.value for f in several]:
            several.append(other)
    places = sorted(rng.random() for _ in several)
    if depth is not None:
        places[rng.randrange(len(places))] = depth
        places.sort()
    sentences = [(place, f"One {f.attribute.name} of {f.entity} is {f.value}.") for place, f in zip(places, several)]
    ask = rng.choice(("What are all the {s} of {e}?", "List every {a} of {e}.", "Which {s} does {e} have?"))
    question = ask.format(a=fact.attribute.name, s=fact.attribute.plural, e=fact.entity)
    values = [f.value for f in several]
    return Planted(sentences, [Turn(question, f"The {fact.attribute.plural} of {fact.entity} are {_listing(values)}.", values)])


def multi_query(rng, split, world, depth):
    """Several keys in one question."""
    first = world.fact()
    asked = [first] + [world.fact(attribute=first.attribute) for _ in range(rng.randrange(1, 4))]
    where = [depth] + [None] * (len(asked) - 1)
    rng.shuffle(asked)
    ask = rng.choice(("What are the {s} of {es}?", "Give me the {s} of {es}.", "Find the {a} of each of {es}."))
    question = ask.format(a=first.attribute.name, s=first.attribute.plural, es=_listing([f.entity for f in asked]))
    return Planted([(d, facts.state(rng, split, f)) for d, f in zip(where, asked)],
                   [Turn(question, " ".join(f.answer for f in asked), [f.value for f in asked])])


def _variable(rng):
    form = rng.randrange(4)
    if form == 0:
        return rng.choice(words.NOUNS)
    if form == 1:
        return rng.choice(string.ascii_uppercase) + str(rng.randrange(0, 100))
    return "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.choice((1, 2, 3, 3, 3, 4, 5, 5))))


_ASSIGNMENTS = ["VAR {to} = {source}.", "VAR {to} = {source}.", "Then {source} is assigned to VAR {to}.",
                "{source} is copied to VAR {to}.", "VAR {to} takes the value {source}.", "{source} -> VAR {to}."]


def variable_tracking(rng, split, world, depth):
    """A value handed from variable to variable; which of them hold it?"""
    count = rng.choice((2, 3, 3, 4))
    names = []
    while len(names) < 2 * count:
        name = words.draw(rng, split, _variable)
        if name not in names and (name, "variable") not in world.used:
            world.used.add((name, "variable"))
            names.append(name)
    # Some documents write assignments in one form, others in several.
    forms = _ASSIGNMENTS if rng.random() < 0.5 else [rng.choice(_ASSIGNMENTS)]
    sentences, chains = [], []
    for chain in (names[:count], names[count:]):
        value = words.draw(rng, split, lambda r: str(r.randrange(10 ** r.randrange(0, 4), 10 ** r.randrange(4, 7))))
        places = sorted(rng.random() for _ in chain)
        if depth is not None and not chains:
            places = [min(1.0, depth * (i + 1) / count) for i in range(count)]
        for i, (place, name) in enumerate(zip(places, chain)):
            sentences.append((place, rng.choice(forms).format(to=name, source=f"VAR {chain[i - 1]}" if i else value)))
        chains.append((value, chain))
    value, chain = chains[0]
    question = rng.choice(("Which variables hold the value {v}?", "Find all variables that are assigned the value {v}.",
                           "Which variables are equal to {v}?")).format(v=value)
    return Planted(sentences, [Turn(question, f"The variables that hold {value} are {_listing(chain)}.", list(chain), list(chains[1][1]))])


def frequent_word(rng, split, world, depth, entries=None):
    """A list of words in which one stands out by its number."""
    name = rng.choice(words.NOUNS)
    if not world.claim_name(name):
        return Planted()
    entries = entries or rng.randrange(6, 90)
    kinds = rng.sample(words.NOUNS + words.FOODS + words.ANIMALS, rng.randrange(3, 10))
    winner = kinds[0]
    share = rng.uniform(0.35, 0.6)
    listed = [winner if rng.random() < share else rng.choice(kinds[1:]) for _ in range(entries)]
    if any(listed.count(kind) * 1.5 > listed.count(winner) for kind in kinds[1:]):
        listed += [winner] * (entries // 3 + 2)
        rng.shuffle(listed)
    counts = {kind: listed.count(kind) for kind in kinds}
    if max(counts, key=counts.get) != winner:
        return Planted()
    question = rng.choice(("Which word is the most frequent in the {n} list?", "What is the most common word in the {n} list?",
                           "Which word occurs most often in the {n} list?")).format(n=name)
    return Planted([(depth, f"The {name} list: {' '.join(listed)}.")],
                   [Turn(question, f"The most frequent word in the {name} list is {winner}.", [f"is {winner}"])])


def absent(rng, split, world, depth):
    """What is asked for is not there, but something close to it is."""
    fact = world.fact()
    sentences = [(depth, facts.state(rng, split, fact))]
    siblings = facts.siblings(rng, split, fact.attribute)
    form = rng.random()
    if form < 0.2:
        question = facts.ask(rng, split, "", world.ownerless_attribute())
    elif form < 0.6:
        missing = rng.choice(siblings)
        if not world.claim(fact.entity, missing):
            return Planted()
        question = facts.ask(rng, split, fact.entity, missing)
    else:
        other = world.fact(attribute=fact.attribute)  # claimed, never stated
        question = facts.ask(rng, split, other.entity, fact.attribute)
    return Planted(sentences, [Turn(question, ABSENT, ["does not say"])])


def copy(rng, split, world, depth):
    """A sentence is to be repeated, given its beginning."""
    body = [rng.choice(words.NOUNS if rng.random() < 0.6 else words.ADJECTIVES) for _ in range(rng.randrange(7, 14))]
    start = " ".join(body[:3]).capitalize()
    if not world.claim_name(start):
        return Planted()
    sentence = " ".join(body).capitalize() + "."
    question = rng.choice(_QUOTE).format(s=start)
    return Planted([(depth, sentence)], [Turn(question, sentence, [sentence])])


TASKS = {
    "single": single,
    "multi_key": multi_key,
    "multi_value": multi_value,
    "multi_query": multi_query,
    "variable_tracking": variable_tracking,
    "frequent_word": frequent_word,
    "copy": copy,
    "absent": absent,
}
#: Asked about the document as a whole: they plant nothing.
EDGE_TASKS = ("first_sentence", "last_sentence")


_QUOTE = ('Repeat the sentence that begins with "{s}".', 'Copy the sentence that starts with "{s}".',
          'How does the sentence "{s}..." go on? Repeat it whole.')


def quote(rng, sentences, depth):
    """A sentence that happens to be in the document, given its beginning; None where no beginning is unmistakable."""
    at = rng.randrange(len(sentences)) if depth is None else round(depth * (len(sentences) - 1))
    # The next sentence will do where this one is said twice, or too short to be found by its beginning.
    for sentence in sentences[at:] + sentences[:at]:
        start = " ".join(sentence.split()[:4])
        if len(sentence) > len(start) + 10 and sum(other.startswith(start) for other in sentences) == 1:
            return Turn(rng.choice(_QUOTE).format(s=start), sentence, [sentence])
    return None


def edge(rng, task, sentences):
    which = "first" if task == "first_sentence" else "last"
    question = rng.choice((f"What is the {which} sentence of the text?", f"Repeat the {which} sentence of the document.",
                           f"How does the text {'begin' if which == 'first' else 'end'}? Quote the {which} sentence."))
    sentence = sentences[0 if which == "first" else -1]
    return Turn(question, sentence, [sentence])
