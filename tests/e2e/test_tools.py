"""Tools: a model with random weights calls them where it must, and writes what it may."""

import json

import grpc
import pytest

CHAT = "/v1/chat/completions"

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"enum": ["Rome", "Oslo", "S\u00e3o Paulo"]},
                "days": {"type": "integer", "minimum": 1, "maximum": 9},
            },
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
# Its references are its own.
CODE = {
    "type": "function",
    "function": {
        "name": "lock",
        "parameters": {
            "type": "object",
            "properties": {"code": {"$ref": "#/$defs/code"}},
            "required": ["code"],
            "$defs": {"code": {"type": "string", "pattern": "^[0-9]{4}$"}},
        },
    },
}
NOTHING = {"type": "function", "function": {"name": "wait"}}
TOOLS = [WEATHER, CODE, NOTHING]


def named(name):
    return {"type": "function", "function": {"name": name}}


def check_call(call):
    assert call["type"] == "function" and call["id"].startswith("call_")
    arguments = json.loads(call["function"]["arguments"])
    name = call["function"]["name"]
    if name == "get_weather":
        assert list(arguments) == ["city", "days"] and 1 <= arguments["days"] <= 9
        assert arguments["city"] in ("Rome", "Oslo", "S\u00e3o Paulo")
    elif name == "lock":
        assert list(arguments) == ["code"] and len(arguments["code"]) == 4
        assert arguments["code"].isdigit()
    else:
        assert name == "wait" and arguments == {}
    return name


def gather(chunks, index=0):
    """A choice of a stream as a whole answer has it."""
    message = {"content": "", "calls": []}
    reason = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            if choice["index"] != index:
                continue
            assert reason is None, "nothing comes after the finish reason"
            reason = choice["finish_reason"]
            message["content"] += choice["delta"].get("content") or ""
            for delta in choice["delta"].get("tool_calls", []):
                if "id" in delta:
                    assert delta["index"] == len(message["calls"])
                    message["calls"].append(
                        {
                            "id": delta["id"],
                            "type": delta["type"],
                            "function": {"name": delta["function"]["name"], "arguments": ""},
                        }
                    )
                call = message["calls"][delta["index"]]
                call["function"]["arguments"] += delta["function"]["arguments"]
    return message, reason


@pytest.mark.parametrize("temperature", [0, 1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_required_calls_follow_their_schema(server, seed, temperature):
    body = {
        "messages": [{"role": "user", "content": f"Question {seed}"}],
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "seed": seed,
        "temperature": temperature,
    }
    status, answer = server.post(CHAT, body)
    assert status == 200, answer
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    (call,) = choice["message"]["tool_calls"]
    check_call(call)

    message, reason = gather(server.stream(CHAT, body))
    assert reason == "tool_calls" and message["content"] == ""
    assert [c["function"] for c in message["calls"]] == [call["function"]]


@pytest.mark.parametrize("name", ["get_weather", "lock", "wait"])
def test_the_named_tool_is_called(server, name):
    status, answer = server.chat("x", tools=TOOLS, tool_choice=named(name))
    assert status == 200, answer
    (choice,) = answer["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert check_call(call) == name and choice["finish_reason"] == "tool_calls"


def test_parallel_calls(server):
    # The semicolon gets a push, and the budget ends it.
    _, semicolon = server.post("/tokenize", {"prompt": ";", "add_special_tokens": False})
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [NOTHING],
        "tool_choice": "required",
        "logit_bias": {str(semicolon["tokens"][0]): 100},
        "max_tokens": 200,
        "seed": 1,
    }
    _, answer = server.post(CHAT, body)
    (choice,) = answer["choices"]
    calls = choice["message"]["tool_calls"]
    assert len(calls) > 2 and choice["finish_reason"] == "length"
    assert len({call["id"] for call in calls}) == len(calls)
    for call in calls[:-1]:
        check_call(call)
    message, reason = gather(server.stream(CHAT, body))
    assert reason == "length"
    assert [c["function"] for c in message["calls"]] == [c["function"] for c in calls]


def test_a_call_in_text_that_a_format_allows(server):
    """What the model was free to write is found as well as what it had to."""
    wanted = {"const": {"name": "lock", "parameters": {"code": "12"}}}
    body = {
        "tools": TOOLS,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": wanted}},
        # Only tokens of the format are likely then.
        "temperature": 0,
    }
    _, answer = server.chat("x", **body, tool_choice="none")
    assert json.loads(answer["choices"][0]["message"]["content"]) == wanted["const"]
    status, answer = server.chat("x", **body)
    assert status == 200, answer
    message = answer["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert message["tool_calls"][0]["function"]["name"] in ("get_weather", "lock", "wait")


def test_auto_answers_are_text(server):
    free = {"max_tokens": 20, "seed": 4, "ignore_eos": True}
    _, answer = server.chat("x", tools=TOOLS, **free)
    message = answer["choices"][0]["message"]
    assert isinstance(message["content"], str) and "tool_calls" not in message
    strict = {"type": "function", "function": {**WEATHER["function"], "strict": True}}
    status, answer = server.chat("x", tools=[strict], max_tokens=20, seed=4)
    assert status == 200
    assert not answer["choices"][0]["message"]["content"].lstrip().startswith("{")


def test_allowed_tools(server):
    choice = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named("lock")]}}
    for seed in range(4):
        _, answer = server.chat("x", tools=TOOLS, tool_choice=choice, seed=seed, parallel_tool_calls=False)
        (call,) = answer["choices"][0]["message"]["tool_calls"]
        assert check_call(call) == "lock"


def test_several_choices_call_each(server):
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [WEATHER, CODE],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "n": 3,
        "seed": 11,
        "temperature": 2,
    }
    _, answer = server.post(CHAT, body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    calls = [choice["message"]["tool_calls"][0] for choice in answer["choices"]]
    assert len({call["id"] for call in calls}) == 3
    chunks = server.stream(CHAT, body)
    for index, call in enumerate(calls):
        check_call(call)
        message, reason = gather(chunks, index)
        assert reason == "tool_calls"
        assert [c["function"] for c in message["calls"]] == [call["function"]]


def test_a_whole_round_of_calls_and_results(server):
    """What an agent sends back is taken, several calls at once included."""
    calls = [
        {"id": f"call_{i}", "type": "function", "function": {"name": "wait", "arguments": "{}"}}
        for i in range(2)
    ]
    messages = [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "second"},
        {"role": "tool", "tool_call_id": "call_0", "content": [{"type": "text", "text": "first"}]},
    ]
    body = {"messages": messages, "tools": TOOLS, "max_tokens": 1}
    status, shown = server.post("/v1/chat/completions/render", body)
    assert status == 200, shown
    prompt = shown["prompt"]
    assert prompt.index('"first"') < prompt.index('"second"')
    assert prompt.count('{"name": "wait", "parameters": {}}') == 2
    assert server.post(CHAT, body)[0] == 200


@pytest.mark.parametrize(
    "options, field",
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": named("look")}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "any"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "custom", "custom": {"name": "x"}}}, "tool_choice"),
        ({"tools": TOOLS, "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0]"),
        ({"tools": [named("a b")]}, "tools[0].function.name"),
        ({"tools": [named("a"), named("a")]}, "tools[1]"),
        ({"tools": [named(f"f{i}") for i in range(129)]}, "tools"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": 1}}]},
            "tools[0].function.parameters",
        ),
        (
            {
                "tools": [
                    {
                        "type": "function",
                        "function": {
                            "name": "f",
                            "strict": True,
                            "parameters": {"type": "object", "minProperties": 1},
                        },
                    }
                ]
            },
            "tools[0].function.parameters",
        ),
    ],
)
def test_bad_tools_are_refused_by_name(server, options, field):
    status, answer = server.chat("x", **options)
    assert status == 400, answer
    assert answer["error"]["param"] == field
    assert answer["error"]["message"].startswith(field)


def gather_grpc(messages):
    calls, text = [], ""
    for message in messages:
        part = message.finished if message.WhichOneof("event") == "finished" else message.token
        text += part.text
        for delta in part.tool_calls:
            if delta.id:
                calls.append({"id": delta.id, "name": delta.name, "arguments": ""})
            assert delta.index == len(calls) - 1
            calls[-1]["arguments"] += delta.arguments
    return text, calls, messages[-1].finished.reason


def test_grpc_calls_as_http_does(server, grpc_client):
    tools = [json.dumps(tool) for tool in TOOLS]
    _, answer = server.chat(
        "x", tools=TOOLS, tool_choice="required", parallel_tool_calls=False, seed=6
    )
    (call,) = answer["choices"][0]["message"]["tool_calls"]
    messages = [{"role": "user", "content": "x"}]
    text, calls, reason = gather_grpc(
        list(
            grpc_client.chat(
                messages=messages,
                tools=tools,
                tool_choice={"mode": "MODE_REQUIRED"},
                parallel_tool_calls=False,
                options={"seed": 6},
            )
        )
    )
    assert text == "" and reason == 3
    (ours,) = calls
    assert {"name": ours["name"], "arguments": ours["arguments"]} == call["function"]
    _, calls, _ = gather_grpc(
        list(grpc_client.chat(messages=messages, tools=tools, tool_choice={"function": "wait"}))
    )
    assert [each["name"] for each in calls] == ["wait"]
    text, calls, reason = gather_grpc(
        list(
            grpc_client.chat(
                messages=[
                    *messages,
                    {"role": "assistant", "tool_calls": [{"id": "1", "name": "wait", "arguments": "{}"}]},
                    {"role": "tool", "tool_call_id": "1", "content": "done"},
                ],
                tools=tools,
                tool_choice={"mode": "MODE_NONE"},
                options={"max_tokens": 4, "ignore_eos": True},
            )
        )
    )
    assert calls == [] and reason == 2
    for choice, words in [({"function": "look"}, "tool_choice"), ({"mode": 7}, "tool_choice.mode is 7")]:
        with pytest.raises(grpc.RpcError) as caught:
            list(grpc_client.chat(messages=messages, tools=tools, tool_choice=choice))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith(words)


def test_a_cut_call_has_no_end(server):
    long = {"type": "object", "properties": {"a": {"type": "string", "minLength": 400}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "f", "parameters": long}}
    _, answer = server.chat("x", tools=[tool], tool_choice=named("f"), max_tokens=300)
    (choice,) = answer["choices"]
    assert choice["finish_reason"] == "length"
    (call,) = choice["message"]["tool_calls"]
    with pytest.raises(json.JSONDecodeError):
        json.loads(call["function"]["arguments"])
