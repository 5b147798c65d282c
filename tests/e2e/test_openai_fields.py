"""Every field of OpenAI's requests has an outcome: it is used, ignored, or refused by its name."""

import pytest

from openapi import fields, needs_description

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
RESPONSES = "/v1/responses"

SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
TOOL = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}


class Used:
    """Taken, and what it does is another test's. `beside`: fields that it cannot be without."""

    def __init__(self, value, **beside):
        self.body = beside
        self.value = value


class Ignored:
    """Taken, and the answer is the same."""

    def __init__(self, *values):
        self.values = values


class Refused:
    """An error that names it; `neutral` values ask for nothing and are ignored."""

    def __init__(self, *values, neutral=()):
        self.values = values
        self.neutral = neutral


COMMON = {
    "model": Used("tiny"),
    "frequency_penalty": Used(0.5),
    "presence_penalty": Used(0.5),
    "logit_bias": Used({"65": 3}),
    "max_tokens": Used(3),
    "n": Used(2),
    "seed": Used(1),
    "stop": Used(["a"]),
    "stream": Used(False),
    "stream_options": Used({"include_usage": True, "include_obfuscation": False}, stream=True),
    "temperature": Used(0.5),
    "top_p": Used(0.5),
    "user": Used("somebody"),
}

OF_CHAT = {
    **COMMON,
    "messages": Used([{"role": "user", "content": "Hi"}]),
    "max_completion_tokens": Used(3),
    "logprobs": Used(True),
    "top_logprobs": Used(2, logprobs=True),
    "response_format": Used(
        {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
    ),
    "tools": Used([TOOL]),
    "tool_choice": Used("required", tools=[TOOL]),
    "parallel_tool_calls": Used(False, tools=[TOOL]),
    "metadata": Ignored({"a": "b"}),
    "prediction": Ignored({"type": "content", "content": "Hello"}),
    "prompt_cache_key": Ignored("key"),
    "prompt_cache_options": Ignored({"ttl": "30m"}),
    "prompt_cache_retention": Ignored("in_memory", "24h"),
    "safety_identifier": Ignored("somebody"),
    "service_tier": Ignored("auto", "default", "flex", "priority"),
    "store": Ignored(False, True),
    "audio": Refused({"voice": "alloy", "format": "mp3"}),
    "function_call": Refused("auto", {"name": "f"}),
    "functions": Refused([{"name": "f"}]),
    "modalities": Refused(["text", "audio"], neutral=[["text"]]),
    "moderation": Refused({"model": "omni-moderation-latest"}),
    "reasoning_effort": Refused("low", "medium", neutral=["none"]),
    "verbosity": Refused("low", "high", neutral=["medium"]),
    "web_search_options": Refused({}),
}

OF_COMPLETIONS = {
    **COMMON,
    "prompt": Used(["Hi", [65, 66]]),
    "echo": Used(True),
    "logprobs": Used(2),
    "best_of": Refused(2, 0, neutral=[1]),
    "suffix": Refused("the end", neutral=[""]),
}

FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA}

OF_RESPONSES = {
    "model": Used("tiny"),
    "include": Used(["message.output_text.logprobs"]),
    "input": Used([{"role": "user", "content": "Hi"}]),
    "instructions": Used("Be brief."),
    "max_output_tokens": Used(3),
    "metadata": Used({"a": "b"}),
    "parallel_tool_calls": Used(False, tools=[FUNCTION]),
    "stream": Used(False),
    "stream_options": Used({"include_obfuscation": False}, stream=True),
    "temperature": Used(0.5),
    "text": Used({"format": {"type": "json_object"}, "verbosity": "medium"}),
    "tool_choice": Used("required", tools=[FUNCTION]),
    "tools": Used([FUNCTION]),
    "top_logprobs": Used(2),
    "top_p": Used(0.5),
    "user": Used("somebody"),
    "max_tool_calls": Ignored(1),
    "prompt_cache_key": Ignored("key"),
    "prompt_cache_options": Ignored({"ttl": "30m"}),
    "prompt_cache_retention": Ignored("in_memory", "24h"),
    "safety_identifier": Ignored("somebody"),
    "service_tier": Ignored("auto", "flex"),
    "store": Ignored(False, True),
    "background": Refused(True, neutral=[False]),
    "context_management": Refused([{"type": "compaction"}]),
    "conversation": Refused("conv_1", {"id": "conv_1"}),
    "moderation": Refused({"model": "omni-moderation-latest"}),
    "previous_response_id": Refused("resp_1"),
    "prompt": Refused({"id": "p"}),
    "reasoning": Refused({"effort": "low"}, neutral=[{"effort": "none"}]),
    "truncation": Refused("auto", neutral=["disabled"]),
}

ENDPOINTS = [
    (CHAT, "CreateChatCompletionRequest", OF_CHAT),
    (COMPLETIONS, "CreateCompletionRequest", OF_COMPLETIONS),
    (RESPONSES, "CreateResponse", OF_RESPONSES),
]


def body_for(path):
    if path == RESPONSES:
        return {"max_output_tokens": 4, "seed": 3, "input": "Hello"}
    body = {"max_tokens": 4, "seed": 3}
    if path == CHAT:
        return {**body, "messages": [{"role": "user", "content": "Hello"}]}
    return {**body, "prompt": "Hello"}


def cases(kind):
    return [
        pytest.param(path, field, outcome, id=f"{path.rsplit('/', 1)[1]}-{field}")
        for path, _, outcomes in ENDPOINTS
        for field, outcome in outcomes.items()
        if isinstance(outcome, kind)
    ]


def answer_of(server, path, body):
    status, answer = server.post(path, body)
    assert status == 200, answer
    if path == RESPONSES:
        return [{**item, "id": None} for item in answer["output"]]
    return [{**choice, "mobius": None} for choice in answer["choices"]]


@needs_description
@pytest.mark.parametrize("path, schema, outcomes", ENDPOINTS)
def test_every_field_has_an_outcome(path, schema, outcomes):
    assert fields(schema) == set(outcomes)


@pytest.mark.parametrize("path, field, outcome", cases(Used))
def test_used(server, path, field, outcome):
    body = {**body_for(path), **outcome.body, field: outcome.value}
    if body.get("stream"):
        with server.open_stream(path, body) as response:
            assert response.status == 200 and response.read()
    else:
        assert answer_of(server, path, body)
    # A value of a type that no field has is refused by the field's name.
    status, answer = server.post(path, {**body, field: [[{}]] if field != "prompt" else {}})
    assert status == 400
    assert answer["error"]["param"].startswith(field), answer


@pytest.mark.parametrize("path, field, outcome", cases(Ignored))
def test_ignored(server, path, field, outcome):
    body = body_for(path)
    expected = answer_of(server, path, body)
    for value in outcome.values:
        assert answer_of(server, path, {**body, field: value}) == expected


@pytest.mark.parametrize("path, field, outcome", cases(Refused))
def test_refused(server, path, field, outcome):
    body = body_for(path)
    for value in outcome.values:
        status, answer = server.post(path, {**body, field: value})
        assert status == 400, (field, value)
        assert answer["error"]["param"] == field
        assert answer["error"]["message"].startswith(field)
    expected = answer_of(server, path, body)
    for value in [None, *outcome.neutral]:
        assert answer_of(server, path, {**body, field: value}) == expected
