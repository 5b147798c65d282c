"""Trains the byte-level BPE vocabulary of mobius-tiny and writes tokenizer.json and tokenizer_config.json.

Like Llama 3: its split pattern, every group of one to three digits is one token, 256 special tokens at the end.
"""

import argparse
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus

SPLIT_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
_NAMED = ["<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>",
          "<|finetune_right_pad_id|>", "<|reserved_special_token_2|>", "<|start_header_id|>", "<|end_header_id|>",
          "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"]
SPECIALS = _NAMED + [f"<|reserved_special_token_{i}|>" for i in range(3, 256 - len(_NAMED) + 3)]

#: What Llama 3.1 Instruct's template makes of plain conversations; tools are not this model's business.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% set first = messages[0] %}{% set system = first['content'] | trim if first['role'] == 'system' else '' %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n' + system + '<|eot_id|>' }}"
    "{% for message in messages %}{% if not (loop.first and message['role'] == 'system') %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}")


def _texts(seed, characters):
    """What the merges are counted on: dialogues, and the digits left out of them (they have tokens of their own)."""
    length = 0
    index = 0
    while length < characters:
        rng = corpus.seeded("tokenizer", seed, index)
        index += 1
        dialogue = corpus.small_talk(rng) if index % 50 == 0 else corpus.training_dialogue(rng, 6000)
        text = "\n".join([dialogue.document] + [f"{t.question}\n{t.answer}" for t in dialogue.turns])
        length += len(text)
        yield "".join(c for c in text if not c.isdigit())
    yield "system user assistant ipython\n\nCutting Knowledge Date: December\nToday Date: Jul\n\n" * 50


def train_tokenizer(vocab_size, seed, characters):
    digits = [f"{n:0{width}d}" for width in (2, 3) for n in range(10 ** width)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(SPECIALS) - len(digits), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(_texts(seed, characters), trainer)
    spec = json.loads(tokenizer.to_str())
    vocab = dict(sorted(spec["model"]["vocab"].items(), key=lambda item: item[1]))
    for token in digits:
        vocab[token] = len(vocab)
    merges = [" ".join(m) if isinstance(m, list) else m for m in spec["model"]["merges"]]
    merges += [f"{token[:-1]} {token[-1]}" for token in digits]
    first = len(vocab)
    assert first + len(SPECIALS) == vocab_size
    spec["model"] = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                     "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": True,
                     "vocab": vocab, "merges": merges}
    spec["added_tokens"] = [{"id": first + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
                             "normalized": False, "special": True} for i, name in enumerate(SPECIALS)]
    spec["decoder"] = json.loads(decoders.ByteLevel().__getstate__())
    begin = SPECIALS[0]
    spec["post_processor"] = {"type": "TemplateProcessing",
                              "single": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                              "pair": [{"SpecialToken": {"id": begin, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                                       {"SpecialToken": {"id": begin, "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
                              "special_tokens": {begin: {"id": begin, "ids": [first], "tokens": [begin]}}}
    return spec


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the model's folder")
    parser.add_argument("--vocab-size", type=int, default=5120)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--characters", type=int, default=12_000_000, help="text to count merges on")
    arguments = parser.parse_args()
    spec = train_tokenizer(arguments.vocab_size, arguments.seed, arguments.characters)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False, indent=0) + "\n")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": SPECIALS[0], "eos_token": "<|eot_id|>",
              "pad_token": "<|finetune_right_pad_id|>", "model_max_length": 131072, "clean_up_tokenization_spaces": False,
              "chat_template": CHAT_TEMPLATE}
    (arguments.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    print(f"{arguments.vocab_size} tokens in {arguments.out}/tokenizer.json")


if __name__ == "__main__":
    main()
