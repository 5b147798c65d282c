"""Who and what facts are about: names of people, places, things, ships, firms and keys, made up and everyday."""

from . import values, words

THINGS = """printer server router office kitchen meeting lift laptop phone car van truck bus flight train hotel flat house garden
boiler alarm safe door gate website database backup network project report contract invoice order parcel party wedding concert
match course class exam school clinic lab factory machine pump turbine reactor camera drone robot telescope engine bicycle
piano film novel song recipe menu restaurant bakery shop museum bridge tunnel tower airport platform ferry river lake island
village region planet comet mission probe experiment sample patient nurse team club league band choir company department
branch account policy budget loan grant prize award ticket pass badge licence dog cat horse parrot tree field well soup stew
pie cake salad painting statue poem play opera lecture lesson race trip tour journey voyage battle treaty law case trial
kingdom county city street square park farm estate castle church warehouse cellar roof fence wall stairs balcony lamp stove
fridge oven washer heater radio television tablet screen keyboard watch ring necklace suitcase bag umbrella jacket""".split()
OWNERS = """my sister|my brother|my neighbour|our landlord|the new colleague|my uncle|the client|the tenant|our guest|my boss|the
driver|the intern|my daughter|my son|the caretaker|my aunt|my cousin|my grandmother|our neighbours|the neighbours|my wife|my husband|my
best friend|our teacher|the plumber|our accountant|the new nurse|my flatmate|the twins|my parents|his mother|her father|the old
professor|our lawyer|the previous owner|the night guard|the trainee|our coach""".replace("\n", " ").split("|")
_SHIP_KINDS = ("ship", "barge", "schooner", "steamer", "ferry", "cutter")
_FIRM_KINDS = ("company", "project", "expedition", "guild", "bureau", "society")


def possessive(name):
    return name + ("'" if name.endswith("s") else "'s")


def _known_person(rng):
    """For names of more than a person's: what is held out must not stand inside them."""
    return words.draw(rng, "train", words.person)


def _place(rng):
    form = rng.randrange(4)
    place = rng.choice(words.PLACES)
    if form == 0:
        return f"the {place}"
    if form == 1:
        return f"the {place} of {words.town(rng)}"
    if form == 2:
        return f"the {words.town(rng)} {place}"
    return f"the {rng.choice(words.ADJECTIVES)} {place}"


def _thing(rng):
    return f"the {values.two_words(rng)}" if rng.random() < 0.8 else f"the {rng.choice(words.NOUNS)}"


def _title(rng):
    return words.town(rng) if rng.random() < 0.4 else values.two_words(rng).title()


def _everyday(rng):
    """Somebody or something from everyday life, or that was never heard of."""
    form = rng.randrange(12)
    thing = rng.choice(THINGS)
    if form == 0:
        return f"the {thing}"
    if form == 1:
        return f"the {rng.choice(words.ADJECTIVES if rng.random() < 0.5 else THINGS)} {thing}"
    if form == 2:
        return f"the {words.name(rng)} {thing}"
    if form == 3:
        return f"{thing} {rng.choice((str(rng.randrange(1, 1000)), words.acronym(rng), rng.choice('ABCDEFGH'), words.name(rng)))}"
    if form == 4:
        return words.name(rng)
    if form == 5:
        return words.acronym(rng)
    if form == 6:
        return f"{rng.choice(OWNERS)} {rng.choice((words.made_up(rng).capitalize(), rng.choice(words.FIRST_NAMES)))}"
    if form == 7:
        return f"{rng.choice(words.FIRST_NAMES)} {words.made_up(rng).capitalize()}"
    if form == 8:
        return rng.choice(OWNERS)
    if form == 9:
        return f"the {thing} of {rng.choice(OWNERS)}" if rng.random() < 0.5 else f"{possessive(rng.choice(OWNERS))} {thing}"
    if form == 10:
        return f"the {thing} {rng.choice(('in', 'near', 'at', 'from', 'of', 'for'))} {words.town(rng) if rng.random() < 0.7 else words.name(rng)}"
    return f"{'the ' if rng.random() < 0.7 else ''}{words.made_up(rng)}"


# Subjects of verbs: somebody, something that runs, opens, happens, stands, is eaten, is alive, is put away.

def _somebody(rng):
    form = rng.randrange(7)
    if form < 2:
        return words.person(rng)
    if form == 2:
        return rng.choice(OWNERS)
    if form == 3:
        return f"{rng.choice(OWNERS)} {rng.choice(words.FIRST_NAMES) if rng.random() < 0.6 else words.made_up(rng).capitalize()}"
    if form == 4:
        return values.somebody(rng)
    if form == 5:
        return f"the {rng.choice(words.JOBS)} of {words.town(rng)}"
    return f"{words.made_up(rng).capitalize()} {rng.choice(words.LAST_NAMES)}"


def _vehicle(rng):
    kind = rng.choice(("train", "train", "bus", "ferry", "coach", "express", "boat", "shuttle", "night train", "tram", "plane"))
    form = rng.randrange(5)
    if form == 0:
        return f"the {kind} to {values.city(rng)}"
    if form == 1:
        return f"the {rng.choice(('early', 'late', 'first', 'last', 'slow', 'fast', 'morning', 'evening', 'next'))} {kind} to {values.city(rng)}"
    if form == 2:
        return f"flight {rng.choice('ABCDKLSU')}{rng.choice('ABCDKLSU')}{rng.randrange(10, 10000)}"
    if form == 3:
        return f"{kind} {rng.randrange(1, 1000)}"
    return f"the {kind} from {values.city(rng)}"


_SHOPS = """bakery shop cafe restaurant pharmacy museum library zoo cinema theatre market bank pool gym bar pub kiosk florist
butcher supermarket gallery archive clinic post-office garage salon bookshop hotel""".split()


def _venue(rng):
    shop = rng.choice(_SHOPS)
    form = rng.randrange(5)
    if form == 0:
        return f"the {shop} in {words.town(rng)}"
    if form == 1:
        return f"the {words.town(rng)} {shop}"
    if form == 2:
        return f"the {words.name(rng)} {shop}"
    if form == 3:
        return f"the {rng.choice(words.ADJECTIVES)} {shop}"
    return f"the {shop} {rng.choice(('on', 'near', 'behind', 'by'))} {words.town(rng)} {rng.choice(('Street', 'Square', 'Bridge', 'Road'))}"


_EVENTS = """meeting concert lecture party wedding race match exam lesson seminar auction parade ceremony dinner rehearsal
workshop conference festival ball training interview webinar course tour excursion hearing trial vote election show""".split()


def _event(rng):
    event = rng.choice(_EVENTS)
    form = rng.randrange(5)
    if form == 0:
        return f"the {event} in {words.town(rng)}"
    if form == 1:
        return f"the {rng.choice(('board', 'staff', 'spring', 'annual', 'next', 'first', 'last', 'second', 'family', 'team'))} {event}"
    if form == 2:
        return f"the {event} of {rng.choice(OWNERS) if rng.random() < 0.5 else _known_person(rng)}"
    if form == 3:
        return f"{possessive(rng.choice(OWNERS))} {event}"
    return f"the {rng.choice(words.NOUNS)} {event}"


def _building(rng):
    if rng.random() < 0.4:
        return _place(rng)
    return f"the {rng.choice(('bridge', 'tower', 'castle', 'church', 'tunnel', 'dam', 'mill', 'temple', 'fort', 'villa'))} of {words.town(rng)}"


_DISHES = """soup stew pie cake salad curry pasta sandwich omelette breakfast roast pudding sauce bread lasagne risotto burger
chowder goulash pancakes dumplings""".split()


def _dish(rng):
    dish = rng.choice(_DISHES)
    form = rng.randrange(4)
    if form == 0:
        return f"the {dish}"
    if form == 1:
        return f"{possessive(rng.choice(OWNERS))} {dish}"
    if form == 2:
        return f"the {words.town(rng)} {dish}"
    return f"the {dish} in the {rng.choice(words.NOUNS)} {rng.choice(('inn', 'cafe', 'bar', 'restaurant'))}"


def _creature(rng):
    pet = rng.choice(words.ANIMALS + ["cat", "dog", "horse", "parrot", "rabbit", "pony", "puppy", "kitten"] * 4)
    form = rng.randrange(3)
    if form == 0:
        return f"{possessive(rng.choice(OWNERS))} {pet}"
    if form == 1:
        return f"the {pet} of {_known_person(rng) if rng.random() < 0.5 else rng.choice(OWNERS)}"
    return f"the {rng.choice(words.ADJECTIVES)} {pet}"


_KEPT = """key lamp rope ladder map letter diary passport torch medal portrait sword mirror coat hat axe flag hammer bucket
umbrella calendar violin chart certificate receipt camera uniform will contract photograph""".split()


def _kept(rng):
    thing = rng.choice(_KEPT)
    form = rng.randrange(5)
    if form == 0:
        return f"the {rng.choice(('spare', 'second', 'old', 'new', 'big', 'rusty', 'heavy', 'precious'))} {thing}"
    if form == 1:
        return f"the {rng.choice(THINGS)} {thing}"
    if form == 2:
        return f"{possessive(rng.choice(OWNERS))} {thing}"
    if form == 3:
        return f"the {thing} of {words.town(rng)}"
    return f"the {thing} for the {rng.choice(THINGS)}"


def _ware(rng):
    """Something that can be bought, weighed, lent."""
    form = rng.randrange(4)
    thing = rng.choice(THINGS[:60] + _KEPT)
    if form == 0:
        return f"the {values.two_words(rng)}"
    if form == 1:
        return f"the {rng.choice(words.ADJECTIVES)} {thing}"
    if form == 2:
        return f"the {words.name(rng)} {thing}"
    return f"{'the ' if rng.random() < 0.5 else possessive(rng.choice(OWNERS)) + ' '}{thing}"


_KINDS = {
    "person": words.person,
    "place": _place,
    "thing": _thing,
    "ship": lambda rng: f"the {rng.choice(_SHIP_KINDS)} {_title(rng)}",
    "firm": lambda rng: f"the {rng.choice(_FIRM_KINDS)} {_title(rng)}",
    "key": values.hyphenated,
    "open": _everyday,
    "somebody": _somebody, "vehicle": _vehicle, "venue": _venue, "event": _event, "building": _building, "dish": _dish,
    "creature": _creature, "kept": _kept, "ware": _ware,
}


def entity(rng, split, kind):
    """A name of the kind as it stands in the middle of a sentence; things and places may be a bare noun."""
    return words.draw(rng, split, _KINDS[kind])
