"""Facts: an attribute of somebody or something and its value, or what a verb says; and the facts of one document."""

from dataclasses import dataclass

from . import entities, relations, values, words
from .wordings import GRAMMAR


@dataclass(frozen=True)
class Attribute:
    name: str    # "access code"
    kind: str    # which entities have it: person, place, thing, ship, firm, key or open
    make: object  # draws a value

    @property
    def plural(self):
        head, of, rest = self.name.partition(" of ")
        if head.endswith("y") and head[-2] not in "aeiou":
            head = head[:-1] + "ies"
        elif head.endswith(("x", "ch", "sh", "ss")):
            head += "es"
        elif not head.endswith("s"):
            head += "s"
        return head + of + rest

    @property
    def of_person(self):
        """Who has it and who it is are told apart by grammar alone."""
        return self.make in (words.person, values.somebody)


def _attributes(kind, *pairs):
    return [Attribute(name, kind, make) for name, make in pairs]


ATTRIBUTES = [
    *_attributes(
        "person", ("phone number", values.phone), ("locker number", values.number), ("badge code", values.code),
        ("favourite colour", values.colour), ("home town", words.town), ("profession", values.profession),
        ("birthday", values.date), ("password", values.two_words), ("pet", values.animal), ("best friend", words.person),
        ("favourite food", values.food), ("room number", values.number), ("employee number", values.number),
        ("code name", values.two_words), ("doctor", values.somebody), ("lucky number", values.number), ("salary", values.price),
        ("teacher", words.person), ("email address", values.email), ("lawyer", values.somebody), ("extension", values.small_number)),
    *_attributes(
        "place", ("access code", values.code), ("secret number", values.number), ("opening year", values.year),
        ("keeper", words.person), ("owner", words.person), ("password", values.two_words), ("architect", words.person),
        ("number of visitors", values.number), ("closing time", values.clock_time), ("door code", values.number),
        ("rent", values.price), ("symbol", values.animal), ("postal code", values.number), ("security code", values.code),
        ("colour", values.colour), ("serial number", values.code), ("director", values.somebody), ("telephone number", values.phone),
        ("website", values.url), ("opening time", values.any_time), ("address", values.phrase)),
    *_attributes(
        "thing", ("price", values.price), ("serial number", values.code), ("owner", words.person), ("weight", values.mass),
        ("maker", words.person), ("hiding place", values.hiding_place), ("catalogue number", values.number), ("colour", values.colour),
        ("origin", words.town), ("secret code", values.code), ("value", values.price), ("age", values.year),
        ("password", values.hyphenated), ("length", values.extent), ("version", values.version), ("material", values.material)),
    *_attributes(
        "ship", ("captain", words.person), ("cargo", values.food), ("home port", words.town), ("registration code", values.code),
        ("departure time", values.clock_time), ("call sign", values.code), ("destination", values.city), ("launch date", values.any_date),
        ("crew number", values.number), ("pilot", words.person), ("top speed", values.speed)),
    *_attributes(
        "firm", ("founder", words.person), ("budget", values.price), ("code name", values.two_words), ("leader", values.somebody),
        ("account number", values.number), ("headquarters", values.city), ("password", values.hexadecimal),
        ("founding year", values.year), ("deadline", values.any_date), ("tax number", values.number), ("mascot", values.animal),
        ("invoice number", values.invoice), ("server address", values.ip_address)),
    *_attributes(
        "key", ("special magic number", values.number), ("special magic word", values.hyphenated),
        ("special magic code", values.hexadecimal), ("magic number", values.number), ("secret word", values.two_words),
        ("secret code", values.code), ("key", values.hexadecimal)),
]

_MADE_UP = (("number", values.number), ("code", values.code), ("name", words.person), ("word", values.two_words),
            ("date", values.any_date), ("price", values.price), ("key", values.hexadecimal), ("town", values.city),
            ("count", values.number), ("sign", values.hyphenated))
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
visitor voltage wage website week weight width winner witness writer year zone ingredient dentist checkout summary summit spring
trick habit hobby dream wish fear plot hero villain moral joke rumour alibi motive clue verdict sentence cure symptom dose remedy diet
species habitat tool fabric shade texture pattern rhythm key tempo genre sequel cast crew anchor sail mast hull""".split()
#: And what its value is like, where it is not just anything.
_NATURAL = {make: names.split() for make, names in (
    (values.price, "price cost fee rent salary budget fare bonus deposit payment reward tax fine wage bill discount loan tip toll"),
    (values.somebody, """agent chef client coach dealer director doctor editor guest guide landlord lawyer leader manager nurse owner
        partner referee sender singer speaker sponsor spouse supplier teacher trainer winner witness writer dentist president boss
        author inventor captain plumber tenant heir bride groom colleague assistant tutor composer conductor judge mayor"""),
    (values.any_date, "date deadline delivery appointment birthday anniversary start exam expiry wedding term"),
    (values.any_time, "time arrival departure opening start checkout checkin curfew bedtime end"),
    (values.number, "number population pin code total count score record index reading"),
    (values.code, "code licence token ticket invoice serial id reference order"),
    (values.password, "password passcode login passphrase secret"), (values.email, "email contact mailbox"), (values.url, "website link url page"),
    (values.ip_address, "ip host gateway dns server"), (values.phone, "phone line fax telephone hotline mobile"),
    (values.room, "room office classroom venue desk seat"), (values.platform, "gate platform pier exit entrance"),
    (values.version, "version release firmware build"), (values.city, "city region station country place destination capital origin"),
    (values.colour, "colour paint shade"), (values.food, "ingredient dish spice recipe food filling flavour cargo"),
    (values.language, "language"), (values.weekday, "day weekday holiday"), (values.mass, "weight load mass"),
    (values.extent, "distance depth height width size length altitude"), (values.duration, "duration age delay lifetime warranty"),
    (values.speed, "speed limit pace"), (values.spot, "spot location hideout position parking"), (values.measure, "temperature rate pressure capacity voltage"),
    (words.name, "name nickname title brand band label surname motto topic song"), (values.animal, "pet mascot animal"),
    (words.made_up, "word keyword codeword answer"), (values.profession, "job trade profession"))}
_NATURAL_PAIRS = [(noun, make) for make, nouns in _NATURAL.items() for noun in nouns]


def _open_attribute(rng):
    form = rng.randrange(8)
    if form < 3:
        return rng.choice(_EVERYDAY)
    if form < 6:
        return f"{rng.choice(_EVERYDAY + words.NOUNS)} {rng.choice(_EVERYDAY)}"
    if form == 6:
        return f"{rng.choice((words.made_up(rng), words.acronym(rng), rng.choice(words.ADJECTIVES)))} {rng.choice(_EVERYDAY)}"
    return f"{rng.choice(_EVERYDAY)} of {rng.choice(_EVERYDAY)}"


def _modified(rng, noun):
    form = rng.randrange(5)
    if form < 2:
        return noun
    if form == 2:
        return f"{rng.choice(_EVERYDAY)} {noun}"
    return f"{rng.choice(('hidden', 'favourite', 'main', 'official', 'real', 'first', 'private', 'local', 'daily', 'total', 'previous', 'best'))} {noun}"


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


# Between the parts of a free wording: neither grammatical nor meant to be. Whoever finds the value here has learned that
# a statement is wherever attribute, entity and value meet, in any order, and does not rely on any rule.
FREE_WORDS = """is was of for with as to by on at from the a his its their one this that it they he she has had gets got holds
keeps bears carries takes uses wants needs shows says reads means makes equals remains became stays given noted
written printed marked set filed kept known called named stated found chosen attached entered reported
mentioned under beside near behind along and but so now then here there still only always once again officially also
namely exactly simply apparently undoubtedly later page entry line list column record register file card label
paper book answer detail will would can could should may might did does been being have having who whom which whose where
when why how than both each every some any all most many much more less first last next same other own such very too
never often rarely soon already just even perhaps maybe hence thus therefore however indeed against between into onto
over through during before after since until without within across toward upon about above below inside outside up down
out off back away went goes came comes stood stands lay lies ran runs turned turns moved told tells asked asks thought
thinks felt feels seemed seems looked looks tried used worked works played plays passed passes pointed points brought brings
gave sent sends paid bought sold lost won read wrote drew built broke spoke heard saw seen done gone taken put let led
form copy note section sheet board desk office clerk reader people family world week month year time day night""".split()
_MARKS = ("", "", "", "", "", "", "", "", ",", ",", ":", " -", ";")
_HEADS = ("", "", "the ", "the ", "the ", "its ", "this ", "their ")
_WANTS = """what which who tell me find give show name state say search check read recall report answer help
can would will you do does did is was are the a of in from by to about text document above story page i we need
want like wonder know see learn hear there out now quickly exactly kindly have has get written mentioned stated
us my question wish should might must how where please again anybody here only still really think word line try let""".split()


def _links(rng, fewest, most):
    return "".join(f" {rng.choice(FREE_WORDS)}{rng.choice(_MARKS)}" for _ in range(rng.randrange(fewest, most + 1)))


def _free_statement(rng, fact):
    name, entity = fact.attribute.name, fact.entity
    if not entity:
        parts = [f"{rng.choice(('', 'the ', 'the ', 'our ', 'this '))}{name}", fact.value]
    elif rng.random() < 0.25:
        parts = [f"{entities.possessive(entity)} {name}", fact.value]
    elif rng.random() < 0.35 or fact.attribute.of_person:
        parts = [f"{rng.choice(_HEADS)}{name} {rng.choice(('of', 'for', 'at', 'with'))} {entity}", fact.value]
    else:
        parts = [f"{rng.choice(_HEADS)}{name}", entity, fact.value]
    rng.shuffle(parts)
    text = _links(rng, 0, 4) if rng.random() < 0.7 else ""
    for i, part in enumerate(parts):
        text += (_links(rng, 1, 4) if i else "") + f" {part}" + (rng.choice(_MARKS) if rng.random() < 0.3 else "")
    return text.strip() + (_links(rng, 0, 4) if rng.random() < 0.5 else "")


def _free_question(rng, entity_name, attribute):
    wants = lambda fewest, most: "".join(f" {rng.choice(_WANTS)}" for _ in range(rng.randrange(fewest, most + 1)))
    form = rng.random()
    if not entity_name:
        asked = f" {rng.choice(('', 'the ', 'the ', 'our '))}{attribute.name}"
    elif form < 0.3:
        asked = f" {entities.possessive(entity_name)} {attribute.name}"
    elif form < 0.85:
        asked = f" {rng.choice(_HEADS)}{attribute.name}{wants(0, 3)} {rng.choice(('of', 'for', 'of'))} {entity_name}"
    else:
        asked = f" {entity_name}{wants(1, 3)} {rng.choice(_HEADS)}{attribute.name}"
    return f"{wants(0, 5)}{asked}{wants(0, 4) if rng.random() < 0.5 else ''}{rng.choice('??.')}".strip()


def capitalize(text):
    return text[:1].upper() + text[1:]


def _fields(rng, split, entity_name, attribute, value=""):
    fields = {"e": entity_name, "es": entities.possessive(entity_name), "a": attribute.name, "v": value}
    fields["ae"] = GRAMMAR.make(rng, split, "ae" if entity_name else "ae0", **fields)
    return fields


def sentence(rng, split, core):
    """A statement's core between an opener and a closer."""
    return capitalize(f"{GRAMMAR.make(rng, split, 'opener')}{core}{GRAMMAR.make(rng, split, 'closer')}.")


def state(rng, split, fact):
    """The fact as one sentence of a document."""
    if split == "train" and rng.random() < 0.25:
        core = _free_statement(rng, fact)
    else:
        fields = _fields(rng, split, fact.entity, fact.attribute, fact.value)
        core = GRAMMAR.make(rng, split, "core" if fact.entity else "core0", **fields)
    return sentence(rng, split, core)


def ask(rng, split, entity_name, attribute):
    if split == "train" and rng.random() < 0.2:
        return capitalize(_free_question(rng, entity_name, attribute))
    rule = "question" if entity_name else "question0"
    if entity_name and attribute.of_person and rng.random() < 0.4:
        rule = "whois"
    fields = _fields(rng, split, entity_name, attribute)
    return capitalize(GRAMMAR.make(rng, split, "asking") + GRAMMAR.make(rng, split, rule, **fields))


def _as_attribute(said):
    return Fact(said.subject, Attribute(said.relation.noun, said.relation.subject, said.relation.make), said.value)


def state_said(rng, split, said):
    """What the verb says, now and then by the noun that says the same."""
    if said.relation.noun and rng.random() < 0.1:
        return state(rng, split, _as_attribute(said))
    return sentence(rng, split, said.statement(rng, split))


def ask_said(rng, split, said):
    """(question, answer), in the words of the verb or of the noun."""
    if said.relation.noun and rng.random() < 0.15:
        fact = _as_attribute(said)
        return ask(rng, split, fact.entity, fact.attribute), capitalize(fact.answer)
    return capitalize(GRAMMAR.make(rng, split, "asking") + said.question(rng, split)), capitalize(said.answer())


def siblings(rng, split, attribute):
    """Other attributes that an entity of the same kind may have."""
    if attribute.kind == "open":
        made = [Attribute(words.draw(rng, split, _open_attribute), "open", values.anything) for _ in range(3)]
        return [a for a in made if a.name != attribute.name] or siblings(rng, split, attribute)
    return [a for a in ATTRIBUTES if a.kind == attribute.kind and a.name != attribute.name]


class World:
    """The facts of one document: no two of them give one attribute of one entity."""

    def __init__(self, rng, split):
        self.rng = rng
        self.split = split
        self.used = set()
        self.attributes = set()

    def claim(self, entity_name, attribute_name):
        pair = (entity_name.lower(), attribute_name)
        # What belongs to nobody must be the only one of its kind.
        lonely = ("", attribute_name) in self.used or (not entity_name and attribute_name in self.attributes)
        if pair in self.used or lonely:
            return False
        self.used.add(pair)
        self.attributes.add(attribute_name)
        return True

    def claim_name(self, name):
        """For what is no fact: whether the name is still free, in which case it is taken."""
        if ("name", name) in self.used:
            return False
        self.used.add(("name", name))
        return True

    def fact(self, attribute=None, owned=True):
        """A new fact, of the given attribute where it is given. owned: it has an entity."""
        while True:
            chosen = attribute or self._attribute()
            ownerless = not owned and chosen.kind == "open" and self.rng.random() < 0.4
            name = "" if ownerless else entities.entity(self.rng, self.split, chosen.kind)
            if self.claim(name, chosen.name):
                return Fact(name, chosen, self.value(chosen.make))

    def _attribute(self):
        """One of the list, or one that is made up: users ask for what no list has."""
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.choice(ATTRIBUTES)
        if kind < 0.6:
            return Attribute(words.draw(self.rng, self.split, _open_attribute), "open", values.anything)
        if kind < 0.8:
            noun, make = self.rng.choice(_NATURAL_PAIRS)
            return Attribute(words.draw(self.rng, self.split, lambda rng: _modified(rng, noun)) if self.rng.random() < 0.7 else noun, "open", make)
        if kind < 0.85:
            return Attribute(self.rng.choice(words.JOBS), "open", values.somebody)
        kind = self.rng.choice(("person", "place", "thing", "ship", "firm", "key"))
        head = words.draw(self.rng, self.split, lambda r: r.choice(words.NOUNS if r.random() < 0.6 else words.ADJECTIVES))
        tail, make = self.rng.choice(_MADE_UP)
        return Attribute(f"{head} {tail}", kind, make)

    def fact_of(self, attribute, entity_name):
        """A new fact of exactly these, None where the document has it already."""
        return Fact(entity_name, attribute, self.value(attribute.make)) if self.claim(entity_name, attribute.name) else None

    def ownerless_attribute(self):
        """One that belongs to nobody and is stated nowhere."""
        while True:
            attribute = Attribute(words.draw(self.rng, self.split, _open_attribute), "open", values.anything)
            if self.claim("", attribute.name):
                return attribute

    def another_value(self, fact):
        return Fact(fact.entity, fact.attribute, self.value(fact.attribute.make))

    def said(self, relation=None, subject=None):
        """A new fact of a verb, of the given relation or subject where they are given (they must fit); None where the
        document says already what would be its like."""
        while True:
            chosen = relation or relations.draw_relation(self.rng, self.split)
            name = subject or entities.entity(self.rng, self.split, chosen.subject)
            if self.claim(name, chosen.key):
                value = self.value(chosen.make)
                while value.lower() in name.lower():
                    value = self.value(chosen.make)
                return relations.Said(name, chosen, value)
            if relation and (subject or ("", chosen.key) in self.used):
                return None

    def value(self, make):
        return make(self.rng) if make in values.CLOSED else words.draw(self.rng, self.split, make)
