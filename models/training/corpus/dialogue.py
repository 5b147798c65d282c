"""What a sample is: a document and questions about it, with what a right answer contains."""

import re
from dataclasses import dataclass, field


@dataclass
class Turn:
    question: str
    answer: str                  # what the model is taught to say
    expect: list = field(default_factory=list)  # what a right answer contains, whatever else it says
    decoys: list = field(default_factory=list)  # and what it must not: each one named cancels one that is right


@dataclass
class Dialogue:
    task: str
    document: str
    turns: list

    def first_message(self):
        """The user's first message: the document, then the first question."""
        question = self.turns[0].question
        return f"{self.document}\n\n{question}" if self.document else question


def grade(turn, text):
    """The share of the expected strings that occur in the answer as whole words, without regard to case."""
    def said(want):
        return re.search(rf"(?<!\w){re.escape(want)}(?!\w)", text, re.IGNORECASE) is not None

    right = sum(map(said, turn.expect)) - sum(map(said, turn.decoys))
    return max(0, right) / len(turn.expect)
