"""MoBA attention for training, by the rules of kernels/moba.md.

Selection has no gradient and needs none: the blocks are chosen without grad, then attention runs under that mask.
On a GPU the choice is a Triton kernel and attention is FlexAttention, which skips tiles that no query chose; on a
CPU both are written out plainly.
"""

import functools
import math

import torch
import torch.nn.functional as F

try:
    import triton
    import triton.language as tl
except ImportError:  # a CPU-only installation
    triton = None

TILE = 128  # FlexAttention's granularity


def block_scores(q, k, block, count):
    """[B, Hq, S, count] f32 scores of each query against the centroid of every block; `count` >= blocks, padded.

    q: [B, Hq, S, D], k: [B, Hkv, S, D], both after RoPE and in the compute type. Centroids are the mean in f32,
    rounded once to k's type (rule 2); the product of bf16 values is exact in f32 (rule 3).
    """
    batch, heads, length, dim = q.shape
    groups = k.shape[1]
    complete = length // block
    centroids = torch.zeros(batch, groups, count, dim, dtype=torch.float32, device=k.device)
    means = k[:, :, :complete * block].float().view(batch, groups, complete, block, dim).mean(3)
    centroids[:, :, :complete] = means.to(k.dtype).float()
    grouped = q.float().reshape(batch, groups, heads // groups * length, dim)
    return (grouped @ centroids.transpose(-1, -2)).view(batch, heads, length, count)


def select_plain(scores, block, top_k):
    """[B, H, S, count] bool: the current block, and the top_k - 1 best complete blocks before it (rules 4 and 5).

    Ties go to the lower block index: the sort is stable.
    """
    length, count = scores.shape[2:]
    current = torch.arange(length, device=scores.device) // block
    index = torch.arange(count, device=scores.device)
    candidate = index < current[:, None]
    ranked = torch.sort(scores.masked_fill(~candidate, -math.inf), dim=-1, descending=True, stable=True).indices
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen.scatter_(-1, ranked[..., :top_k - 1], True)
    return chosen & candidate | (index == current[:, None])


if triton is not None:
    @triton.jit
    def _select_kernel(scores, chosen, rows, length, block, history, COUNT: tl.constexpr, ROWS: tl.constexpr):
        row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
        index = tl.arange(0, COUNT)
        at = row.to(tl.int64)[:, None] * COUNT + index[None, :]
        inside = (row < rows)[:, None]
        current = (row % length) // block
        left = tl.load(scores + at, mask=inside, other=0.0)
        left = tl.where(index[None, :] < current[:, None], left, float("-inf"))
        result = index[None, :] == current[:, None]
        for _ in range(history):
            best = tl.argmax(left, axis=1, tie_break_left=True)
            taken = (index[None, :] == best[:, None]) & (left > float("-inf"))
            result = result | taken
            left = tl.where(taken, float("-inf"), left)
        tl.store(chosen + at, result.to(tl.int8), mask=inside)


def select(scores, block, top_k):
    """select_plain, on a GPU as one kernel."""
    if not scores.is_cuda:
        return select_plain(scores, block, top_k)
    batch, heads, length, count = scores.shape
    chosen = torch.empty(scores.shape, dtype=torch.int8, device=scores.device)
    rows = batch * heads * length
    per_program = max(1, 2048 // count)
    _select_kernel[(triton.cdiv(rows, per_program),)](scores, chosen, rows, length, block, top_k - 1, COUNT=count,
                                                      ROWS=per_program)
    return chosen.view(torch.bool)


def masked_attention(q, k, v, mask):
    """softmax(q k^T / sqrt(D)) v where mask [B, Hq, S, S] holds: the plain path."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)


@functools.cache
def _flex():
    from torch.nn.attention.flex_attention import flex_attention
    # One version for every length and for training and evaluation; past the limit it would silently run unfused.
    torch._dynamo.config.recompile_limit = 64
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(flex_attention, dynamic=False)


def _block_mask(chosen, block, shift):
    """FlexAttention's tiles in which at least one query chose a key."""
    from torch.nn.attention.flex_attention import BlockMask
    batch, heads, length, count = chosen.shape
    tiles = length // TILE
    any_query = chosen.view(batch, heads, tiles, TILE, count).any(3)
    if block >= TILE:
        tile_chosen = any_query.repeat_interleave(block // TILE, -1)[..., :tiles]
    else:
        tile_chosen = any_query[..., :length // block].view(batch, heads, tiles, tiles, TILE // block).any(-1)
    index = torch.arange(tiles, device=chosen.device)
    tile_chosen = tile_chosen & (index <= index[:, None])
    number = tile_chosen.sum(-1, dtype=torch.int32)
    order = torch.argsort(tile_chosen.int(), dim=-1, descending=True, stable=True).to(torch.int32)

    def keep(b, h, query, key):
        return chosen[b, h, query, key >> shift] & (query >= key)

    return BlockMask.from_kv_blocks(number, order, BLOCK_SIZE=TILE, mask_mod=keep, seq_lengths=(length, length))


def moba_attention(q, k, v, block, top_k, blocks_at_most):
    """[B, Hq, S, D]: every query attends to the blocks it chooses, causally.

    block: a power of two. blocks_at_most: the number of blocks at the smallest block size in use at this length, so
    that compiled code fits every size. Differentiable in q, k and v.
    """
    # Without autocast: scores stay f32 (rule 3).
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        chosen = select(block_scores(q, k, block, blocks_at_most), block, top_k)
        if not q.is_cuda:
            position = torch.arange(q.shape[2], device=q.device)
            mask = chosen[..., position // block] & (position[:, None] >= position)
        else:
            shift = torch.tensor(block.bit_length() - 1, dtype=torch.int32, device=q.device)
            tiles = _block_mask(chosen, block, shift)
    if not q.is_cuda:
        return masked_attention(q, k, v, mask)
    return _flex()(q, k, v, block_mask=tiles, enable_gqa=True)
