"""OpenAI's own Python client, and its API description as the judge of every answer."""

import asyncio
import json

import pytest

from openapi import check, needs_description

openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

pytestmark = needs_description

MESSAGES = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
]


class Weather(pydantic.BaseModel):
    """The weather of a city."""

    # Of a size that a random model comes to the end of.
    city: str = pydantic.Field(pattern="^[A-Z][a-z]{2,5}$")
    days: int = pydantic.Field(ge=1, le=9)


def options_of(server):
    host, port = server.http_address
    return {"base_url": f"http://{host}:{port}/v1", "api_key": "none", "max_retries": 0}


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(**options_of(server)) as made:
        yield made


def with_async_client(server, use):
    async def run():
        async with openai.AsyncOpenAI(**options_of(server)) as made:
            return await use(made)

    return asyncio.run(run())


def checked(raw, schema):
    """A raw response, its body checked, as the client's own object."""
    check(schema, json.loads(raw.text if isinstance(raw.text, str) else raw.text()))
    return raw.parse()


def chat(client, **options):
    raw = client.chat.completions.with_raw_response.create(
        **{"model": "tiny", "messages": MESSAGES, "max_tokens": 8, **options}
    )
    return checked(raw, "CreateChatCompletionResponse")


def complete(client, **options):
    raw = client.completions.with_raw_response.create(
        **{"model": "tiny", "prompt": "Once", "max_tokens": 8, **options}
    )
    return checked(raw, "CreateCompletionResponse")


def check_chunk(chunk):
    check("CreateChatCompletionStreamResponse", chunk.to_dict(mode="json"))
    return chunk


def check_completion_chunk(chunk):
    """The description knows one schema for both, in which a choice always has an end."""
    value = chunk.to_dict(mode="json")
    for choice in value["choices"]:
        choice["finish_reason"] = choice["finish_reason"] or "stop"
    check("CreateCompletionResponse", value)
    return chunk


def test_the_judge_judges():
    for wrong in [{}, {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [{}]}]:
        with pytest.raises(AssertionError):
            check("CreateChatCompletionResponse", wrong)


def test_models(client):
    listed = checked(client.models.with_raw_response.list(), "ListModelsResponse")
    assert [model.id for model in listed.data] == ["tiny"]
    assert checked(client.models.with_raw_response.retrieve("tiny"), "Model").id == "tiny"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0, "seed": 5, "stop": ["x"], "user": "u"},
        {"logprobs": True, "top_logprobs": 3},
        {"logprobs": True, "n": 2},
        {"n": 3, "max_completion_tokens": 4, "max_tokens": None},
        {"metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"response_format": {"type": "json_object"}},
        {"frequency_penalty": 1, "presence_penalty": 1, "logit_bias": {"65": 5}, "top_p": 0.5},
        {"extra_body": {"top_k": 5, "min_p": 0.1, "mobius": {"decode": {"mode": "full"}}}},
    ],
)
def test_chat(client, options):
    answer = chat(client, **options)
    assert [choice.index for choice in answer.choices] == list(range(options.get("n", 1)))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert all(isinstance(choice.message.content, str) for choice in answer.choices)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("logprobs", [False, True])
def test_chat_streamed(client, n, logprobs):
    options = {"n": n, "logprobs": logprobs, "seed": 6, "max_tokens": 10}
    whole = chat(client, **options)
    texts = [""] * n
    usage = None
    for chunk in client.chat.completions.create(
        model="tiny",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
        **options,
    ):
        check_chunk(chunk)
        usage = chunk.usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


TOOLS = [openai.pydantic_function_tool(Weather)]


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "Weather"}}]
)
def test_tools(client, choice):
    options = {
        "tools": TOOLS,
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "max_tokens": 200,
        "seed": 8,
    }
    answer = chat(client, **options)
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls" and message.content is None
    Weather.model_validate_json(call.function.arguments)
    # The next turn: what the client got is what it sends back.
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    chat(client, messages=[*MESSAGES, message.model_dump(exclude_none=True), result], tools=TOOLS)

    arguments = ""
    for chunk in client.chat.completions.create(
        model="tiny", messages=MESSAGES, stream=True, **options
    ):
        check_chunk(chunk)
        for part in chunk.choices:
            for delta in part.delta.tool_calls or []:
                assert delta.index == 0
                arguments += delta.function.arguments
    assert arguments == call.function.arguments


def test_the_clients_own_reading_of_streams(client):
    with client.chat.completions.stream(
        model="tiny",
        messages=MESSAGES,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        seed=8,
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    (call,) = answer.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_the_clients_own_parsing_of_formats(client):
    answer = client.chat.completions.parse(
        model="tiny", messages=MESSAGES, response_format=Weather, seed=4
    )
    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert isinstance(answer.choices[0].message.parsed.days, int)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"logprobs": 3, "seed": 1},
        {"n": 2, "echo": True},
        {"prompt": ["a", "b", "c"], "n": 2, "best_of": 2},
        {"prompt": [[65, 66], [67]]},
        {"stop": "e", "user": "u", "suffix": None},
    ],
)
def test_completions(client, options):
    answer = complete(client, **options)
    prompts = len(options["prompt"]) if "prompt" in options else 1
    assert len(answer.choices) == prompts * options.get("n", 1)
    text = ""
    for chunk in client.completions.create(
        **{"model": "tiny", "prompt": "Once", "max_tokens": 8, "stream": True, **options}
    ):
        check_completion_chunk(chunk)
        text += "".join(choice.text for choice in chunk.choices)
    assert len(text) > 0


@pytest.mark.parametrize(
    "options, error, param",
    [
        ({"temperature": 3}, openai.BadRequestError, "temperature"),
        ({"n": 1000}, openai.BadRequestError, "n"),
        ({"model": "gpt-5"}, openai.NotFoundError, "model"),
        ({"tools": TOOLS, "tool_choice": "always"}, openai.BadRequestError, "tool_choice"),
        ({"max_tokens": 0}, openai.BadRequestError, "max_tokens"),
    ],
)
def test_errors(client, options, error, param):
    with pytest.raises(error) as caught:
        chat(client, **options)
    assert caught.value.param == param
    check("ErrorResponse", json.loads(caught.value.response.text))


def test_async(server):
    async def use(client):
        async def one(seed):
            raw = await client.chat.completions.with_raw_response.create(
                model="tiny", messages=MESSAGES, max_tokens=12, seed=seed
            )
            return checked(raw, "CreateChatCompletionResponse").choices[0].message.content

        async def streamed(seed):
            text = ""
            stream = await client.chat.completions.create(
                model="tiny", messages=MESSAGES, max_tokens=12, seed=seed, stream=True
            )
            async for chunk in stream:
                text += check_chunk(chunk).choices[0].delta.content or ""
            return text

        seeds = range(6)
        whole = await asyncio.gather(*(one(seed) for seed in seeds))
        assert whole == await asyncio.gather(*(streamed(seed) for seed in seeds))
        assert len(set(whole)) == len(seeds)

    with_async_client(server, use)


def test_async_tools_and_completions(server):
    async def use(client):
        async with client.chat.completions.stream(
            model="tiny", messages=MESSAGES, tools=TOOLS, tool_choice="required", n=2,
            parallel_tool_calls=False, seed=3,
        ) as stream:
            answer = await stream.get_final_completion()
        for choice in answer.choices:
            (call,) = choice.message.tool_calls
            assert isinstance(call.function.parsed_arguments, Weather)
        texts = [""] * 4
        async for chunk in await client.completions.create(
            model="tiny", prompt=["a", "b"], n=2, max_tokens=5, stream=True, echo=True
        ):
            for choice in check_completion_chunk(chunk).choices:
                texts[choice.index] += choice.text
        assert [text[0] for text in texts] == ["a", "a", "b", "b"]

    with_async_client(server, use)


def test_a_stream_that_is_closed_ends_its_generations(server):
    async def use(client):
        stream = await client.completions.create(
            model="tiny", prompt="x", n=3, max_tokens=8000, stream=True,
            extra_body={"ignore_eos": True},
        )
        async for _ in stream:
            break
        await stream.close()

    with_async_client(server, use)
    server.wait_idle()
