"""The Llama architecture in PyTorch: what Mobius serves, written for training."""

import dataclasses
import json
import math

import torch
import torch.nn.functional as F
from torch import nn

from moba import moba_attention


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab: int = 5120
    hidden: int = 384
    layers: int = 6
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 128
    intermediate: int = 1024
    rope_theta: float = 500000.0
    eps: float = 1e-5
    context: int = 131072  # longest position that training has shown


@dataclasses.dataclass(frozen=True)
class Attention:
    """How the sparse layers attend; block 0 is full attention. The last `full_last` layers are always full."""
    block: int = 0
    top_k: int = 0
    full_last: int = 1
    blocks_at_most: int = 0


def rotate(x, cos, sin):
    """Hugging Face's RoPE: pairs (i, i + D / 2). x: [B, S, H, D]; cos and sin: [B, S, 1, D / 2] f32."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


class Layer(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        linear = lambda rows, cols: nn.Linear(cols, rows, bias=False)
        self.q_proj, self.k_proj, self.v_proj = linear(q, shape.hidden), linear(kv, shape.hidden), linear(kv, shape.hidden)
        self.o_proj = linear(shape.hidden, q)
        self.gate_proj = linear(shape.intermediate, shape.hidden)
        self.up_proj = linear(shape.intermediate, shape.hidden)
        self.down_proj = linear(shape.hidden, shape.intermediate)
        self.input_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden, eps=shape.eps)

    def project(self, x, cos, sin):
        batch, length, _ = x.shape
        h = self.input_layernorm(x)
        split = lambda y: y.view(batch, length, -1, self.shape.head_dim)
        q, k, v = rotate(split(self.q_proj(h)), cos, sin), rotate(split(self.k_proj(h)), cos, sin), split(self.v_proj(h))
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def finish(self, x, attended):
        batch, length, _ = x.shape
        x = x + self.o_proj(attended.transpose(1, 2).reshape(batch, length, -1))
        h = self.post_attention_layernorm(x)
        return x + self.down_proj(F.silu(self.gate_proj(h)) * self.up_proj(h))


class Llama(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.eps)
        self._initialize()

    def _initialize(self):
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                std = 0.02 if "embed" in name else 1 / math.sqrt(parameter.shape[1])
                if name.endswith(("o_proj.weight", "down_proj.weight")):
                    std /= math.sqrt(2 * self.shape.layers)
                nn.init.normal_(parameter, std=std)

    def compile(self):
        """Compiles what lies between the attentions, once for all lengths of the same number of tokens."""
        for layer in self.layers:
            layer.project = torch.compile(layer.project, dynamic=True)
            layer.finish = torch.compile(layer.finish, dynamic=True)

    def hidden(self, tokens, positions, attention):
        """[B, S, hidden] after the last norm. tokens, positions: [B, S] int64."""
        half = self.shape.head_dim // 2
        frequency = self.shape.rope_theta ** (-torch.arange(half, device=tokens.device, dtype=torch.float32) / half)
        angle = positions.float()[..., None, None] * frequency
        cos, sin = angle.cos(), angle.sin()
        x = self.embed_tokens(tokens)
        for i, layer in enumerate(self.layers):
            q, k, v = layer.project(x, cos, sin)
            if attention.block and i < self.shape.layers - attention.full_last:
                attended = moba_attention(q, k, v, attention.block, attention.top_k, attention.blocks_at_most)
            else:
                attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = layer.finish(x, attended)
        return self.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.embed_tokens.weight)


def hugging_face_config(shape):
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_act": "silu",
        "hidden_size": shape.hidden, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "intermediate_size": shape.intermediate,
        "vocab_size": shape.vocab, "rms_norm_eps": shape.eps, "rope_theta": shape.rope_theta, "rope_scaling": None,
        "max_position_embeddings": shape.context, "tie_word_embeddings": True, "attention_bias": False,
        "mlp_bias": False, "bos_token_id": shape.vocab - 256, "eos_token_id": [shape.vocab - 255, shape.vocab - 248, shape.vocab - 247],
        "initializer_range": 0.02, "pretraining_tp": 1, "use_cache": True,
    }


def hugging_face_tensors(model):
    """Names and bf16 tensors of a Hugging Face checkpoint; the tied output matrix is left out, as there."""
    tensors = {}
    for name, parameter in model.named_parameters():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2].endswith("_proj"):
            parts.insert(2, "self_attn" if parts[2][0] in "qkvo" else "mlp")
        tensors["model." + ".".join(parts)] = parameter.detach().to(torch.bfloat16).cpu().contiguous()
    return tensors


def save_hugging_face(model, folder):
    from safetensors.torch import save_file
    save_file(hugging_face_tensors(model), str(folder / "model.safetensors"), metadata={"format": "pt"})
    config = hugging_face_config(model.shape)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": config["bos_token_id"], "eos_token_id": config["eos_token_id"], "do_sample": False,
                  "temperature": 0.0, "_from_model_config": False}
    generation.pop("temperature")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")


def load_hugging_face(model, folder):
    from safetensors.torch import load_file
    tensors = load_file(str(folder / "model.safetensors"))
    named = dict(model.named_parameters())
    for name, tensor in hugging_face_tensors(model).items():
        own = name.removeprefix("model.").replace("self_attn.", "").replace("mlp.", "")
        assert tensor.shape == tensors[name].shape, name
        with torch.no_grad():
            named[own].copy_(tensors[name])
