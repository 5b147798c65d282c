"""The tasks: each plants sentences in a document and asks about them."""

import collections
import string
from dataclasses import dataclass, field

from . import facts, prose, relations, words
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


def relation(rng, split, world, depth):
    """What a verb says of somebody or something, among near misses."""
    said = world.said()
    question, answer = facts.ask_said(rng, split, said)
    planted = Planted([(depth, facts.state_said(rng, split, said))], [Turn(question, answer, [said.value])])
    for near in _near(rng, split, world, said, rng.choice((0, 0, 1, 2))):
        planted.sentences.append((None, facts.state_said(rng, split, near)))
    return planted


def _near(rng, split, world, said, count):
    """The same verb of others, other verbs of the same subject. Evaluation's near misses are of verbs that training knows."""
    fitting = [r for r in relations.RELATIONS["train"] if r.subject == said.relation.subject and r is not said.relation]
    result = []
    for _ in range(count):
        if fitting and rng.random() < 0.5:
            near = world.said(rng.choice(fitting), said.subject)
        else:
            near = world.said(said.relation)
        if near:
            result.append(near)
    return result


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
    ask = rng.choice(("What are all the {s} of {e}?", "List every {a} of {e}.", "Which {s} does {e} have?", "Name all {s} of {e}.",
                      "What are the {s} of {e}?", "Give me every {a} of {e}."))
    question = ask.format(a=fact.attribute.name, s=fact.attribute.plural, e=fact.entity)
    values = [f.value for f in several]
    return Planted(sentences, [Turn(question, f"The {fact.attribute.plural} of {fact.entity} are {_listing(values)}.", values)])


def multi_query(rng, split, world, depth):
    """Several keys in one question."""
    first = world.fact()
    asked = [first] + [world.fact(attribute=first.attribute) for _ in range(rng.randrange(1, 4))]
    where = [depth] + [None] * (len(asked) - 1)
    rng.shuffle(asked)
    ask = rng.choice(("What are the {s} of {es}?", "Give me the {s} of {es}.", "Find the {a} of each of {es}.", "What are the {s} of {es}?",
                      "Which {s} do {es} have?", "I need the {s} of {es}.", "Tell me the {s} of {es}.", "The {s} of {es}?"))
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
    form = rng.random()
    if form < 0.3:
        return _absent_relation(rng, split, world, depth)
    fact = world.fact()
    sentences = [(depth, facts.state(rng, split, fact))]
    if form < 0.45:
        question = facts.ask(rng, split, "", world.ownerless_attribute())
    elif form < 0.7:
        missing = rng.choice(facts.siblings(rng, split, fact.attribute))
        if not world.claim(fact.entity, missing.name):
            return Planted()
        question = facts.ask(rng, split, fact.entity, missing)
    else:
        other = world.fact(attribute=fact.attribute)  # claimed, never stated
        question = facts.ask(rng, split, other.entity, fact.attribute)
    return Planted(sentences, [Turn(question, ABSENT, ["does not say"])])


def _absent_relation(rng, split, world, depth):
    said = world.said(rng.choice(relations.RELATIONS["train"]))
    near = said and _near(rng, split, world, said, 1)  # claimed, never stated
    if not near:
        return Planted()
    return Planted([(depth, facts.state_said(rng, split, said))], [Turn(facts.ask_said(rng, split, near[0])[0], ABSENT, ["does not say"])])


def copy(rng, split, world, depth):
    """A sentence is to be repeated, given its beginning."""
    sentence = _odd_sentence(rng, split)
    start = beginning(sentence)
    if not world.claim_name(start):
        return Planted()
    return Planted([(depth, sentence)], [Turn(rng.choice(_QUOTE).format(s=start.rstrip(",;:")), sentence, [sentence])])


def _odd_sentence(rng, split):
    """A sentence that cannot be guessed: what is to be repeated must be read, and not what usually comes next.

    Training has sentences of the book, halves of them put together, and words in any order, evaluation nouns alone."""
    form = rng.random()
    book = prose.book_sentences("train")
    if split == "train" and book and form < 0.3:
        whole = rng.choice(book)
        if whole.count(" ") > 6:
            return whole
    elif split == "train" and book and form < 0.5:
        halves = [rng.choice(book).split() for _ in range(2)]
        # Not from the first word on: the sentence itself may be in the document, and begin alike.
        at = rng.randrange(1, 6)
        body = halves[0][at:at + rng.randrange(3, 12)] + halves[1][-rng.randrange(3, 12):]
        if len(body) > 6:
            return facts.capitalize(" ".join(body))
    if split == "train" and form < 0.75:
        body = [rng.choice(facts.FREE_WORDS) if rng.random() < 0.5 else words.made_up(rng) if rng.random() < 0.2 else rng.choice(words.NOUNS)
                for _ in range(rng.randrange(6, 25))]
        body = [word + "," if rng.random() < 0.1 and at > 2 else word for at, word in enumerate(body[:-1])] + body[-1:]
        return " ".join(body).capitalize() + rng.choice(".....!?")
    body = [rng.choice(words.NOUNS if rng.random() < 0.6 else words.ADJECTIVES) for _ in range(rng.randrange(7, 14))]
    return " ".join(body).capitalize() + "."


TASKS = {
    "single": single,
    "multi_key": multi_key,
    "relation": relation,
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


def beginning(sentence, count=4):
    return " ".join(sentence.split(None, count)[:count])


def beginnings(sentences):
    """How many of the sentences begin with each beginning."""
    return collections.Counter(map(beginning, sentences))


def quote(rng, sentences, begun, depth=None):
    """A sentence that happens to be in the document, given its beginning; None where no beginning is unmistakable.
    begun: the sentences' `beginnings`."""
    if depth is None:  # of three, the longest: those of a book are, and the hardest to repeat
        at = max((rng.randrange(len(sentences)) for _ in range(3)), key=lambda i: len(sentences[i]))
    else:
        at = round(depth * (len(sentences) - 1))
    # The next sentence will do where this one is said twice, or too short to be found by its beginning.
    for i in range(len(sentences)):
        sentence = sentences[(at + i) % len(sentences)]
        start = beginning(sentence)
        if len(sentence) > len(start) + 10 and begun[start] == 1:
            return Turn(rng.choice(_QUOTE).format(s=start.rstrip(",;:")), sentence, [sentence])
    return None


def quote_paragraph(rng, paragraphs):
    """The same for a paragraph of several sentences. It is repeated as one line."""
    at = rng.randrange(len(paragraphs))
    for paragraph in paragraphs[at:] + paragraphs[:at]:
        start = beginning(paragraph, 5)
        if 120 < len(paragraph) < 900 and sum(other.startswith(start) for other in paragraphs) == 1:
            return Turn(rng.choice(_QUOTE_PARAGRAPH).format(s=start.rstrip(",;:")), paragraph, [paragraph])
    return None


_QUOTE_PARAGRAPH = ('Repeat the paragraph that begins with "{s}".', 'Copy the whole paragraph that starts with "{s}".',
                    'Quote the paragraph "{s}..." to its end.')


def edge(rng, task, sentences):
    which = "first" if task == "first_sentence" else "last"
    question = rng.choice((f"What is the {which} sentence of the text?", f"Repeat the {which} sentence of the document.",
                           f"How does the text {'begin' if which == 'first' else 'end'}? Quote the {which} sentence."))
    sentence = sentences[0 if which == "first" else -1]
    return Turn(question, sentence, [sentence])
