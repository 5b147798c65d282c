"""The corpus: answers are right, nothing held out leaks into training, the same key gives the same sample."""

import os
import random
import re
import tempfile
import unittest

import corpus
from corpus import facts, words
from corpus.prose import BOOK_VARIABLE, book_sentences, haystack


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
                        self.assertEqual(corpus.grade(turn, "???"), 0.0, (task, turn))

    def test_the_document_holds_what_is_asked_for(self):
        for task in ("single", "multi_key", "multi_value", "multi_query", "copy", "first_sentence", "last_sentence"):
            for seed in range(20):
                dialogue = corpus.make_dialogue(task, corpus.seeded("holds", task, seed), "eval", 3000)
                for turn in dialogue.turns:
                    for want in turn.expect:
                        self.assertIn(want.lower(), dialogue.document.replace("\n\n", " ").lower())

    def test_what_is_absent_is_absent(self):
        def answers(sentence, question):
            """Whether all words of a question that carry meaning occur in one sentence."""
            asked = set(re.findall(r"\w+", question.lower())) - functional
            # One word alone, such as "week", may stand anywhere.
            return len(asked) > 1 and asked <= set(re.findall(r"\w+", sentence.lower()))

        # What every question shares, learned from two that have nothing else in common.
        functional = set(" ".join(facts._ASKING["eval"] + facts._ASKING["train"] + facts._QUESTIONS["eval"] + facts._QUESTIONS["train"] +
                                  facts._ASK_OWNERLESS["eval"] + facts._ASK_OWNERLESS["train"] + facts._WHO["eval"] + facts._WHO["train"])
                         .lower().replace("{a}", "").replace("{e}", "").replace("{es}", "").replace("?", " ").replace(".", " ")
                         .replace(",", " ").replace(":", " ").replace("'", " ").split()) | {"s"}
        self.assertTrue(answers("The gate code of the red mill is 4417.", "What is the gate code of the red mill?"))
        for seed in range(200):
            dialogue = corpus.make_dialogue("absent", corpus.seeded("absent", seed), "eval", 2000)
            for sentence in re.split(r"(?<=\.) ", dialogue.document.replace("\n\n", " ")):
                self.assertFalse(answers(sentence, dialogue.turns[0].question), (sentence, dialogue.turns[0].question))

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
            fact = world.fact(owned=False)
            self.assertFalse(fact.entity and words.held_out(fact.entity))
            if fact.attribute.make not in words.CLOSED:
                self.assertFalse(words.held_out(fact.value))

    def test_words_of_held_out_wordings_are_not_in_the_free_ones(self):
        of = lambda parts, split: {word for text in parts[split] for word in re.findall(r"[a-z]+", re.sub(r"{\w+}", "", text))}
        every = (facts._OPENERS, facts._CORES, facts._CLOSERS, facts._OWNERLESS, facts._ASKING, facts._QUESTIONS, facts._ASK_OWNERLESS)
        known = set().union(*(of(parts, "train") for parts in every))
        for parts, free in ((facts._CORES, facts._LINKS), (facts._OWNERLESS, facts._LINKS), (facts._QUESTIONS, facts._WANTS),
                            (facts._ASK_OWNERLESS, facts._WANTS)):
            self.assertEqual((of(parts, "eval") - known) & set(free), set())

    def test_held_out_names_are_not_in_training_documents(self):
        text = " ".join(corpus.training_dialogue(corpus.seeded("leak", seed), 8000).document for seed in range(20))
        for first in words.FIRST_NAMES:
            for last in words.LAST_NAMES:
                if words.held_out(f"{first} {last}"):
                    self.assertNotIn(f"{first} {last}", text)

    def test_naming_every_variable_is_no_answer(self):
        turn = corpus.make_dialogue("variable_tracking", corpus.seeded("decoys"), "eval", 500).turns[0]
        self.assertEqual(corpus.grade(turn, " ".join(turn.expect)), 1)
        self.assertEqual(corpus.grade(turn, " ".join(turn.expect + turn.decoys)), 0)

    def test_a_book_without_its_first_chapter_is_refused(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("Some header\n\nAnother text.\n*** END OF THIS\n")
            file.flush()
            os.environ[BOOK_VARIABLE] = file.name
            with self.assertRaisesRegex(ValueError, "first chapter"):
                next(haystack(random.Random(2), "train"))

    def test_a_book_is_read_without_what_surrounds_it(self):
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("The licence of the text.\n\nCHAPTER I\n\n“Well, Prince, so that is that. And more of it came later on.”\n\n"
                       + "A line of the novel it is.\n\n" * 30 + "End of the Project Gutenberg EBook\n*** END OF THIS\nMore licence text.\n")
            file.flush()
            os.environ[BOOK_VARIABLE] = file.name
            read = " ".join(book_sentences("train") + book_sentences("eval"))
            self.assertIn("Prince", read)
            self.assertIn("of the novel", read)
            for outside in ("licence", "CHAPTER", "Gutenberg"):
                self.assertNotIn(outside, read)

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
