"""/v1/responses: through OpenAI's own client, every answer and every event judged by its description."""

import asyncio
import json

import pytest

from openapi import check, needs_description

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

pytestmark = needs_description

RESPONSES = "/v1/responses"


class Weather(pydantic.BaseModel):
    # Of a size that a random model comes to the end of.
    city: str = pydantic.Field(pattern="^[A-Z][a-z]{2,5}$")
    days: int = pydantic.Field(ge=1, le=9)


WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
WAIT = {"type": "function", "name": "wait"}
FREE = {"seed": 3, "ignore_eos": True}


def options_of(server):
    host, port = server.http_address
    return {"base_url": f"http://{host}:{port}/v1", "api_key": "none", "max_retries": 0}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(**options_of(server)) as made:
        yield made


def post(server, **body):
    status, answer = server.post(RESPONSES, {"input": "Hello", "max_output_tokens": 16, **body})
    assert status == 200, answer
    check("Response", answer)
    return answer


def events_of(server, **body):
    """The events of a streamed answer, their framing, numbers and shapes checked."""
    with server.open_stream(RESPONSES, {"input": "Hello", "max_output_tokens": 16, **body}) as response:
        assert response.status == 200, response.read()
        blocks = response.read().decode().split("\n\n")
    assert blocks[-1] == ""
    events = []
    for block in blocks[:-1]:
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == len(events)
        check("ResponseStreamEvent", event)
        events.append(event)
    return events


def gather(events):
    """What the deltas come to, item by item; each step has its place."""
    items = []
    for event in events:
        kind = event["type"].removeprefix("response.")
        if kind == "output_item.added":
            assert event["output_index"] == len(items)
            items.append({"id": event["item"]["id"], "type": event["item"]["type"], "text": ""})
        elif kind in ("output_text.delta", "function_call_arguments.delta"):
            assert event["item_id"] == items[event["output_index"]]["id"] == items[-1]["id"]
            items[-1]["text"] += event["delta"]
        elif kind == "output_text.done":
            assert event["text"] == items[-1]["text"]
        elif kind == "function_call_arguments.done":
            assert event["arguments"] == items[-1]["text"]
        elif kind == "output_item.done":
            items[-1]["item"] = event["item"]
    return items


def test_a_whole_answer(server):
    answer = post(server, instructions="Be brief.", metadata={"a": "b"}, temperature=0.5, user="u")
    assert answer["id"].startswith("resp_") and answer["model"] == "tiny"
    assert answer["instructions"] == "Be brief." and answer["metadata"] == {"a": "b"}
    assert answer["temperature"] == 0.5 and answer["top_p"] == 1
    (item,) = answer["output"]
    assert item["type"] == "message" and item["content"][0]["type"] == "output_text"
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    cut = post(server, max_output_tokens=3, **FREE)
    assert cut["status"] == "incomplete" and cut["output"][0]["status"] == "incomplete"
    assert cut["incomplete_details"] == {"reason": "max_output_tokens"}


def test_the_same_as_chat(server):
    """One template, one model: only the words around the answer differ."""
    answer = post(server, instructions="Be brief.", **FREE)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    _, chat = server.post("/v1/chat/completions", {"messages": messages, "max_tokens": 16, **FREE})
    assert answer["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert answer["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]


@pytest.mark.parametrize("logprobs", [False, True])
def test_streamed_text(server, logprobs):
    body = dict(FREE)
    if logprobs:
        body.update(include=["message.output_text.logprobs"], top_logprobs=2)
    whole = post(server, **body)
    events = events_of(server, **body)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert set(kinds[4:-4]) == {"output_text.delta"}
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    (item,) = gather(events)
    assert item["text"] == whole["output"][0]["content"][0]["text"]
    last = events[-1]["response"]
    assert last["output"][0]["content"] == whole["output"][0]["content"]
    assert last["usage"]["output_tokens"] == 16
    found = last["output"][0]["content"][0]["logprobs"]
    assert len(found) == (16 if logprobs else 0)
    shown = [entry for event in events if event["type"].endswith("text.delta") for entry in event["logprobs"]]
    assert [entry["logprob"] for entry in shown] == [entry["logprob"] for entry in found]


def test_calls(server):
    body = {
        "tools": [WEATHER, WAIT],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_output_tokens": 300,
        "seed": 5,
    }
    whole = post(server, **body)
    (call,) = whole["output"]
    assert call["type"] == "function_call" and call["status"] == "completed"
    assert whole["tools"][1] == {"type": "function", "name": "wait", "parameters": None, "strict": False}
    (item,) = gather(events_of(server, **body))
    assert item["item"]["name"] == call["name"] and item["text"] == call["arguments"]

    named = post(server, **{**body, "tool_choice": {"type": "function", "name": "weather"}})
    assert named["output"][0]["name"] == "weather"
    assert json.loads(named["output"][0]["arguments"])["city"] in ("Rome", "Oslo")
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "wait"}]}
    assert post(server, **{**body, "tool_choice": allowed})["output"][0]["name"] == "wait"


def test_calls_and_results_come_back(server):
    first = post(
        server, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_output_tokens=300
    )
    (call,) = first["output"]
    again = {**call, "call_id": "other"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        call,
        again,
        {"type": "function_call_output", "call_id": "other", "output": "sun"},
        {"type": "function_call_output", "call_id": call["call_id"], "output": "rain"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "It rains."}]},
        {"role": "user", "content": "And now?"},
    ]
    answer = post(server, input=items, tools=[WEATHER], max_output_tokens=1)
    messages = [
        {"role": "user", "content": "Hello"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": each["call_id"], "type": "function",
                 "function": {"name": each["name"], "arguments": each["arguments"]}}
                for each in (call, again)
            ],
        },
        {"role": "tool", "tool_call_id": "other", "content": "sun"},
        {"role": "tool", "tool_call_id": call["call_id"], "content": "rain"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "And now?"},
    ]
    function = {key: value for key, value in WEATHER.items() if key != "type"}
    chat = {"messages": messages, "tools": [{"type": "function", "function": function}], "max_tokens": 1}
    _, same = server.post("/v1/chat/completions", chat)
    assert answer["usage"]["input_tokens"] == same["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    "body, field",
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input[0].call_id"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "call_id": "x"}]}, "input[0].call_id"),
        (
            {
                "input": [
                    {"type": "function_call", "call_id": "x", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "x"},
                ]
            },
            "input[1].output",
        ),
        ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "max_tokens": 4}, "max_tokens"),
        ({"input": "x", "n": 2}, "n"),
        ({"input": "x", "include": ["reasoning.encrypted_content"]}, "include[0]"),
        ({"input": "x", "tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"input": "x", "tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"input": "x", "tool_choice": "required"}, "tool_choice"),
        ({"input": "x", "text": {"format": {"type": "json_schema", "name": "a", "schema": {"not": {}}}}},
         "text.format.schema"),
        ({"input": "x", "text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"input": "word " * 9000}, "input"),
    ],
)
def test_bad_requests_are_refused_by_name(server, body, field):
    status, answer = server.post(RESPONSES, body)
    assert status == 400, answer
    check("ErrorResponse", answer)
    assert answer["error"]["param"] == field
    assert answer["error"]["message"].startswith(field)


def test_refusals_name_the_type_that_was_sent(server):
    part = {"type": "input_image", "image_url": "x"}
    bodies = [
        {"input": [{"role": "user", "content": [part]}]},
        {"input": "x", "tools": [{"type": "web_search"}]},
    ]
    for body, kind in zip(bodies, ["input_image", "web_search"]):
        message = server.post(RESPONSES, body)[1]["error"]["message"]
        assert f'is of type "{kind}"' in message


def test_a_failure_ends_the_stream(server):
    events = events_of(
        server, max_output_tokens=8000, ignore_eos=True, mobius={"timeout_ms": 300}
    )
    last = events[-1]
    assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
    assert "mobius.timeout_ms is 300 ms" in last["response"]["error"]["message"]


def test_with_the_client(client):
    answer = client.responses.create(model="tiny", input="Hello", max_output_tokens=16, extra_body=FREE)
    assert len(answer.output_text) > 0 and answer.status == "incomplete"
    # A stop string makes it a complete one.
    stop = answer.output_text[5:7]
    with client.responses.stream(
        model="tiny", input="Hello", max_output_tokens=16, extra_body={**FREE, "stop": stop}
    ) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert stream.get_final_response().output_text == text
    assert text == answer.output_text[: answer.output_text.index(stop)]
    parsed = client.responses.parse(model="tiny", input="Hello", text_format=Weather)
    assert isinstance(parsed.output_parsed, Weather)
    called = client.responses.create(
        model="tiny", input="Hello", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False
    )
    assert called.output[0].name == "weather"


def test_with_the_async_client(server):
    async def run():
        async with openai.AsyncOpenAI(**options_of(server)) as client:
            async def one(seed):
                text = ""
                stream = await client.responses.create(
                    model="tiny", input="Hello", max_output_tokens=12, stream=True, extra_body={"seed": seed}
                )
                async for event in stream:
                    if event.type == "response.output_text.delta":
                        text += event.delta
                return text

            texts = await asyncio.gather(*(one(seed) for seed in range(5)))
            assert len(set(texts)) == 5
            stream = await client.responses.create(
                model="tiny", input="Hello", stream=True, extra_body={"ignore_eos": True}
            )
            async for _ in stream:
                break
            await stream.close()

    asyncio.run(run())
    server.wait_idle()
