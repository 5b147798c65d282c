"""Facts: an attribute of somebody or something, its value, and the many ways to state it and to ask for it."""

from dataclasses import dataclass

from . import words


@dataclass(frozen=True)
class Attribute:
    name: str    # "access code"
    kind: str    # which entities have it: person, place, thing, ship, firm or key
    make: object  # draws a value


ATTRIBUTES = [
    *[Attribute(name, "person", make) for name, make in (
        ("phone number", words.number), ("locker number", words.number), ("badge code", words.code),
        ("favourite colour", words.colour), ("home town", words.town),
        ("profession", words.profession), ("birthday", words.date), ("password", words.two_words),
        ("pet", words.animal), ("best friend", words.person),
        ("favourite food", words.food), ("room number", words.number),
        ("employee number", words.number), ("code name", words.two_words), ("doctor", words.person),
        ("lucky number", words.number), ("salary", words.amount), ("teacher", words.person))],
    *[Attribute(name, "place", make) for name, make in (
        ("access code", words.code), ("secret number", words.number), ("opening year", words.year),
        ("keeper", words.person), ("owner", words.person), ("password", words.two_words), ("architect", words.person),
        ("number of visitors", words.number), ("closing time", words.clock_time), ("door code", words.number),
        ("rent", words.amount), ("symbol", words.animal), ("postal code", words.number),
        ("security code", words.code), ("colour", words.colour), ("serial number", words.code),
        ("director", words.person), ("telephone number", words.number))],
    *[Attribute(name, "thing", make) for name, make in (
        ("price", words.amount), ("serial number", words.code), ("owner", words.person), ("weight", words.number),
        ("maker", words.person), ("hiding place", words.hiding_place),
        ("catalogue number", words.number), ("colour", words.colour), ("origin", words.town),
        ("secret code", words.code), ("value", words.amount), ("age", words.year), ("password", words.hyphenated))],
    *[Attribute(name, "ship", make) for name, make in (
        ("captain", words.person), ("cargo", words.food), ("home port", words.town),
        ("registration code", words.code), ("departure time", words.clock_time), ("call sign", words.code),
        ("destination", words.town), ("launch date", words.date), ("crew number", words.number),
        ("pilot", words.person))],
    *[Attribute(name, "firm", make) for name, make in (
        ("founder", words.person), ("budget", words.amount), ("code name", words.two_words), ("leader", words.person),
        ("account number", words.number), ("headquarters", words.town), ("password", words.hexadecimal),
        ("founding year", words.year), ("deadline", words.date), ("tax number", words.number),
        ("mascot", words.animal))],
    *[Attribute(name, "key", make) for name, make in (
        ("special magic number", words.number), ("special magic word", words.hyphenated),
        ("special magic code", words.hexadecimal), ("magic number", words.number), ("secret word", words.two_words),
        ("secret code", words.code), ("key", words.hexadecimal))],
]

_SHIP_KINDS = ("ship", "barge", "schooner", "steamer", "ferry", "cutter")
_FIRM_KINDS = ("company", "project", "expedition", "guild", "bureau", "society")


def entity(rng, split, kind):
    """A name of the kind as it stands in the middle of a sentence; things and places may be a bare noun."""
    def make(r):
        if kind == "person":
            return words.person(r)
        if kind == "place":
            form = r.randrange(4)
            place = r.choice(words.PLACES)
            if form == 0:
                return f"the {place}"
            if form == 1:
                return f"the {place} of {words.town(r)}"
            if form == 2:
                return f"the {words.town(r)} {place}"
            return f"the {r.choice(words.ADJECTIVES)} {place}"
        if kind == "thing":
            return f"the {words.two_words(r)}" if r.random() < 0.8 else f"the {r.choice(words.NOUNS)}"
        if kind == "ship":
            return f"the {r.choice(_SHIP_KINDS)} {words.town(r) if r.random() < 0.4 else words.two_words(r).title()}"
        if kind == "firm":
            return f"the {r.choice(_FIRM_KINDS)} {words.town(r) if r.random() < 0.4 else words.two_words(r).title()}"
        return words.hyphenated(r)
    return words.draw(rng, split, make)


@dataclass(frozen=True)
class Fact:
    entity: str
    attribute: Attribute
    value: str

    @property
    def answer(self):
        """How the model is taught to say it, whatever the document's wording."""
        return f"The {self.attribute.name} of {self.entity} is {self.value}."


_STATEMENTS = {
    "train": [
        "The {a} of {e} is {v}.",
        "The {a} of {e} is {v}.",
        "The {a} of {e} was {v}.",
        "{es} {a} is {v}.",
        "{es} {a} is {v}.",
        "As for {e}, the {a} is {v}.",
        "It was noted that the {a} of {e} is {v}.",
        "{v} is the {a} of {e}.",
        "Remember this: the {a} of {e} is {v}.",
        "Whoever asks about {e} should know that the {a} is {v}.",
        "In the ledger, the {a} of {e} is given as {v}.",
        "Somebody had written on the wall that {es} {a} is {v}.",
        "The {a} for {e} is {v}.",
        "The {a} for {e} is: {v}.",
        "One of the {a}s for {e} is: {v}.",
        "According to the register, {e} has the {a} {v}.",
        "{e} has {v} as the {a}.",
        "With regard to {e}: {a} {v}.",
        "Nobody but the clerk knew that {v} was the {a} of {e}.",
        "They agreed to set the {a} of {e} to {v}.",
        "{e} ({a}: {v}) was mentioned twice.",
        "Note: {e}, {a}, {v}.",
        "The {a} that belongs to {e} is {v}.",
        "When asked for the {a} of {e}, the answer was {v}.",
    ],
    "eval": [
        "By all accounts the {a} of {e} is {v}.",
        "If you must know, {es} {a} is {v}.",
        "A note in the margin gives {v} as the {a} of {e}.",
        "For {e}, the {a} is {v}.",
        "It is widely believed that the {a} of {e} is {v}.",
    ],
}
_QUESTIONS = {
    "train": [
        "What is the {a} of {e}?",
        "What is the {a} of {e}?",
        "What is {es} {a}?",
        "Tell me the {a} of {e}.",
        "What is the {a} for {e}?",
        "Can you find the {a} of {e}?",
        "According to the text, what is the {a} of {e}?",
        "I need the {a} of {e}.",
        "Which {a} does {e} have?",
        "What does the document say about the {a} of {e}?",
        "Look up {es} {a}.",
        "{e}: what is the {a}?",
        "Give me {es} {a}, please.",
        "What was the {a} of {e}?",
        "Do you know the {a} of {e}?",
    ],
    "eval": [
        "Please tell me what the {a} of {e} is.",
        "Based on the document above, what is {es} {a}?",
        "Could you look up the {a} of {e} for me?",
        "What {a} is given for {e}?",
    ],
}


def capitalize(text):
    return text[:1].upper() + text[1:]


def _fill(template, entity_name, attribute, value=""):
    possessive = entity_name + ("'" if entity_name.endswith("s") else "'s")
    return capitalize(template.format(e=entity_name, es=possessive, a=attribute.name, v=value))


def state(rng, split, fact):
    """The fact as one sentence of a document. Evaluation mixes known wordings with held-out ones."""
    pool = _STATEMENTS[split] if split == "train" or rng.random() < 0.5 else _STATEMENTS["train"]
    return _fill(rng.choice(pool), fact.entity, fact.attribute, fact.value)


def ask(rng, split, entity_name, attribute):
    pool = _QUESTIONS[split] if split == "train" or rng.random() < 0.5 else _QUESTIONS["train"]
    return _fill(rng.choice(pool), entity_name, attribute)


class World:
    """The facts of one document: no two of them give one attribute of one entity."""

    def __init__(self, rng, split):
        self.rng = rng
        self.split = split
        self.used = set()

    def claim(self, entity_name, attribute):
        pair = (entity_name.lower(), attribute.name)
        if pair in self.used:
            return False
        self.used.add(pair)
        return True

    def fact(self, attribute=None, entity_name=None):
        """A new fact, of the given attribute or entity where they are given (they must fit)."""
        while True:
            chosen = attribute or self.rng.choice(ATTRIBUTES)
            name = entity_name or entity(self.rng, self.split, chosen.kind)
            if self.claim(name, chosen):
                return Fact(name, chosen, self._value(chosen))

    def another_value(self, fact):
        return Fact(fact.entity, fact.attribute, self._value(fact.attribute))

    def _value(self, attribute):
        if attribute.make in words.CLOSED:
            return attribute.make(self.rng)
        return words.draw(self.rng, self.split, attribute.make)
