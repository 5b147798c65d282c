"""Sentences made by rules, so that a few hundred parts give more forms than any model can learn by heart."""

import re

_PART = re.compile(r"<(\w+)>|\{(\w+)\}")


class Grammar:
    """Rules are dictionaries of {name: "one alternative|another|..."}. In an alternative, <name> stands for what that rule makes and
    {name} for a field of the caller's. `held_out` has alternatives of the same kind that only evaluation sees, in `SHARE`
    of the places where it has any. `makers` are rules that are functions of (rng, split)."""

    SHARE = 0.4

    def __init__(self, rules, held_out=None, makers=None):
        self._rules = {}
        for name, text in (rule for some in rules for rule in some.items()):
            if name in self._rules:
                raise ValueError(f"two rules are named {name}")
            self._rules[name] = [_parse(one) for one in _alternatives(text)]
        self._held_out = {name: [_parse(one) for one in _alternatives(text)] for name, text in (held_out or {}).items()}
        self._makers = makers or {}
        known = {*self._rules, *self._makers}
        for name, alternatives in [*self._rules.items(), *self._held_out.items()]:
            for alternative in alternatives:
                for kind, text in alternative:
                    if kind == "rule" and text not in known:
                        raise ValueError(f"{name}: there is no rule <{text}>")

    def texts(self, split):
        """The rules' own words, without fields and rules: what the split's alternatives are made of."""
        rules = self._rules if split == "train" else self._held_out
        return [[text for kind, text in one if kind == "text"] for alternatives in rules.values() for one in alternatives]

    def make(self, rng, split, rule, **fields):
        pieces = []
        self._expand(rng, split, rule, fields, pieces)
        return "".join(pieces)

    def fill(self, rng, split, template, **fields):
        """The same for a template of the caller's, which is in no rule."""
        pieces = []
        self._walk(rng, split, _parse(template), fields, pieces)
        return "".join(pieces)

    def _expand(self, rng, split, rule, fields, pieces):
        maker = self._makers.get(rule)
        if maker:
            pieces.append(maker(rng, split))
            return
        held_out = self._held_out.get(rule) if split == "eval" else None
        chosen = held_out if held_out and rng.random() < self.SHARE else self._rules[rule]
        self._walk(rng, split, chosen[int(rng.random() * len(chosen))], fields, pieces)

    def _walk(self, rng, split, parts, fields, pieces):
        for kind, text in parts:
            if kind == "text":
                pieces.append(text)
            elif kind == "field":
                pieces.append(fields[text])
            else:
                self._expand(rng, split, text, fields, pieces)


def _alternatives(text):
    """Split at |, before which a new line may begin; "2*" before an alternative counts it twice."""
    result = []
    for one in re.sub(r"\n\s*", "", text).split("|"):
        times = re.match(r"(\d+)\*", one)
        result += [one[times.end():] if times else one] * (int(times.group(1)) if times else 1)
    return result


_parsed = {}


def _parse(text):
    if text not in _parsed:
        parts, at = [], 0
        for match in _PART.finditer(text):
            if match.start() > at:
                parts.append(("text", text[at:match.start()]))
            parts.append(("rule", match.group(1)) if match.group(1) else ("field", match.group(2)))
            at = match.end()
        if at < len(text):
            parts.append(("text", text[at:]))
        _parsed[text] = tuple(parts)
    return _parsed[text]
