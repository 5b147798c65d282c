#!/usr/bin/env python3
"""Writes llama3_chat.json beside this script: conversations through the official chat template of Llama 3.1.

usage: make_chat_golden.py FOLDER    (of Llama 3.1's tokenizer.json and tokenizer_config.json; needs
                                      `pip install jinja2 tokenizers`)

The template is read from tokenizer_config.json and run in Jinja as transformers' apply_chat_template sets
it up. Tool definitions and arguments are kept as JSON text, so that the spelling of their numbers is tested.
"""

import json
import pathlib
import sys

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

WEATHER = """{"type": "function", "function": {"name": "get_weather", "description": "The weather of a city",
 "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "e.g. Zürich, 東京"},
 "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 3}}, "required": ["city"]}}}"""
BARE = """{"name":"add","description":"Adds a & b <\\u00e9> \\"quoted\\"","parameters":{"type":"object","properties":{}}}"""
NUMBERS = """{"name": "n", "a": 1.0, "b": 1e5, "c": -0.0, "d": 1e-7, "e": 123456789012345678901234567890, "f": 1e16,
 "g": 0.0001, "h": 0.00001234, "i": -0, "j": 1.5e300, "k": 100000000000000000.5, "l": 12345678.9, "m": 9007199254740993,
 "n2": 5e-324, "o": 0.1, "p": 1E+2, "q": -17, "r": 18446744073709551615}"""
SHAPES = """{"name": "s", "empty": {}, "none": [], "deep": [[1, [2, {"x": [null, true, false]}]]],
 "text": "tab\\t nl\\n cr\\r bell\\u0007 del\\u007f nul\\u0000 slash\\/ back\\\\ \\ud83d\\ude42 \\u2028",
 "twice": 1, "between": 2, "twice": 3}"""


def system(content):
    return {"role": "system", "content": content}


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


def call(name, arguments):
    return {"role": "assistant", "content": "", "tool_calls": [{"name": name, "arguments": arguments}]}


def tool(content):
    return {"role": "tool", "content": content}


CASES = [
    ("user", [user("Hello")], {}),
    ("system and user", [system("You are terse."), user("What is 2+2?")], {}),
    ("system alone", [system("Only me.")], {}),
    ("turns", [user("Hi"), assistant("Hello! How can I help?"), user("Tell me a joke."), assistant("No."), user("Why?")], {}),
    ("no generation prompt", [user("Hi"), assistant("Hello.")], {"add_generation_prompt": False}),
    ("date", [user("What day is it?")], {"date_string": "01 Jan 2031"}),
    ("empty contents", [system(""), user(""), assistant(""), user("x")], {}),
    ("outer white space", [system("  \n keep  inner \n"), user("\t\n question?\r\n\r\n"), assistant(" \n\n a ")], {}),
    ("unicode white space", [user("\u00a0\u3000\u2003\u0085\u001c x\u200b\u2028\u2029 "), assistant("\u180ey\ufeff\u202f")], {}),
    ("only white space", [user(" \n\t\u3000 "), user("\n")], {}),
    ("inner newlines", [user("\n\na\n\n\nb\n\n"), user("1\n2")], {}),
    ("languages", [system("Antworte auf Deutsch."), user("东京的天气怎么样? 🙂👩‍👩‍👧"), assistant("привет, नमस्ते"), user("'ſ it'S")], {}),
    ("system in the middle", [user("a"), system(" b "), user("c")], {}),
    ("two systems", [system("a"), system("b"), user("c")], {}),
    ("assistant first", [assistant("Welcome."), user("Thanks.")], {}),
    ("tool", [user("Weather in Zürich?")], {"tools": [WEATHER]}),
    ("tools after system", [system(" Be brief. "), user("  3 + 4?  ")], {"tools": [WEATHER, BARE]}),
    ("tools in system", [system("Be brief."), user("3 + 4?")], {"tools": [WEATHER, BARE], "tools_in_user_message": False}),
    ("tools in system, none given", [user("3 + 4?")], {"tools": [BARE], "tools_in_user_message": False}),
    ("system with tools in it, alone", [system("s")], {"tools": [BARE], "tools_in_user_message": False}),
    ("numbers in a tool", [user("n?")], {"tools": [NUMBERS]}),
    ("shapes in a tool", [user("s?")], {"tools": [SHAPES]}),
    ("tools carried by an assistant", [assistant(" Welcome. "), user("Thanks.")], {"tools": [BARE]}),
    ("tools carried by a second system", [system("a"), system("b"), user("c")], {"tools": [BARE]}),
    ("call and result", [user("Weather?"), call("get_weather", '{"city":"Zürich","days":2}'), tool('{"temp": 21.5, "sky": "klar"}'),
                         assistant("21.5 degrees."), user("And tomorrow?")], {"tools": [WEATHER]}),
    ("call without definitions", [user("Go."), call("f", "{}"), tool("done")], {}),
    ("calls one after the other", [user("Both."), call("f", '{"a": [1, 2.0, "x"]}'), tool("one"), call("g", '{"b": {"c": null}}'),
                                   tool("two\nlines \"quoted\" \\ \t é 🙂")], {"tools": [BARE]}),
    ("numbers in a call", [user("n"), call("n", NUMBERS), tool(" kept ")], {}),
    ("shapes in a call", [user("s"), call("s", SHAPES), tool("")], {}),
    ("call ends it", [user("Go."), call("f", '{"x": 1}')], {"add_generation_prompt": False}),
    ("name that needs escapes", [user("Go."), call('a"b\\c', '{"k\\"ey": "v\\\\"}')], {}),
    ("long", [system("Answer from the text."), user("lorem ipsum 0123456789 " * 60)], {}),
]


def environment():
    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def as_template_sees(message):
    """Arguments as the parsed JSON that transformers documents, inside a `function`."""
    if "tool_calls" not in message:
        return message
    calls = [{"type": "function", "function": {"name": c["name"], "arguments": json.loads(c["arguments"])}}
             for c in message["tool_calls"]]
    return {"role": message["role"], "content": message["content"], "tool_calls": calls}


def main():
    folder = pathlib.Path(sys.argv[1])
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = environment().from_string(config["chat_template"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    out = []
    for name, messages, options in CASES:
        variables = {"add_generation_prompt": True, **options}
        # transformers always passes `tools`, None where there are none.
        variables["tools"] = [json.loads(t) for t in options["tools"]] if "tools" in options else None
        text = template.render(messages=[as_template_sees(m) for m in messages], bos_token=config["bos_token"], **variables)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        out.append({"name": name, "messages": messages, "options": options, "text": text, "ids": ids})
    path = pathlib.Path(__file__).parent / "llama3_chat.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case, separators=(",", ":")) for case in out) + "\n]\n")
    print(f"{path}: {len(out)} conversations, {sum(len(case['ids']) for case in out)} tokens")


if __name__ == "__main__":
    main()
