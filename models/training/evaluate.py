"""Held-out answers during training: is every token of an answer the most likely one, given the true tokens before it?

This is greedy decoding's exact match, without decoding. tests/quality asks the real server.
"""

import torch
import torch.nn.functional as F

import corpus
from chat import ANSWER, TEXT
from data import evaluation_sequence


class Evaluation:
    """Held-out sequences of one length, made once."""

    def __init__(self, chat, length, batch, sequences, turns, seed=1):
        rows = [(task, *evaluation_sequence(chat, task, seed, i, length, turns))
                for i in range(sequences) for task in corpus.TASKS]
        self.batches = [rows[i:i + batch] for i in range(0, len(rows), batch)]

    @torch.no_grad()
    def run(self, model, attention, device):
        """{"text_loss": nats per document token, "answers": {task: share of exactly right answers}}"""
        right, asked, text_loss, text_tokens = {}, {}, 0.0, 0.0
        for rows in self.batches:
            tokens = torch.stack([torch.from_numpy(t) for _, t, _ in rows]).to(device).long()
            weights = torch.stack([torch.from_numpy(w) for _, _, w in rows]).to(device)[:, 1:]
            positions = torch.arange(tokens.shape[1] - 1, device=device).expand(len(rows), -1)
            hidden = model.hidden(tokens[:, :-1], positions, attention)
            for i, (task, _, _) in enumerate(rows):
                logits = model.logits(hidden[i]).float()
                target, weight = tokens[i, 1:], weights[i]
                text = weight == TEXT
                text_loss += F.cross_entropy(logits[text], target[text], reduction="sum").item()
                text_tokens += text.sum().item()
                correct = logits.argmax(-1) == target
                answer = (weight == ANSWER).int()
                turn = torch.cumsum(F.pad(answer, (1, 0)).diff() == 1, 0)  # the answer's number, from 1
                count = int(turn.max())
                wrong = torch.zeros(count + 1, device=device).index_add_(0, turn, (~correct & (answer == 1)).float())
                right[task] = right.get(task, 0) + int((wrong[1:] == 0).sum())
                asked[task] = asked.get(task, 0) + count
        return {"text_loss": text_loss / text_tokens, "answers": {task: right[task] / asked[task] for task in right}}
