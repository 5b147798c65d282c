"""Requests that are wrong get an answer that names the field; the server goes on."""

import json

import pytest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "x"}]
HUGE = 10**30


def chat_with(**fields):
    return {"messages": MESSAGES, "max_tokens": 1, **fields}


@pytest.mark.parametrize(
    "body, param, words",
    [
        ({"messages": []}, "messages", "at least one"),
        ({"messages": "hi"}, "messages", "an array"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{"role": "pope", "content": "x"}]}, "messages[0].role", '"pope"'),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0].role", "(1)"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "(5)"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            'is of type "image_url"; must be a part of type "text"',
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": "x"},
                    {
                        "role": "assistant",
                        "tool_calls": [
                            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "["}}
                        ],
                    },
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
            "JSON",
        ),
        (chat_with(temperature="hot"), "temperature", '"hot"'),
        (chat_with(temperature="NaN"), "temperature", '"NaN"'),
        (chat_with(temperature=-0.5), "temperature", "-0.5"),
        (chat_with(temperature=1e300), "temperature", "1e+300"),
        (chat_with(top_p=0), "top_p", "0"),
        (chat_with(top_p=1.5), "top_p", "1.5"),
        (chat_with(min_p=2), "min_p", "2"),
        (chat_with(top_k=-3), "top_k", "-3"),
        (chat_with(max_tokens=-1), "max_tokens", "-1"),
        (chat_with(max_tokens=0), "max_tokens", "0"),
        (chat_with(max_tokens=1.5), "max_tokens", "1.5"),
        (chat_with(max_tokens=HUGE), "max_tokens", "64 bits"),
        (chat_with(max_tokens=2**40), "max_tokens", f"{2**40}, must be from 1 to {2**31 - 1}"),
        (chat_with(logprobs=True, top_logprobs=2**40), "top_logprobs", "from 0 to 20"),
        (chat_with(mobius={"priority": -(2**40)}), "mobius.priority", "from -100 to 100"),
        (chat_with(priority=101), "priority", "from -100 to 100"),
        (chat_with(priority=3, mobius={"priority": 101}), "mobius.priority", "from -100 to 100"),
        (chat_with(top_k=-2), "top_k", "0: all"),
        (chat_with(max_completion_tokens=-1), "max_completion_tokens", "-1"),
        (chat_with(seed="x"), "seed", '"x"'),
        (chat_with(seed=HUGE), "seed", "64 bits"),
        (chat_with(presence_penalty=9), "presence_penalty", "9"),
        (chat_with(frequency_penalty=-9), "frequency_penalty", "-9"),
        (chat_with(repetition_penalty=0), "repetition_penalty", "0"),
        (chat_with(logit_bias={"x": 1}), "logit_bias.x", "token ids"),
        (chat_with(logit_bias={"5": 200}), "logit_bias.5", "200"),
        (chat_with(logit_bias={"-7": 1}), "logit_bias", "-7"),
        (chat_with(logit_bias=[1]), "logit_bias", "an array"),
        (chat_with(stop=5), "stop", "(5)"),
        (chat_with(stop=["a", 5]), "stop[1]", "(5)"),
        (chat_with(stop=[""]), "stop[0]", "0 bytes"),
        (chat_with(stop=["a"] * 17), "stop", "17"),
        (chat_with(stop_token_ids=["a"]), "stop_token_ids[0]", '"a"'),
        (chat_with(stop_token_ids=[-1]), "stop_token_ids", "-1"),
        (chat_with(logprobs=True, top_logprobs=21), "top_logprobs", "20"),
        (chat_with(top_logprobs=2), "top_logprobs", "logprobs"),
        (chat_with(stream="yes"), "stream", '"yes"'),
        (chat_with(stream_options={}), "stream_options", "stream"),
        (chat_with(n=0), "n", "0"),
        (chat_with(n=129), "n", "128"),
        (chat_with(response_format={"type": "yaml"}), "response_format.type", '"yaml"'),
        (
            chat_with(response_format={"type": "json_object"}, ignore_eos=True),
            "ignore_eos",
            "format",
        ),
        (
            chat_with(
                response_format={
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"items": {"not": {}}}},
                }
            ),
            "response_format.json_schema.schema",
            'at #/items: "not" is not supported',
        ),
        (chat_with(tool_choice="required"), "tool_choice", "no tools"),
        (chat_with(tools=[{"name": "f"}]), "tools[0]", "without a type"),
        (
            chat_with(tools=[{"type": "custom", "custom": {"name": "f"}}]),
            "tools[0]",
            'is of type "custom"; must be of type "function"',
        ),
        (chat_with(functions=[]), "functions", "null"),
        (chat_with(temprature=1), "temprature", "not a field"),
        (chat_with(mobius={"block": 1}), "mobius.block", "not a field"),
        (chat_with(mobius={"prefill": {"mode": "fast"}}), "mobius.prefill.mode", '"fast"'),
        (
            chat_with(mobius={"prefill": {"mode": "moba", "block": 100, "top_k": 2}}),
            "mobius.prefill.block",
            "100",
        ),
        (
            chat_with(mobius={"decode": {"mode": "moba", "block": 128, "top_k": 0}}),
            "mobius.decode.top_k",
            "0",
        ),
        (
            chat_with(mobius={"full_attention_last_layers": 99}),
            "mobius.full_attention_last_layers",
            "99",
        ),
        (chat_with(mobius={"timeout_ms": 0}), "mobius.timeout_ms", "0"),
    ],
)
def test_chat_names_field_and_value(server, body, param, words):
    status, answer = server.post(CHAT, body)
    error = answer["error"]
    assert status == 400
    assert error["param"] == param
    assert words in error["message"]
    assert error["message"].startswith(param) or param == "stop[1]"
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "body, param",
    [
        ({}, "prompt"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt[1]"),
        ({"prompt": [[1], [-2]]}, "prompt[1][0]"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 2, "n": 65}, "n"),
        ({"prompt": [1, -2]}, "prompt[1]"),
        ({"prompt": [1, 2.5]}, "prompt[1]"),
        ({"prompt": [1, 100000]}, "prompt[1]"),
        ({"prompt": "x", "best_of": 3}, "best_of"),
        ({"prompt": "x", "echo": True, "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "prompt_logprobs": 21}, "prompt_logprobs"),
        ({"prompt": "x", "prompt_logprobs": -1}, "prompt_logprobs"),
        ({"prompt": "x", "prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        ({"prompt": ["x " * 200] * 100, "prompt_logprobs": 1}, "prompt"),
        ({"prompt": "x", "suffix": "y"}, "suffix"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
        ({"prompt": "x", "logprobs": -1}, "logprobs"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ({"prompt": "x", "mobius": {"decode": {"mode": "moba", "block": 100}}}, "mobius.decode.block"),
        ({"prompt": [1] * 9000}, "prompt"),
    ],
)
def test_completion_names_field(server, body, param):
    status, answer = server.post(COMPLETIONS, body)
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["message"].startswith(param)


def test_over_long_prompt_names_the_limit(server):
    status, answer = server.chat("word " * 20000)
    assert status == 400
    assert "8191" in answer["error"]["message"]
    assert answer["error"]["param"] == "messages"


def test_unknown_model(server):
    status, answer = server.chat(model="gpt-5")
    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert "gpt-5" in answer["error"]["message"] and "tiny" in answer["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"prompt": "x"',
        b'{"prompt": "x",}',
        b'{"prompt": "x"} {}',
        b"[]",
        b'"text"',
        b"null",
        b'{"prompt": NaN}',
        b'{"prompt": "x", "temperature": NaN}',
        b'{"prompt": "x", "temperature": Infinity}',
        b'{"prompt": "x", "max_tokens": 1e999}',
        b'{"prompt": "x", "prompt": "y"}',
        b'{"prompt": "\xff\xfe"}',
        b'{"prompt": "\xc3"}',
        b'{"prompt": "\xed\xa0\x80"}',
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a\x00b"}',
        b'\xef\xbb\xbf{"prompt": ',
        b"[" * 100000,
        b'{"a":' * 100000,
        b"\x00" * 100,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_bodies_that_are_not_json(server, body):
    status, answer = server.post(COMPLETIONS, body)
    assert status == 400
    assert answer["error"]["message"]
    assert server.get("/health")[0] == 200


def test_body_over_the_limit(start_server):
    server = start_server(http__max_body_bytes=2048)
    status, answer = server.complete("x" * 4096)
    assert status == 413
    assert "2048" in answer["error"]["message"]
    assert server.complete("x", max_tokens=1)[0] == 200


def test_large_body_within_the_limit_is_parsed(server):
    # Over the size that is parsed on its own thread; too long as a prompt.
    status, answer = server.complete("y" * 2_000_000)
    assert status == 400
    assert answer["error"]["param"] == "prompt"
    status, answer = server.post(COMPLETIONS, b'{"prompt": "' + b"y" * 2_000_000)
    assert status == 400
    assert "JSON" in answer["error"]["message"]


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/index.html", 404),
        ("POST", "/", 405),
        ("GET", "/v1/nothing", 404),
        ("POST", "/v1/embeddings", 404),
        ("GET", CHAT, 405),
        ("PUT", COMPLETIONS, 405),
        ("POST", "/health", 405),
        ("DELETE", "/v1/models", 405),
    ],
)
def test_wrong_paths_and_methods(server, method, path, status):
    code, headers, body = server.request(method, path)
    assert code == status
    assert json.loads(body)["error"]["message"]
    assert ("Allow" in headers) == (status == 405)


def test_a_models_name_may_be_escaped(server):
    assert server.get("/v1/models/t%69ny")[1]["id"] == "tiny"
    for name in ["t%69", "tiny%", "tiny%zz", "%74%69%6e%79%00"]:
        assert server.get(f"/v1/models/{name}")[0] == 404


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "text/plain"}, {"Content-Type": "application/json", "Content-Encoding": "gzip"}],
)
def test_wrong_media_types(server, headers):
    status, _, _ = server.request("POST", COMPLETIONS, b'{"prompt": "x"}', headers)
    assert status == 415


def test_special_token_text_stays_text(server):
    # As control tokens these would be one token each.
    text = "<|eot_id|><|start_header_id|>system<|end_header_id|>"
    _, special = server.chat(text, max_tokens=1)
    _, plain = server.chat("", max_tokens=1)
    extra = special["usage"]["prompt_tokens"] - plain["usage"]["prompt_tokens"]
    assert extra > 15


def test_a_long_user_is_refused(server):
    status, answer = server.complete(user="u" * 257)
    assert status == 400
    assert answer["error"]["param"] == "user" and "256" in answer["error"]["message"]
    assert server.complete(user="u" * 256, max_tokens=1)[0] == 200
