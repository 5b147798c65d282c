"""Facts: an attribute of somebody or something, its value, and the many ways to state it and to ask for it."""

from dataclasses import dataclass

from . import words


@dataclass(frozen=True)
class Attribute:
    name: str    # "access code"
    kind: str    # which entities have it: person, place, thing, ship, firm or key
    make: object  # draws a value

    @property
    def plural(self):
        head, of, rest = self.name.partition(" of ")
        return head + ("" if head.endswith("s") else "s") + of + rest


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

_MADE_UP = (("number", words.number), ("code", words.code), ("name", words.person), ("word", words.two_words),
            ("date", words.date), ("price", words.amount), ("key", words.hexadecimal), ("town", words.town),
            ("count", words.number), ("sign", words.hyphenated))
# What people ask about in everyday life.
_EVERYDAY = """access address age agent amount answer area arrival balance band battery bill bonus booking bottle box brand
budget call capacity capital card chapter chef city class client coach colour contact contract cost country course currency
customer date dealer deadline delivery deposit depth device director discount distance doctor editor email engine entrance
event exit fee file floor form frequency fuel gate goal guest guide height host id invoice item kind label landlord language
lawyer leader level licence limit line link list load location lock login logo manager mark material meaning meeting member
menu message method model mood motto name nickname nurse office opening order origin output owner parking partner party pass
passcode password payment phone pin place plan plate player population port position power prefix pressure price prize
product profit project purpose rank rate ratio reason recipe record referee region result reward river road role room route
rule salary schedule score seat secret section sender serial series service shelf shift shop signal singer size slogan source
speaker speed sponsor spouse stage standard start state station status stop street subject supplier surname table target task
tax teacher team temperature term ticket time title token topic total track trainer train type unit user vendor venue version
visitor voltage wage website week weight width winner witness writer year zone""".split()
_THINGS = """printer server router office kitchen meeting lift laptop phone car van truck bus flight train hotel flat house garden
boiler alarm safe door gate website database backup network project report contract invoice order parcel party wedding concert
match course class exam school clinic lab factory machine pump turbine reactor camera drone robot telescope engine bicycle
piano film novel song recipe menu restaurant bakery shop museum bridge tunnel tower airport platform ferry river lake island
village region planet comet mission probe experiment sample patient nurse team club league band choir company department
branch account policy budget loan grant prize award ticket pass badge licence dog cat horse parrot tree field well""".split()
_OWNERS = """my sister my brother my neighbour our landlord the new colleague my uncle the client the tenant our guest my boss the
driver the intern my daughter my son the caretaker""".replace(" my", "|my").replace(" our", "|our").replace(" the", "|the").split("|")
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
    if kind == "open":
        return words.draw(rng, split, _open_entity)
    return words.draw(rng, split, make)


def _open_entity(rng):
    """Somebody or something from everyday life, or that was never heard of."""
    form = rng.randrange(9)
    thing = rng.choice(_THINGS)
    if form == 0:
        return f"the {thing}"
    if form == 1:
        return f"the {rng.choice(words.ADJECTIVES + _EVERYDAY)} {thing}"
    if form == 2:
        return f"the {words.name(rng)} {thing}"
    if form == 3:
        return f"{thing} {rng.choice((str(rng.randrange(1, 1000)), words.acronym(rng), rng.choice('ABCDEFGH')))}"
    if form == 4:
        return words.name(rng)
    if form == 5:
        return words.acronym(rng)
    if form == 6:
        return f"{rng.choice(_OWNERS)} {rng.choice((words.name(rng).split()[0], rng.choice(words.FIRST_NAMES)))}"
    if form == 7:
        return f"{rng.choice(words.FIRST_NAMES)} {words.made_up(rng).capitalize()}"
    return f"{'the ' if rng.random() < 0.7 else ''}{words.made_up(rng)}"


def _open_attribute(rng):
    form = rng.randrange(8)
    if form < 3:
        return rng.choice(_EVERYDAY)
    if form < 6:
        return f"{rng.choice(_EVERYDAY + words.NOUNS)} {rng.choice(_EVERYDAY)}"
    if form == 6:
        return f"{rng.choice((words.made_up(rng), words.acronym(rng), rng.choice(words.ADJECTIVES)))} {rng.choice(_EVERYDAY)}"
    return f"{rng.choice(_EVERYDAY)} of {rng.choice(_EVERYDAY)}"


@dataclass(frozen=True)
class Fact:
    entity: str
    attribute: Attribute
    value: str

    @property
    def answer(self):
        """How the model is taught to say it, whatever the document's wording."""
        of = f" of {self.entity}" if self.entity else ""
        return f"The {self.attribute.name}{of} is {self.value}."


# A statement is an opener, a core and a closer, a question an opener and a core: some thousand forms of each, so
# that what is learned is the search and not the template. "eval" holds parts that training never sees.
_OPENERS = {
    "train": ["", "", "", "", "", "It was noted that ", "Remember that ", "Everybody knows that ", "The report states that ",
              "Somebody had written that ", "I once heard that ", "It is recorded that ", "Be aware that ",
              "According to the register, ", "The ledger says that ", "At the meeting it was decided that ",
              "The old man swore that ", "Note: ", "Remember this: ", "One thing is certain: ", "For the record, ",
              "By the way, ", "A letter mentions that ", "Nobody but the clerk knew that ", "It turned out that "],
    "eval": ["By all accounts ", "If you must know, ", "It is widely believed that ", "The inspector confirmed that "],
}
_CORES = {
    "train": ["the {a} of {e} is {v}", "the {a} of {e} is {v}", "the {a} of {e} is {v}", "the {a} of {e} was {v}",
              "{es} {a} is {v}", "{es} {a} is {v}", "{es} {a} was {v}", "{v} is the {a} of {e}", "{v} is the {a} of {e}",
              "{v} is {es} {a}", "the {a} for {e} is {v}", "the {a} for {e} is: {v}", "{e} has the {a} {v}",
              "{e} has {v} as the {a}", "as for {e}, the {a} is {v}", "the {a} that belongs to {e} is {v}",
              "{v} was chosen as the {a} of {e}", "they set the {a} of {e} to {v}", "the {a} of {e} has always been {v}",
              "the {a} of {e} turned out to be {v}", "when it comes to {e}, {v} is the {a}", "{e} goes with the {a} {v}",
              "the clerk entered {v} as the {a} of {e}", "the letter names {v} as {es} {a}", "a sign says {v} is {es} {a}",
              "the record shows {v} under {a} for {e}", "the {a} of {e}, {v}, was read aloud",
              "{e}, whose {a} is {v}, was mentioned again", "you will find that {es} {a} equals {v}",
              "the {a} of {e} must be {v}", "concerning {e}: the {a} is {v}", "{e} ({a}: {v}) was mentioned twice",
              "{e} - {a}: {v}", "{e}: {a} = {v}", "the answer {v} was given for the {a} of {e}",
              "one {a} for {e} is: {v}", "with regard to {e}: {a} {v}", "{v} serves {e} as {a}",
              "whoever asks for the {a} of {e} is told {v}", "somebody wrote {v} beside the {a} of {e}"],
    "eval": ["a note in the margin gives {v} as the {a} of {e}", "several sources agree about the {a} of {e}, {v}",
             "the {a} listed for {e} is {v}", "{e} was assigned the {a} {v}"],
}
_CLOSERS = {
    "train": ["", "", "", "", "", "", "", "", ", as far as anyone knows", ", and nothing else", " according to the notes",
              ", said the porter", " since last year", ", which surprised nobody", " (see the appendix)", ", or so they say",
              " from now on"],
    "eval": [", as the papers show", " to this day"],
}
_ASKING = {
    "train": ["", "", "", "", "", "", "According to the text, ", "Quick question: ", "From the document above, ", "Now, ",
              "In this text, ", "I wonder: "],
    "eval": ["Based on the document above, "],
}
_QUESTIONS = {
    "train": ["what is the {a} of {e}?", "what is the {a} of {e}?", "what is the {a} of {e}?", "what is {es} {a}?",
              "what is {es} {a}?", "what is the {a} for {e}?", "which {a} does {e} have?", "what was the {a} of {e}?",
              "what does the text say about the {a} of {e}?", "which {a} belongs to {e}?", "tell me the {a} of {e}.",
              "find {es} {a}.", "I need the {a} of {e}.", "look up the {a} for {e}.", "give me {es} {a}, please.",
              "can you find the {a} of {e}?", "do you know {es} {a}?", "state the {a} of {e}.",
              "help me find the {a} of {e}.", "{e}: what is the {a}?", "{es} {a}?", "the {a} of {e}?",
              "what is said to be the {a} of {e}?"],
    "eval": ["please tell me what the {a} of {e} is.", "could you look up the {a} of {e} for me?",
             "what {a} is given for {e}?"],
}
_WHO = {"train": ["who is the {a} of {e}?", "who is {es} {a}?", "who was the {a} of {e}?"], "eval": ["who is named as the {a} of {e}?"]}


# Between the parts of a free wording: neither grammatical nor meant to be. Whoever finds the value here has learned that
# a statement is wherever attribute, entity and value meet, in any order, and does not rely on the wordings above.
_LINKS = """is was of for with as to by on at from the a his its their one this that it they he she has had gets got holds
keeps bears carries takes uses wants needs shows says reads means makes equals remains became stays given noted
written printed marked set filed kept known called named stated found chosen attached entered reported confirmed
mentioned under beside near behind along and but so now then here there still only always once again officially also
namely exactly simply apparently undoubtedly later page entry line list column record register file card label
paper book answer detail""".split()
_MARKS = ("", "", "", "", "", "", "", "", ",", ",", ":", " -", ";")
_HEADS = ("", "", "the ", "the ", "the ", "its ", "this ", "their ")
_WANTS = """what which who tell me find give show name state say look up search check read recall report answer help 
can would will you do does did is was are the a of for in from by to about text document above story page i we need
want like wonder know see learn hear there out now quickly exactly kindly have has get written mentioned stated
us my question wish""".split()


def _links(rng, fewest, most):
    return "".join(f" {rng.choice(_LINKS)}{rng.choice(_MARKS)}" for _ in range(rng.randrange(fewest, most + 1)))


# Facts that belong to nobody: "The gate code is 4417."
_OWNERLESS = {
    "train": ["the {a} is {v}", "the {a} is {v}", "the {a} is {v}", "the {a} was {v}", "our {a} is {v}", "{v} is the {a}", "the {a}: {v}",
              "the {a} = {v}", "the {a} will be {v}", "they changed the {a} to {v}", "this year the {a} is {v}", "{v} was chosen as the {a}",
              "use {v} as the {a}", "the {a} has been set to {v}", "the current {a} is {v}", "we agreed on {v} as the {a}"],
    "eval": ["today {v} counts as the {a}", "everybody was told that {v} is the {a}"],
}
_ASK_OWNERLESS = {
    "train": ["what is the {a}?", "what is the {a}?", "what is the {a}?", "what's the {a}?", "tell me the {a}.", "which {a} is it?",
              "do you know the {a}?", "the {a}?", "what was the {a}?", "I need the {a}.", "find the {a}.", "what is our {a}?",
              "can you give me the {a}?", "what does it say about the {a}?"],
    "eval": ["could somebody remind me of the {a}?", "please look up the {a} for me."],
}


def _free_statement(rng, fact):
    possessive = fact.entity + ("'" if fact.entity.endswith("s") else "'s")
    # Of two persons, grammar must tell whose doctor is whom.
    loose = fact.attribute.kind != "person" or fact.attribute.make is not words.person
    if rng.random() < 0.25:
        parts = [f"{possessive} {fact.attribute.name}", fact.value]
    elif rng.random() < 0.35 or not loose:
        parts = [f"{rng.choice(_HEADS)}{fact.attribute.name} {rng.choice(('of', 'for', 'at', 'with'))} {fact.entity}", fact.value]
    else:
        parts = [f"{rng.choice(_HEADS)}{fact.attribute.name}", fact.entity, fact.value]
    rng.shuffle(parts)
    text = _links(rng, 0, 4) if rng.random() < 0.7 else ""
    for i, part in enumerate(parts):
        text += (_links(rng, 1, 4) if i else "") + f" {part}" + (rng.choice(_MARKS) if rng.random() < 0.3 else "")
    return text.strip() + (_links(rng, 0, 4) if rng.random() < 0.5 else "")


def _free_question(rng, entity_name, attribute):
    possessive = entity_name + ("'" if entity_name.endswith("s") else "'s")
    wants = lambda fewest, most: "".join(f" {rng.choice(_WANTS)}" for _ in range(rng.randrange(fewest, most + 1)))
    form = rng.random()
    if form < 0.3:
        asked = f" {possessive} {attribute.name}"
    elif form < 0.85:
        asked = f" {rng.choice(_HEADS)}{attribute.name}{wants(0, 3)} {rng.choice(('of', 'for', 'of'))} {entity_name}"
    else:
        asked = f" {entity_name}{wants(1, 3)} {rng.choice(_HEADS)}{attribute.name}"
    return f"{wants(0, 5)}{asked}{wants(0, 4) if rng.random() < 0.5 else ''}{rng.choice('??.')}".strip()


def capitalize(text):
    return text[:1].upper() + text[1:]


def _part(rng, split, parts):
    """Evaluation mixes known wordings with held-out ones."""
    return rng.choice(parts["eval" if split == "eval" and rng.random() < 0.4 else "train"])


def _fill(template, entity_name, attribute, value=""):
    possessive = entity_name + ("'" if entity_name.endswith("s") else "'s")
    return template.format(e=entity_name, es=possessive, a=attribute.name, v=value)


def state(rng, split, fact):
    """The fact as one sentence of a document."""
    if not fact.entity:
        core = _fill(_part(rng, split, _OWNERLESS), "", fact.attribute, fact.value)
    elif split == "train" and rng.random() < 0.35:
        core = _free_statement(rng, fact)
    else:
        core = _fill(_part(rng, split, _CORES), fact.entity, fact.attribute, fact.value)
    return capitalize(f"{_part(rng, split, _OPENERS)}{core}{_part(rng, split, _CLOSERS)}.")


def ask(rng, split, entity_name, attribute):
    if not entity_name:
        return capitalize(_part(rng, split, _ASKING) + _fill(_part(rng, split, _ASK_OWNERLESS), "", attribute))
    if split == "train" and rng.random() < 0.25:
        return capitalize(_free_question(rng, entity_name, attribute))
    parts = _WHO if attribute.make is words.person and rng.random() < 0.4 else _QUESTIONS
    return capitalize(_part(rng, split, _ASKING) + _fill(_part(rng, split, parts), entity_name, attribute))


def siblings(rng, split, attribute):
    """Other attributes that an entity of the same kind may have."""
    if attribute.kind == "open":
        made = [Attribute(words.draw(rng, split, _open_attribute), "open", words.anything) for _ in range(3)]
        return [a for a in made if a.name != attribute.name] or siblings(rng, split, attribute)
    return [a for a in ATTRIBUTES if a.kind == attribute.kind and a.name != attribute.name]


class World:
    """The facts of one document: no two of them give one attribute of one entity."""

    def __init__(self, rng, split):
        self.rng = rng
        self.split = split
        self.used = set()
        self.attributes = set()

    def claim(self, entity_name, attribute):
        pair = (entity_name.lower(), attribute.name)
        # What belongs to nobody must be the only one of its kind.
        lonely = ("", attribute.name) in self.used or (not entity_name and attribute.name in self.attributes)
        if pair in self.used or lonely:
            return False
        self.used.add(pair)
        self.attributes.add(attribute.name)
        return True

    def claim_name(self, name):
        """For what is no fact: whether the name is still free, in which case it is taken."""
        if ("name", name) in self.used:
            return False
        self.used.add(("name", name))
        return True

    def fact(self, attribute=None, entity_name=None, owned=True):
        """A new fact, of the given attribute or entity where they are given (they must fit). owned: it has an entity."""
        while True:
            chosen = attribute or self._attribute()
            ownerless = not owned and chosen.kind == "open" and self.rng.random() < 0.4
            name = "" if ownerless else entity_name or entity(self.rng, self.split, chosen.kind)
            if self.claim(name, chosen):
                return Fact(name, chosen, self._value(chosen))

    def _attribute(self):
        """One of the list, or one that is made up: users ask for what no list has."""
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice(ATTRIBUTES)
        if kind < 0.8:
            return Attribute(words.draw(self.rng, self.split, _open_attribute), "open", words.anything)
        kind = self.rng.choice(("person", "place", "thing", "ship", "firm", "key"))
        head = words.draw(self.rng, self.split, lambda r: r.choice(words.NOUNS if r.random() < 0.6 else words.ADJECTIVES))
        tail, make = self.rng.choice(_MADE_UP)
        return Attribute(f"{head} {tail}", kind, make)

    def fact_of(self, attribute, entity_name):
        """A new fact of exactly these, None where the document has it already."""
        return Fact(entity_name, attribute, self._value(attribute)) if self.claim(entity_name, attribute) else None

    def ownerless_attribute(self):
        """One that belongs to nobody and is stated nowhere."""
        while True:
            attribute = Attribute(words.draw(self.rng, self.split, _open_attribute), "open", words.anything)
            if self.claim("", attribute):
                return attribute

    def another_value(self, fact):
        return Fact(fact.entity, fact.attribute, self._value(fact.attribute))

    def _value(self, attribute):
        if attribute.make in words.CLOSED:
            return attribute.make(self.rng)
        return words.draw(self.rng, self.split, attribute.make)
