"""What a sample is: a document and questions about it, with what a right answer contains."""

from dataclasses import dataclass, field


@dataclass
class Turn:
    question: str
    answer: str                  # what the model is taught to say
    expect: list = field(default_factory=list)  # what a right answer contains, whatever else it says


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
    """The share of the expected strings that occur in the answer, without regard to case."""
    found = text.lower()
    return sum(want.lower() in found for want in turn.expect) / len(turn.expect)
