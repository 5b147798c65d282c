"""What facts are about: makers of values, each a function of a generator of random numbers.

A value is held out by what it says (`words.held_out`), except for those of sets that are too small (`CLOSED`).
"""

from .words import ADJECTIVES, ANIMALS, COLOURS, FOODS, JOBS, MONTHS, NOUNS, PLACES, acronym, made_up, name, person, town


def number(rng):
    digits = rng.choice((3, 4, 5, 5, 6, 7))
    return str(rng.randrange(10 ** (digits - 1), 10 ** digits))


def small_number(rng):
    return str(rng.randrange(2, 1000))


def code(rng):
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((2, 2, 3))))
    form = rng.randrange(4)
    if form == 0:
        return f"{letters}-{rng.randrange(100, 1000)}"
    if form == 1:
        return f"{letters}{rng.randrange(10, 10000)}"
    if form == 2:
        return f"{rng.randrange(10, 100)}-{letters}-{rng.randrange(10, 100)}"
    return f"{letters}-{rng.randrange(1000, 10000)}-{rng.choice('ABCDEFGH')}"


def two_words(rng):
    return f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"


def hyphenated(rng):
    return f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"


def password(rng):
    form = rng.randrange(4)
    if form == 0:
        return f"{hyphenated(rng)}-{rng.randrange(1, 1000)}"
    if form == 1:
        return f"{made_up(rng)}{rng.choice('-_.')}{made_up(rng)}{rng.randrange(1, 100)}"
    if form == 2:
        return f"{rng.choice(NOUNS).capitalize()}{rng.choice(NOUNS).capitalize()}{rng.randrange(1, 1000)}"
    return mixed(rng)


def mixed(rng):
    letters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"
    return rng.choice(letters) + "".join(rng.choice(letters + "-_") for _ in range(rng.randrange(2, 11))) + rng.choice(letters)


_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()


def weekday(rng):
    return rng.choice(_WEEKDAYS)


def date(rng):
    return f"{rng.randrange(1, 29)} {rng.choice(MONTHS)} {rng.randrange(1750, 2030)}"


def _ordinal(n):
    return f"{n}{'th' if 10 < n % 100 < 14 else {1: 'st', 2: 'nd', 3: 'rd'}.get(n % 10, 'th')}"


def any_date(rng):
    """A day in one of the forms in which people write it."""
    day, month, year_ = rng.randrange(1, 29), rng.randrange(12), rng.randrange(1950, 2035)
    form = rng.randrange(10)
    if form == 0:
        return f"{year_}-{month + 1:02d}-{day:02d}"
    if form == 1:
        return f"{day:02d}/{month + 1:02d}/{year_}"
    if form == 2:
        return f"{day}.{month + 1}.{year_}"
    if form == 3:
        return f"{MONTHS[month]} {day}, {year_}"
    if form == 4:
        return f"{MONTHS[month]} {_ordinal(day)}"
    if form == 5:
        return f"the {_ordinal(day)} of {MONTHS[month]}"
    if form == 6:
        return f"{rng.choice(_WEEKDAYS)}, {day} {MONTHS[month]}"
    if form == 7:
        return f"{MONTHS[month]} {year_}"
    if form == 8:
        return f"{day} {MONTHS[month]}"
    return date(rng)


def clock_time(rng):
    return f"{rng.randrange(0, 24)}:{rng.randrange(0, 60):02d}"


def any_time(rng):
    form = rng.randrange(5)
    if form == 0:
        return f"{rng.randrange(1, 13)} {rng.choice(('am', 'pm'))}"
    if form == 1:
        return f"{rng.randrange(1, 13)}:{rng.randrange(0, 60):02d} {rng.choice(('am', 'pm'))}"
    if form == 2:
        return f"{rng.choice(('a quarter past', 'a quarter to', 'half past', 'twenty past', 'ten to'))} {rng.choice(_HOURS)}"
    return clock_time(rng)


_HOURS = "one two three four five six seven eight nine ten eleven twelve noon midnight".split()[:12]


def year(rng):
    return str(rng.randrange(1400, 2030))


def amount(rng):
    return f"{rng.randrange(2, 999)} {rng.choice(('crowns', 'ducats', 'florins', 'guineas', 'marks', 'thalers'))}"


def money(rng):
    """An amount as it is written today: the currency before or behind it."""
    form = rng.randrange(4)
    if form == 0:
        figure = str(rng.randrange(2, 1000))
    elif form == 1:
        figure = f"{rng.randrange(1, 100)}.{rng.randrange(0, 100):02d}"
    elif form == 2:
        figure = f"{rng.randrange(1, 1000)},{rng.randrange(0, 1000):03d}"
    else:
        figure = str(rng.randrange(1000, 100000))
    form = rng.randrange(4)
    if form == 0:
        return rng.choice(("$", "£", "€")) + figure
    if form == 1:
        return f"{rng.choice(('EUR', 'USD', 'GBP', 'CHF'))} {figure}"
    return f"{figure} {rng.choice(('euros', 'dollars', 'pounds', 'francs', 'cents', 'crowns', 'yen', 'EUR', 'USD'))}"


def price(rng):
    return amount(rng) if rng.random() < 0.3 else money(rng)


def hexadecimal(rng):
    return "".join(rng.choice("0123456789abcdef") for _ in range(rng.choice((6, 8))))


def colour(rng):
    return rng.choice(COLOURS)


def animal(rng):
    return rng.choice(ANIMALS)


def profession(rng):
    return rng.choice(JOBS)


def food(rng):
    return rng.choice(FOODS)


_TITLES = ("Dr.", "Prof.", "Mr", "Mrs", "Ms", "Captain", "Sir", "Lady")


def somebody(rng):
    """A person, with a title now and then, or with a name that no list has."""
    form = rng.random()
    if form < 0.6:
        return person(rng)
    if form < 0.75:
        return f"{rng.choice(_TITLES)} {person(rng)}"
    if form < 0.9:
        return f"{made_up(rng).capitalize()} {made_up(rng).capitalize()}"
    return f"{rng.choice(_TITLES)} {made_up(rng).capitalize()}"


_CITIES = """Paris London Madrid Rome Vienna Prague Warsaw Athens Dublin Oslo Helsinki Stockholm Copenhagen Brussels Zurich
Geneva Milan Naples Porto Seville Valencia Lyon Marseille Munich Hamburg Cologne Dresden Leipzig Bremen Budapest Bucharest
Sofia Belgrade Zagreb Riga Tallinn Vilnius Kyiv Istanbul Ankara Cairo Tunis Lagos Nairobi Accra Tokyo Osaka Kyoto Seoul
Delhi Mumbai Hanoi Bangkok Manila Sydney Perth Toronto Montreal Boston Chicago Denver Seattle Houston Havana Lima Bogota
Quito Santiago Norway Sweden Finland Poland Spain Italy Greece Turkey Egypt Kenya Japan Canada Peru Chile Iceland""".split()


def city(rng):
    form = rng.random()
    return rng.choice(_CITIES) if form < 0.35 else town(rng) if form < 0.75 else made_up(rng).capitalize()


_LANGUAGES = """Spanish Italian Greek Turkish Polish Swedish Danish Finnish Dutch Latin Arabic Hebrew Hindi Japanese Korean
Chinese Portuguese Russian Hungarian Czech Welsh Irish Basque Swahili German French""".split()
_INSTRUMENTS = """piano violin flute guitar cello drums trumpet harp organ clarinet oboe saxophone trombone tuba viola banjo
accordion lute mandolin harmonica bassoon horn""".split()
_VEHICLES = """bus tram van truck bicycle motorcycle taxi tractor limousine jeep pickup scooter ambulance minibus
convertible sledge cart""".split()
_SUBJECTS = """history physics chemistry biology music drawing geography mathematics philosophy economics law medicine
astronomy botany grammar rhetoric geometry logic dancing fencing swimming pottery""".split()
_MATERIALS = """oak bronze granite marble copper silver glass wool silk steel iron ivory clay leather paper bamboo cork
concrete brass tin wax velvet cotton linen straw""".split()
_AILMENTS = """dust pollen cats nuts milk eggs shellfish penicillin wheat strawberries peanuts sesame bees wool soy latex
pepper mustard dogs horses grass""".split()


def language(rng):
    return rng.choice(_LANGUAGES)


def instrument(rng):
    return rng.choice(_INSTRUMENTS)


def driven(rng):
    """What somebody drives, with its article."""
    return f"a {rng.choice(COLOURS[:10])} {rng.choice(_VEHICLES)}" if rng.random() < 0.7 else f"a {name(rng)}"


def school_subject(rng):
    return rng.choice(_SUBJECTS)


def material(rng):
    return rng.choice(_MATERIALS)


def ailment(rng):
    return rng.choice(_AILMENTS)


_UNITS = """percent degrees metres kilometres miles litres grams kilograms tons volts watts hours minutes days weeks years
seconds euros dollars pounds cents pages rooms seats people bytes megabytes points steps inches feet""".split()


def measure(rng):
    form = rng.randrange(4)
    if form == 0:
        return f"{rng.randrange(1, 1000)} {rng.choice(_UNITS)}"
    if form == 1:
        return f"{rng.randrange(0, 100)}.{rng.randrange(1, 100)} {rng.choice(_UNITS)}"
    if form == 2:
        return f"{rng.randrange(1, 100)},{rng.randrange(0, 1000):03d}"
    return f"{rng.randrange(0, 100)}.{rng.randrange(0, 100)}"


def _of(*units):
    def make(rng):
        figure = str(rng.randrange(2, 1000)) if rng.random() < 0.6 else f"{rng.randrange(1, 100)}.{rng.randrange(1, 10)}"
        return f"{figure} {rng.choice(units)}"
    return make


mass = _of("grams", "kilograms", "kg", "tons", "pounds", "ounces")
extent = _of("metres", "feet", "kilometres", "miles", "inches", "cm")
duration = _of("hours", "minutes", "days", "weeks", "months", "years", "seconds")
speed = _of("km/h", "knots", "miles per hour", "metres per second")


def ip_address(rng):
    return ".".join(str(rng.randrange(1, 255)) for _ in range(4))


def email(rng):
    user = made_up(rng) if rng.random() < 0.5 else f"{made_up(rng)}{rng.choice('._-')}{made_up(rng)}"
    return f"{user}@{made_up(rng)}.{rng.choice(('com', 'org', 'net', 'eu', 'de', 'io'))}"


def url(rng):
    host = f"{rng.choice(('', 'www.', made_up(rng) + '.'))}{made_up(rng)}.{rng.choice(('com', 'org', 'net', 'eu', 'de', 'io'))}"
    path = rng.choice(("", "", f"/{made_up(rng)}", f"/{rng.choice(NOUNS)}/{rng.randrange(1, 1000)}"))
    return rng.choice(("", "https://", "http://")) + host + path


def version(rng):
    return rng.choice(("v", "", "version ")) + ".".join(str(rng.randrange(0, 30)) for _ in range(rng.choice((2, 3, 3))))


def phone(rng):
    form = rng.randrange(4)
    if form == 0:
        return f"{rng.randrange(200, 1000)}-{rng.randrange(0, 10000):04d}"
    if form == 1:
        return f"{rng.randrange(200, 1000)}-{rng.randrange(200, 1000)}-{rng.randrange(0, 10000):04d}"
    if form == 2:
        return f"+{rng.randrange(20, 100)} {rng.randrange(10, 1000)} {rng.randrange(1000, 10000)} {rng.randrange(100, 10000)}"
    return f"0{rng.randrange(10, 1000)}/{rng.randrange(10000, 10000000)}"


def room(rng):
    form = rng.randrange(4)
    if form == 0:
        return f"room {rng.randrange(1, 900)}"
    if form == 1:
        return f"room {rng.choice('ABCDEFGH')}{rng.randrange(1, 400)}"
    if form == 2:
        return f"hall {rng.choice('ABCDEFGH123456789')}"
    return f"the {rng.choice(ADJECTIVES)} {rng.choice(('room', 'hall', 'office', 'chamber', 'lounge'))}"


def platform(rng):
    return f"{rng.choice(('platform', 'platform', 'track', 'gate', 'gate', 'pier', 'stop', 'bay'))} {rng.choice('ABCDEFGH') if rng.random() < 0.3 else ''}{rng.randrange(1, 90)}"


_SPOTS = "behind under beside in inside above near on below between".split()[:9]
_FURNITURE = """mirror clock drawer shelf cupboard wardrobe stove carpet sofa bookcase cabinet basement attic garage kitchen
hall curtain picture bed bench desk box jar vase barrel staircase fireplace freezer window door mailbox shed pantry""".split()


def spot(rng):
    """Where a thing is, with the preposition."""
    thing = rng.choice(_FURNITURE)
    form = rng.randrange(5)
    if form == 0:
        thing = f"{rng.choice(ADJECTIVES)} {thing}"
    elif form == 1:
        thing = f"{rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}"
    elif form == 2:
        thing = f"{rng.choice(COLOURS)} {thing}"
    return f"{rng.choice(_SPOTS)} the {thing}"


def identifier(rng):
    """What people paste: versions, addresses, user names, mixed codes."""
    return rng.choice((version, ip_address, email, url, _user, any_date, mixed, mixed, phone, password))(rng)


def _user(rng):
    return f"{made_up(rng)}{rng.randrange(1, 1000)}"


def invoice(rng):
    letters = "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ") for _ in range(rng.choice((1, 2, 3, 4))))
    return f"{letters}{rng.choice(('-', '-', '/', ' ', '#'))}{rng.randrange(100, 1000000)}"


def phrase(rng):
    """Several words, some of them made up."""
    pick = lambda: made_up(rng) if rng.random() < 0.3 else rng.choice(rng.choice((ADJECTIVES, NOUNS, FOODS, JOBS, PLACES)))
    return " ".join(pick() for _ in range(rng.randrange(1, 5)))


def anything(rng):
    return rng.choice(_ANYTHING)(rng)


_ANYTHING = (measure, identifier, phrase, name, number, code, made_up, any_time, person, somebody, identifier, money, any_date, city,
             spot, room, invoice, phrase, two_words, small_number, acronym)


def hiding_place(rng):
    return f"the {rng.choice(ADJECTIVES)} {rng.choice(PLACES)}"


#: Sets too small to hold members out: their held-out questions differ in the entity alone.
CLOSED = (colour, animal, profession, food, year, clock_time, weekday, language, instrument, school_subject, material, ailment)
