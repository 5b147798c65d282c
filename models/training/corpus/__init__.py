"""The synthetic chat corpus that mobius-tiny learns from and is judged by. Standard library only."""

from .compose import make_dialogue, paragraphs, seeded, training_dialogue
from .dialogue import Dialogue, Turn, grade
from .talk import small_talk
from .tasks import EDGE_TASKS
from .tasks import TASKS as _PLANTING

#: Tasks that are evaluated, by name.
TASKS = (*_PLANTING, *EDGE_TASKS)

__all__ = ["TASKS", "Dialogue", "Turn", "grade", "make_dialogue", "paragraphs", "seeded", "small_talk",
           "training_dialogue"]
