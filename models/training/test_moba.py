"""MoBA in training against a loop over queries that follows kernels/moba.md line by line."""

import math

import pytest
import torch

from moba import block_scores, moba_attention, select, select_plain

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def tensors(length, heads, kv_heads, dim, seed, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda h: torch.randn(2, h, length, dim, generator=generator).to(dtype)
    return draw(heads), draw(kv_heads), draw(kv_heads)


def by_the_rules(q, k, v, block, top_k):
    """[B, H, S, D] f64 and the chosen blocks of every (b, h, t)."""
    out, chosen = torch.zeros(q.shape, dtype=torch.float64), {}
    share = q.shape[1] // k.shape[1]
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            keys, values = k[b, h // share], v[b, h // share].double()
            for t in range(q.shape[2]):
                current = t // block
                centroids = [keys[i * block:(i + 1) * block].float().mean(0).to(k.dtype) for i in range(current)]
                scores = [-(q[b, h, t].double() @ c.double()).item() for c in centroids]
                blocks = sorted(sorted(range(current), key=lambda i: (scores[i], i))[:top_k - 1] + [current])
                chosen[b, h, t] = blocks
                at = torch.tensor([j for i in blocks for j in range(i * block, min((i + 1) * block, t + 1))])
                weight = torch.softmax(keys[at].double() @ q[b, h, t].double() / math.sqrt(q.shape[3]), 0)
                out[b, h, t] = weight @ values[at]
    return out, chosen


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("length, block, top_k, heads, kv_heads", [
    (256, 32, 3, 4, 1), (256, 64, 2, 2, 2), (384, 128, 2, 8, 2), (256, 16, 1, 2, 1), (256, 32, 20, 2, 1)])
def test_follows_the_rules(device, length, block, top_k, heads, kv_heads):
    q, k, v = tensors(length, heads, kv_heads, 64, seed=length + block + top_k)
    want, chosen = by_the_rules(q, k, v, block, top_k)
    count = 16
    scores = block_scores(q.to(device), k.to(device), block, count)
    got = select(scores, block, top_k).cpu()
    for (b, h, t), blocks in chosen.items():
        assert got[b, h, t].nonzero().flatten().tolist() == blocks
    out = moba_attention(q.to(device), k.to(device), v.to(device), block, top_k, count).cpu().double()
    assert (out - want).norm() / want.norm() < 5e-3


def test_equal_scores_choose_the_lower_block():
    scores = torch.zeros(1, 1, 64, 8)
    chosen = select_plain(scores, 8, 3)
    assert chosen[0, 0, 63].nonzero().flatten().tolist() == [0, 1, 7]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_fast_path_has_the_plain_paths_gradients():
    q, k, v = (t.cuda().requires_grad_() for t in tensors(512, 4, 2, 64, seed=3))
    weight = torch.randn_like(q)
    (moba_attention(q, k, v, 64, 3, 16) * weight).sum().backward()
    fast = [t.grad.double().cpu() for t in (q, k, v)]
    q2, k2, v2 = (t.detach().cpu().float().requires_grad_() for t in (q, k, v))
    chosen = select_plain(block_scores(q.detach().cpu(), k.detach().cpu(), 64, 16), 64, 3)
    position = torch.arange(512)
    mask = chosen[..., position // 64] & (position[:, None] >= position)
    out = torch.nn.functional.scaled_dot_product_attention(q2, k2, v2, attn_mask=mask, enable_gqa=True)
    (out * weight.cpu().float()).sum().backward()
    for got, want in zip(fast, (q2.grad, k2.grad, v2.grad)):
        assert (got - want.double()).norm() / want.double().norm() < 2e-2
