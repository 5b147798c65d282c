"""What is to be measured: attention modes, and the grid of tasks, lengths and depths."""

import hashlib
import itertools
from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """Attention of one phase; block and top_k belong to MoBA alone."""

    mode: str  # "full" or "moba"
    block: int | None = None
    top_k: int | None = None

    def as_json(self):
        if self.mode == "full":
            return {"mode": "full"}
        return {"mode": "moba", "block": self.block, "top_k": self.top_k}


@dataclass(frozen=True)
class Mode:
    """Attention of a request. No policies: whatever the server is configured to do."""

    prefill: Policy | None = None
    decode: Policy | None = None
    full_attention_last_layers: int | None = None

    @property
    def name(self):
        """E.g. "full:full", "moba:full 512/8", "server"."""
        if self.prefill is None:
            return "server"
        name = f"{self.prefill.mode}:{self.decode.mode}"
        if self.moba:
            name += f" {self.moba.block}/{self.moba.top_k}"
            if self.full_attention_last_layers is not None:
                name += f" last {self.full_attention_last_layers} full"
        return name

    @property
    def moba(self):
        """The MoBA policy in it, None where there is none."""
        return next((p for p in (self.prefill, self.decode) if p and p.mode == "moba"), None)

    @property
    def is_full(self):
        return self.prefill is not None and self.moba is None

    def extension(self):
        """The request's `mobius` object, None when the server's defaults are wanted."""
        if self.prefill is None:
            return None
        result = {"prefill": self.prefill.as_json(), "decode": self.decode.as_json()}
        if self.full_attention_last_layers is not None:
            result["full_attention_last_layers"] = self.full_attention_last_layers
        return result


def parse_block(text):
    """ "512/8" as (512, 8)."""
    block, _, top_k = text.partition("/")
    if not (block.isdecimal() and top_k.isdecimal() and int(block) > 0 and int(top_k) > 0):
        raise ValueError(f"block {text!r}: write BLOCK/TOP_K, such as 512/8")
    return int(block), int(top_k)


def parse_modes(modes, blocks, full_attention_last_layers=None):
    """The modes of a command line: PREFILL:DECODE each, those with MoBA once for each block size."""
    result = []
    for text in modes:
        if text == "server":
            result.append(Mode())
            continue
        phases = text.split(":")
        if len(phases) != 2 or any(phase not in ("full", "moba") for phase in phases):
            raise ValueError(f"mode {text!r}: write PREFILL:DECODE, each full or moba, or \"server\"")
        if "moba" not in phases:
            result.append(Mode(Policy("full"), Policy("full")))
            continue
        if not blocks:
            raise ValueError(f"mode {text!r} needs block sizes")
        for block, top_k in blocks:
            policies = [Policy(p, block, top_k) if p == "moba" else Policy("full") for p in phases]
            result.append(Mode(*policies, full_attention_last_layers))
    if len(set(result)) != len(result):
        raise ValueError("a mode is named twice")
    return result


def parse_lengths(text):
    """ "4096,8192,131072": tokens, rising."""
    lengths = [int(part) if part.isdecimal() else 0 for part in text.split(",")]
    if any(length < 256 for length in lengths) or sorted(set(lengths)) != lengths:
        raise ValueError(f"lengths {text!r}: must be whole numbers of at least 256, rising")
    return lengths


def depths_of(count):
    """`count` depths spread evenly over the document, its beginning and end included."""
    if count < 1:
        raise ValueError(f"depths {count}: must be at least 1")
    return [round(i / (count - 1), 4) for i in range(count)] if count > 1 else [0.5]


@dataclass(frozen=True)
class DocumentKey:
    """Names one document with its questions; all modes are asked the same ones."""

    task: str
    length: int  # tokens aimed at
    depth: float
    sample: int

    def __str__(self):
        return f"{self.task}/{self.length}/{self.depth:g}/{self.sample}"

    def seed(self, base):
        """Follows from the key and the run's seed, the same on every machine."""
        digest = hashlib.sha256(f"{base}/{self}".encode()).digest()
        return int.from_bytes(digest[:8], "big")


def grid(tasks, lengths, depths, samples):
    """All documents. Samples vary slowest: a run that is cut short has covered the whole grid."""
    for sample, length, task, depth in itertools.product(range(samples), lengths, tasks, depths):
        yield DocumentKey(task, length, depth, sample)
