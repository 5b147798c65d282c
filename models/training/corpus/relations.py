"""Facts that a verb says: who lives where, what costs how much, when something starts. How they are stated and asked for.

Each relation is a block of relation_table.py: a head of name, kind of subject, maker of values, the one form of its answer and, where
there is one, the noun that says the same as an attribute ("The price of the stew is ..."). Below it lines of statements (+) and of
questions (?); those with ! before the sign are seen in evaluation alone, as are whole relations whose head has it.
A line that ends in | goes on below. {s} is the subject, {ss} its possessive, {v} the value; <rules> are those of wordings.py.
"""

from dataclasses import dataclass

from . import entities, values, words
from .relation_table import TABLE
from .wordings import GRAMMAR


@dataclass(frozen=True)
class Relation:
    """Hashable by its name; of statements and questions there are training's and those of evaluation alone."""
    name: str
    subject: str        # kind of entity
    make: object        # of values
    answer: str
    noun: str           # the attribute that says the same
    held_out: bool
    says: dict
    asks: dict

    def __hash__(self):
        return hash(self.name)

    @property
    def key(self):
        """What a document states once of a subject: as an attribute or by the verb, it is the same fact."""
        return self.noun or self.name


def _firm(rng):
    return f"{words.name(rng)}{rng.choice((' Ltd', ' Inc', ' & Co', ' Group', '', ''))}"


def _contact(rng):
    return rng.choice((values.phone, values.email))(rng)


def _read(table):
    makers = {**vars(values), "firm": _firm, "contact": _contact, "name": words.name}
    relations = []
    for block in table.strip().replace("|\n  ", "| ").split("\n\n"):
        head, *lines = block.split("\n")
        held_out = head.startswith("!")
        name, subject, make, answer, noun = (part.strip() for part in head.lstrip("! ").split("|"))
        says, asks = {"train": [], "eval": []}, {"train": [], "eval": []}
        for line in lines:
            sign, rest = line.split(" ", 1)
            (says if sign[-1] == "+" else asks)["eval" if sign[0] == "!" else "train"] += [one.strip() for one in rest.split("|")]
        relations.append(Relation(name, subject, makers[make], answer, noun, held_out, says, asks))
    return relations


ALL = _read(TABLE)
RELATIONS = {"train": [r for r in ALL if not r.held_out], "eval": [r for r in ALL if r.held_out]}


@dataclass(frozen=True)
class Said:
    """One relation of one subject."""
    subject: str
    relation: Relation
    value: str

    def _fill(self, rng, split, template):
        if self.value[0] in "aeiou":
            template = template.replace(" a {v}", " an {v}")
        return GRAMMAR.fill(rng, split, template, s=self.subject, ss=entities.possessive(self.subject), v=self.value)

    def answer(self):
        return self._fill(None, "train", self.relation.answer) + "."

    def statement(self, rng, split):
        return self._fill(rng, split, _one(rng, split, self.relation.says))

    def question(self, rng, split):
        return self._fill(rng, split, _one(rng, split, self.relation.asks))


def _one(rng, split, forms):
    held_out = forms["eval"] if split == "eval" and rng.random() < GRAMMAR.SHARE else ()
    return rng.choice(held_out or forms["train"])


def draw_relation(rng, split):
    """Evaluation asks of relations that training does not know as well."""
    return rng.choice(RELATIONS["eval" if split == "eval" and rng.random() < 0.2 else "train"])
