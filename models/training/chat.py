"""Dialogues as token ids and loss weights, in Llama 3.1's chat format."""

import pathlib

import numpy as np
from tokenizers import Tokenizer

#: Loss weights: what is asked of the model counts fully, text that it merely reads counts little.
ANSWER, TEXT, NONE = 1.0, 0.1, 0.0
_SYSTEM = "\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"


class Chat:
    def __init__(self, tokenizer_file):
        # The post-processor would add a begin-of-text to every piece: pieces are encoded without it.
        self.tokenizer = Tokenizer.from_file(str(pathlib.Path(tokenizer_file)))
        special = self.tokenizer.token_to_id
        self.begin, self.end_of_turn = special("<|begin_of_text|>"), special("<|eot_id|>")
        self.start_header, self.end_header = special("<|start_header_id|>"), special("<|end_header_id|>")
        self.pad = special("<|finetune_right_pad_id|>")
        self.break_ids = self.encode("\n\n")
        self.roles = {role: [self.start_header, *self.encode(role), self.end_header] for role in ("system", "user", "assistant")}
        self.opening = [self.begin, *self.roles["system"], *self.encode(_SYSTEM), self.end_of_turn]

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def _encode_all(self, texts):
        return [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]

    def render(self, dialogue, limit):
        """(ids, weights) of at most `limit` tokens: turns that do not fit are left off. None where not even the first,
        and the document with it, fits.

        The ids equal those of the whole text: no piece of the split pattern reaches over the end of a paragraph.
        """
        turns = dialogue.turns
        paragraphs = dialogue.document.split("\n\n") if dialogue.document else []
        pieces = self._encode_all([p + "\n\n" for p in paragraphs] + [t.question for t in turns] + [t.answer for t in turns])
        document = [i for piece in pieces[:len(paragraphs)] for i in piece]
        questions, answers = pieces[len(paragraphs):len(paragraphs) + len(turns)], pieces[len(paragraphs) + len(turns):]
        ids, weights = list(self.opening), [NONE] * len(self.opening)

        def add(new, weight):
            ids.extend(new)
            weights.extend([weight] * len(new))

        for i, (question, answer) in enumerate(zip(questions, answers)):
            user = [*self.roles["user"], *self.break_ids, *(document if i == 0 else []), *question, self.end_of_turn]
            reply = [*self.roles["assistant"], *self.break_ids, *answer, self.end_of_turn]
            if len(ids) + len(user) + len(reply) > limit:
                break
            add(user, TEXT)
            add(reply[:-len(answer) - 1], NONE)
            add([*answer, self.end_of_turn], ANSWER)
        if len(ids) == len(self.opening):
            return None
        return np.array(ids, np.int32), np.array(weights, np.float32)
