"""The words that facts, questions and generated prose are made of, names, and what is held out for evaluation."""

import re
import zlib

FIRST_NAMES = """Alice Bruno Clara Dmitri Elena Felix Greta Hassan Irene Jonas Karin Leon Maria Nadia Oscar Paula
Quentin Rosa Stefan Tara Ulrich Vera Walter Xenia Yusuf Zoe Adrian Bianca Cedric Diana Edgar Fiona Gideon Hannah
Isaac Julia Kaspar Linda Martin Nora Otto Petra Ramon Sofia Thomas Ursula Victor Wanda Amira Boris Celia Daniel
Esther Frank Gloria Henrik Ingrid Jakob Laura Marcus Olivia Peter Ruth Simon Teresa Anton Beatrice""".split()
LAST_NAMES = """Abbott Becker Castell Dorsey Ellison Farrow Grant Hollis Iverson Jansen Keller Lambert Marlow Norris
Osborne Pryor Quinn Ramsey Stroud Thorne Underhill Vance Whitlock Yates Zeller Ashby Brandt Calloway Drummond Easton
Fletcher Garrick Hartmann Ingram Jarvis Kendrick Lockwood Merrick Nash Ortega Pemberton Reinholt Sandoval Tilden
Varga Westcott Alvarez Bellamy Corrigan Delgado Erikson Foster Gallagher Hayward Jennings Kovacs Larkin Mercer""".split()
ADJECTIVES = """amber ancient bitter black blue bold brave bright broken bronze calm clever cold copper crimson crooked
curious dark distant double dusty eager early empty fallen famous fast flat foggy forgotten frozen gentle giant glossy
golden grand gray green happy hidden hollow honest humble idle iron ivory jolly keen lazy little lonely long lost loud
lucky marble mellow mighty modest muddy narrow nimble noble northern odd old orange pale patient plain polished proud
purple quick quiet rapid rare red restless round royal rusty sandy scarlet secret shallow sharp shining silent silver
simple sleepy slow small smooth solid southern stony strange strong sunny sweet swift tall tender thin tiny violet warm
wandering western white wild windy wise wooden yellow young""".split()
NOUNS = """anchor apple arrow badge barrel basket beacon bell bench bird boat bottle bridge brush bucket button cabin
camera candle canyon castle cat chain chair chest circle clock cloud coat coin compass cradle crane crown cup dagger desk
dog door dragon drum eagle engine falcon feather fence field fiddle finch flag flute forest fork fountain fox garden gate
giraffe glove goat guitar hammer harbor hat hawk helmet heron hill horn horse island jacket jar kettle key kite knife
ladder lake lamp lantern leaf lemon lens letter lion lizard locket magnet mango map mask meadow mill mirror monkey moon
mountain mule needle nest oak oar orchard otter owl paddle panther parrot peach pebble pencil piano pillow pine pirate
plate plum pocket pond puzzle rabbit raven ribbon river robin rocket rope rose saddle sail salmon scarf shell shield ship
shovel spider spoon squirrel stone stove sword table temple tent thimble tiger tower trumpet tulip turtle umbrella valley
vase violin wagon walnut wheel whistle willow window wolf wren zebra""".split()
PLACES = """airport archive bakery bank barracks brewery bunker cathedral cellar chapel clinic college courthouse dam
depot embassy factory ferry fortress gallery granary greenhouse hangar hospital hotel inn kiosk laboratory library
lighthouse market monastery museum observatory office palace pavilion pharmacy port prison quarry reservoir school
shelter shipyard stable stadium station studio theatre vault vineyard warehouse workshop""".split()
COLOURS = """red blue green yellow orange purple violet crimson scarlet turquoise indigo amber ivory black white gray
silver golden brown pink""".split()
ANIMALS = """badger beaver camel cheetah cobra crow deer dolphin donkey duck elephant ferret frog gecko goose hamster
hedgehog ibis jaguar koala lemur leopard llama lynx mole moose mouse newt octopus ostrich panda pelican penguin pigeon
pony raccoon seal shark sheep sparrow stork swan toad trout weasel whale wombat yak""".split()
JOBS = """actor architect baker barber beekeeper blacksmith bookbinder botanist brewer butcher carpenter chemist clerk
cook courier dentist diver doctor driver editor engineer farmer fisherman florist gardener glazier goldsmith hunter
inspector jeweller judge lawyer librarian locksmith mason mechanic merchant miller miner musician nurse optician painter
pharmacist pilot plumber poet potter printer sailor saddler scribe sculptor shepherd singer surgeon surveyor tailor
teacher translator waiter weaver welder writer""".split()
FOODS = """apricots barley beans biscuits bread butter cabbage carrots cheese cherries chestnuts cider cinnamon cocoa
coffee cork cotton dates figs flour garlic ginger grain grapes ham hazelnuts honey hops lemons lentils linen mushrooms
mustard nutmeg oats olives onions oranges paper pears pepper plums potatoes raisins rice rope rye saffron salt sardines
silk soap spices sugar tea timber tin tobacco tomatoes vanilla vinegar walnuts wheat wine wool""".split()
MONTHS = "January February March April May June July August September October November December".split()
_TOWN_HEADS = """Ald Ashen Barrow Bel Brax Cald Cor Dun East Elm Fen Glen Green Hal Hart Kel Kings Lang Lind Mar Mill Nor
Oak Ost Pen Quar Raven Ros Salt Sel Stan Storm Strat Tam Thorn Ul Var Wes Whit Win Wolf Yar""".split()
_TOWN_TAILS = """bach berg borough bourne bridge burg bury by cester dale don fall field ford gate ham haven holm hurst
land ley mere minster mont mouth port stead stow ton vale view wick wood worth""".split()


_TITLE = re.compile(r"^(Dr\.|Prof\.|Mr|Mrs|Ms|Captain|Sir|Lady) ")


def held_out(value: str) -> bool:
    """True for about one value in eight, always the same ones: what training plants or names is never one of them.
    A name stays what it is under a title."""
    return zlib.crc32(_TITLE.sub("", value).encode()) % 8 == 0


def draw(rng, split, make):
    """The first of make(rng)'s values that belongs to the split ("train" or "eval")."""
    while True:
        value = make(rng)
        if held_out(value) == (split == "eval"):
            return value


def person(rng):
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def town(rng):
    return rng.choice(_TOWN_HEADS) + rng.choice(_TOWN_TAILS)


_ONSETS = "b bl br c ch cl d dr f fl g gl gr h j k kl l m n p pl pr r s sh sk sl sp st t th tr v w z".split()
_VOWELS = "a a e e i o o u ai ea ee ou".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "nd", "rk", "x", "ck"]


def made_up(rng):
    """A word that no list has: what a text is about is seldom what training was about."""
    syllables = rng.choice((1, 2, 2, 2, 3))
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))


def name(rng):
    """Capitalized and made up: a product, a firm, somebody's name."""
    parts = [made_up(rng).capitalize() for _ in range(rng.choice((1, 1, 2, 2, 3)))]
    return " ".join(parts)


def acronym(rng):
    return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randrange(2, 6)))
