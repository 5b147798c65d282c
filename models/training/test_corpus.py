"""The corpus: answers are right, nothing held out leaks into training, the same key gives the same sample."""

import os
import random
import re
import unittest

import corpus
from corpus import facts, words
from corpus.prose import BOOK_VARIABLE, haystack


class CorpusTest(unittest.TestCase):
    def setUp(self):
        # Without a book: what is said here is said of generated text.
        os.environ.pop(BOOK_VARIABLE, None)

    def test_every_answer_contains_what_is_expected(self):
        for task in corpus.TASKS:
            for split in ("train", "eval"):
                for seed in range(20):
                    dialogue = corpus.make_dialogue(task, corpus.seeded(task, split, seed), split, 3000, turns=2)
                    for turn in dialogue.turns:
                        self.assertEqual(corpus.grade(turn, turn.answer), 1.0, (task, turn))
                        self.assertEqual(corpus.grade(turn, "Nothing of the kind."), 0.0, (task, turn))

    def test_the_document_holds_what_is_asked_for(self):
        for task in ("single", "multi_key", "multi_value", "multi_query", "copy", "first_sentence", "last_sentence"):
            for seed in range(20):
                dialogue = corpus.make_dialogue(task, corpus.seeded("holds", task, seed), "eval", 3000)
                for turn in dialogue.turns:
                    for want in turn.expect:
                        self.assertIn(want.lower(), dialogue.document.replace("\n\n", " ").lower())

    def test_what_is_absent_is_absent(self):
        for seed in range(50):
            dialogue = corpus.make_dialogue("absent", corpus.seeded("absent", seed), "train", 2000)
            answerable = [sentence for sentence in re.split(r"(?<=\.) ", dialogue.document.replace("\n\n", " "))
                          if sentence.rstrip(".") in dialogue.turns[0].question]
            self.assertEqual(answerable, [])

    def test_depth_says_where_the_fact_lies(self):
        for depth in (0.0, 0.25, 0.5, 0.75, 1.0):
            for seed in range(10):
                dialogue = corpus.make_dialogue("single", corpus.seeded("depth", seed), "eval", 40_000, depth=depth)
                at = dialogue.document.lower().index(dialogue.turns[0].expect[0].lower()) / len(dialogue.document)
                # Closed sets (colours, jobs) may occur in the haystack too, earlier than the fact.
                if words.held_out(dialogue.turns[0].expect[0]):
                    self.assertAlmostEqual(at, depth, delta=0.06)

    def test_length_is_met(self):
        for characters in (2000, 20_000, 200_000):
            dialogue = corpus.make_dialogue("single", corpus.seeded("length"), "eval", characters)
            self.assertAlmostEqual(len(dialogue.document) / characters, 1, delta=0.4 if characters == 2000 else 0.05)

    def test_the_same_key_gives_the_same_sample(self):
        first = corpus.training_dialogue(corpus.seeded(1, 2, 3), 4000)
        self.assertEqual(first, corpus.training_dialogue(corpus.seeded(1, 2, 3), 4000))
        self.assertNotEqual(first, corpus.training_dialogue(corpus.seeded(1, 2, 4), 4000))

    def test_held_out_names_and_values_never_occur_in_training_facts(self):
        rng = random.Random(5)
        world = facts.World(rng, "train")
        for _ in range(2000):
            fact = world.fact()
            self.assertFalse(words.held_out(fact.entity))
            if fact.attribute.make not in words.CLOSED:
                self.assertFalse(words.held_out(fact.value))

    def test_a_fact_is_stated_once(self):
        world = facts.World(random.Random(6), "train")
        pairs = [(fact.entity.lower(), fact.attribute.name) for fact in (world.fact() for _ in range(2000))]
        self.assertEqual(len(pairs), len(set(pairs)))

    def test_haystacks_end_in_whole_sentences(self):
        for seed in range(20):
            source = haystack(random.Random(seed), "train")
            for _ in range(50):
                self.assertRegex(next(source), r"[.!?][\"'”’)]*$")


if __name__ == "__main__":
    unittest.main()
