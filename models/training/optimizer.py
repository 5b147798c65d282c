"""Muon for the matrices between embeddings, AdamW for everything else.

Muon: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024). The momentum of a matrix is
orthogonalized by five Newton-Schulz steps; matrices of one shape go through them as one batch. The update is scaled
to AdamW's size (0.2 sqrt(max(rows, columns)), Liu et al., "Muon is scalable for LLM training", 2025), so both
share one learning rate.
"""

import math

import torch


def _orthogonalize(batch):
    """batch: [n, rows, columns] bf16 with rows <= columns."""
    x = batch / (batch.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


class Optimizer:
    def __init__(self, model, weight_decay=0.05, momentum=0.95):
        hidden = [(n, p) for n, p in model.named_parameters() if p.dim() == 2 and "embed" not in n]
        others = [p for n, p in model.named_parameters() if p.dim() != 2 or "embed" in n]
        self.groups = {}
        for _, parameter in hidden:
            self.groups.setdefault(tuple(parameter.shape), []).append(parameter)
        self.momenta = {shape: torch.zeros(len(group), *shape, device=group[0].device)
                        for shape, group in self.groups.items()}
        self.adamw = torch.optim.AdamW(others, lr=0.0, betas=(0.9, 0.95), eps=1e-10, weight_decay=0.0)
        self.weight_decay, self.momentum = weight_decay, momentum

    @torch.no_grad()
    def step(self, rate):
        for group in self.adamw.param_groups:
            group["lr"] = rate
        self.adamw.step()
        for shape, group in self.groups.items():
            gradient = torch.stack([p.grad for p in group]).float()
            moment = self.momenta[shape]
            moment.lerp_(gradient, 1 - self.momentum)
            update = gradient.lerp(moment, self.momentum).bfloat16()
            tall = shape[0] > shape[1]
            update = _orthogonalize(update.mT if tall else update)
            update = (update.mT if tall else update).float() * (0.2 * math.sqrt(max(shape)))
            torch._foreach_mul_(group, 1 - rate * self.weight_decay)
            torch._foreach_sub_(group, list((update * rate).unbind()))

    def zero_grad(self):
        self.adamw.zero_grad(set_to_none=True)
        for group in self.groups.values():
            for parameter in group:
                parameter.grad = None

    def state(self):
        return {"adamw": self.adamw.state_dict(), "momenta": self.momenta}

    def load_state(self, state):
        self.adamw.load_state_dict(state["adamw"])
        for shape, moment in state["momenta"].items():
            self.momenta[shape].copy_(moment)
