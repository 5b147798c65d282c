"""The corpus: answers are right, nothing held out leaks into training, the same key gives the same sample."""

import os
import random
import re
import tempfile
import unittest
from unittest import mock

import corpus
from corpus import facts, relations, tasks, values, words, wordings
from corpus.grammar import Grammar
from corpus.prose import BOOK_VARIABLE, book_sentences, haystack


def words_of(text):
    """Lower-case words of a text or a template, without fields and rules."""
    return set(re.findall(r"[a-z]+", re.sub(r"{\w+}|<\w+>", "", text.lower())))


class Recorded:
    """What a dialogue states and asks of, as (entity, attribute)."""

    def __init__(self):
        self.stated, self.asked = [], []
        self._record("state", self.stated, lambda rng, split, fact: (fact.entity, fact.attribute.name))
        self._record("ask", self.asked, lambda rng, split, entity, attribute: (entity, attribute.name))
        # What a verb says may be said by its noun, through the two above: the outer one counts.
        self._record("state_said", self.stated, lambda rng, split, said: (said.subject, said.relation.key))
        self._record("ask_said", self.asked, lambda rng, split, said: (said.subject, said.relation.key))

    def _record(self, name, record, pair_of):
        true = getattr(facts, name)

        def recording(*arguments):
            kept = len(record)
            result = true(*arguments)
            record[kept:] = [pair_of(*arguments)]
            return result
        self._patches = [*getattr(self, "_patches", []), mock.patch.object(facts, name, recording)]

    def __enter__(self):
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *_):
        for patch in reversed(self._patches):
            patch.stop()


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
        for task in ("single", "multi_key", "relation", "multi_value", "multi_query", "copy", "first_sentence", "last_sentence"):
            for seed in range(20):
                dialogue = corpus.make_dialogue(task, corpus.seeded("holds", task, seed), "eval", 3000)
                for turn in dialogue.turns:
                    for want in turn.expect:
                        self.assertIn(want.lower(), dialogue.document.replace("\n\n", " ").lower())

    def test_what_is_absent_is_absent(self):
        for split in ("train", "eval"):
            for seed in range(150):
                rng = corpus.seeded("absent", seed)
                world = facts.World(rng, split)
                with Recorded() as facts_of:
                    planted = tasks.absent(rng, split, world, None)
                    if not planted.turns:
                        continue
                    entity, attribute = facts_of.asked[-1]
                    # What comes into the document later leaves it absent.
                    for task in (tasks.single, tasks.multi_key, tasks.relation) * 5:
                        task(rng, split, world, None)
                self.assertEqual(planted.turns[0].answer, tasks.ABSENT)
                self.assertNotIn((entity, attribute), facts_of.stated)
                if not entity:
                    self.assertNotIn(attribute, [stated for _, stated in facts_of.stated])

    def test_no_two_facts_answer_one_question(self):
        for task in ("single", "multi_key", "relation", "multi_query", "absent"):
            for seed in range(40):
                with Recorded() as facts_of:
                    corpus.make_dialogue(task, corpus.seeded("once", seed), "eval", 500, turns=4)
                self.assertEqual(len(facts_of.stated), len(set(facts_of.stated)), facts_of.stated)

    def test_every_answer_is_in_its_training_document(self):
        for seed in range(40):
            dialogue = corpus.training_dialogue(corpus.seeded("found", seed), 6000)
            text = dialogue.document.replace("\n\n", " ").lower()
            self.assertGreater(len(dialogue.turns), 0)
            for turn in dialogue.turns:
                if turn.answer == tasks.ABSENT or turn.answer.startswith("The most frequent"):
                    continue
                for want in turn.expect:
                    self.assertIn(want.lower(), text, turn)
                self.assertEqual(corpus.grade(turn, turn.answer), 1, turn)

    def test_what_is_to_be_repeated_begins_like_nothing_else(self):
        for seed in range(20):
            dialogue = corpus.training_dialogue(corpus.seeded("quoted", seed), 8000)
            for turn in dialogue.turns:
                start = re.search(r'"(.+?)(?:\.\.\.)?"( |\.)', turn.question)
                if start and "paragraph" not in turn.question and turn.answer.startswith(start.group(1)):
                    found = re.findall(rf"(?:^|[.!?][\"'”’)]* |\n){re.escape(start.group(1))}(?= )", dialogue.document)
                    self.assertLessEqual(len(found), 1, turn)

    def test_longer_documents_have_more_to_repeat(self):
        def quoted(characters):
            return sum(turn.question.startswith(("Repeat the", "Copy the", "How does the sentence", "Quote the"))
                       for seed in range(15) for turn in corpus.training_dialogue(corpus.seeded("more", seed), characters).turns)
        self.assertGreater(quoted(40_000), 4 * quoted(4000))

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
            if fact.attribute.make not in values.CLOSED:
                self.assertFalse(words.held_out(fact.value))

    def test_held_out_wordings_are_in_no_rule_of_training(self):
        held_out = set(wordings.HELD_OUT_WORDS)
        trained = set().union(*(words_of(text) for pieces in wordings.GRAMMAR.texts("train") for text in pieces))
        self.assertEqual(trained & held_out, set())
        self.assertEqual((set(facts.FREE_WORDS) | set(facts._WANTS)) & held_out, set())
        # And every one of them is told by such a word, or by a phrase.
        for rule, text in wordings.HELD_OUT.items():
            for one in text.split("|"):
                said = f" {' '.join(re.findall('[a-z]+', re.sub(r'{.}', ' ', one.lower())))} "
                self.assertTrue(words_of(one) & held_out or any(f" {phrase} " in said for phrase in wordings.HELD_OUT_PHRASES), (rule, one))

    def test_held_out_wordings_are_in_no_training_sentence(self):
        rng = random.Random(8)
        world = facts.World(rng, "train")
        for _ in range(4000):
            fact, said = world.fact(owned=False), world.said()
            # Without what is drawn at random between the parts: there, any words may meet.
            with mock.patch.object(facts, "_free_statement", lambda *_: ""), mock.patch.object(facts, "_free_question", lambda *_: ""):
                text = " ".join((facts.state(rng, "train", fact), facts.ask(rng, "train", fact.entity, fact.attribute),
                                 facts.state_said(rng, "train", said), *facts.ask_said(rng, "train", said)))
            plain = f" {' '.join(re.findall(r'[a-z]+', text.lower()))} "
            for phrase in (*wordings.HELD_OUT_WORDS, *wordings.HELD_OUT_PHRASES):
                self.assertNotIn(f" {phrase} ", plain, text)

    def test_held_out_relations_and_their_wordings_are_told_by_words_that_training_has_not(self):
        forms = lambda relation, split: relation.says[split] + relation.asks[split]
        trained = set().union(*(words_of(form) for relation in relations.RELATIONS["train"] for form in forms(relation, "train")))
        trained |= set().union(*(words_of(text) for pieces in wordings.GRAMMAR.texts("train") for text in pieces))
        for relation in relations.RELATIONS["train"]:
            for form in forms(relation, "eval"):
                self.assertTrue(words_of(form) - trained, (relation.name, form))
        for relation in relations.RELATIONS["eval"]:
            self.assertTrue(words_of(relation.answer) - trained, relation.name)
        rng = random.Random(9)
        self.assertFalse(any(relations.draw_relation(rng, "train").held_out for _ in range(500)))
        self.assertTrue(any(relations.draw_relation(rng, "eval").held_out for _ in range(500)))

    def test_one_fact_has_thousands_of_wordings(self):
        rng = random.Random(10)
        world = facts.World(rng, "train")
        fact = world.fact()
        self.assertGreater(len({facts.state(rng, "train", fact) for _ in range(3000)}), 2500)
        self.assertGreater(len({facts.ask(rng, "train", fact.entity, fact.attribute) for _ in range(3000)}), 1800)

    def test_a_grammar_draws_held_out_parts_in_evaluation_alone(self):
        grammar = Grammar(({"greeting": "<hail> {who}|3*good <hail>, {who}", "hail": "day|morning"},), {"hail": "eve"},
                          {"unused": lambda rng, split: split})
        rng = random.Random(11)
        made = {split: [grammar.make(rng, split, "greeting", who="Ann") for _ in range(400)] for split in ("train", "eval")}
        self.assertEqual(set(made["train"]), {"day Ann", "morning Ann", "good day, Ann", "good morning, Ann"})
        self.assertEqual(set(made["eval"]) - set(made["train"]), {"eve Ann", "good eve, Ann"})
        self.assertAlmostEqual(sum("eve" in one for one in made["eval"]) / 400, grammar.SHARE, delta=0.1)
        self.assertGreater(sum("good" in one for one in made["train"]), 200)
        self.assertEqual(grammar.fill(rng, "train", "{who}: <unused>", who="Ann"), "Ann: train")

    def test_a_grammar_without_one_of_its_rules_is_refused(self):
        with self.assertRaisesRegex(ValueError, "no rule <b>"):
            Grammar(({"a": "x <b>"},))
        with self.assertRaisesRegex(ValueError, "two rules"):
            Grammar(({"a": "x"}, {"a": "y"}))

    def test_relations_answer_in_one_form_with_the_value(self):
        rng = random.Random(12)
        for split in ("train", "eval"):
            world = facts.World(rng, split)
            for relation in relations.RELATIONS[split]:
                for _ in range(20):
                    said = world.said(relation)
                    for text in (facts.state_said(rng, split, said), said.answer()):
                        self.assertIn(said.subject.lower(), text.lower())
                        self.assertIn(said.value.lower(), text.lower())
                    self.assertNotIn(said.value.lower(), facts.ask_said(rng, split, said)[0].lower().replace("an hour", ""))

    def test_a_title_does_not_hide_a_held_out_name(self):
        self.assertEqual(words.held_out("Dr. Ann Miller"), words.held_out("Ann Miller"))
        self.assertEqual(words.held_out("Captain Ann Miller"), words.held_out("Ann Miller"))

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
