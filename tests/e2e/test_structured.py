"""response_format: a model with random weights writes whatever it may, so what it may is all that counts."""

import json
import re

import grpc
import pytest

CHAT = "/v1/chat/completions"

# Every value of it is finite, so every answer must end by itself.
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{1,8}$"},
        "age": {"type": "integer", "minimum": 18, "maximum": 99},
        "nick": {"type": ["string", "null"], "maxLength": 6},
        "colors": {"type": "array", "items": {"enum": ["red", "gr\u00fcn"]}, "maxItems": 3},
        "born": {"type": "string", "format": "date"},
        "home": {"$ref": "#/$defs/place"},
    },
    "required": ["name", "age", "colors", "born", "home"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"zip": {"type": "string", "minLength": 5, "maxLength": 5}},
            "required": ["zip"],
            "additionalProperties": False,
        }
    },
}


def schema_format(schema):
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def check_person(text):
    person = json.loads(text)
    names = ["name", "age", "nick", "colors", "born", "home"]
    assert list(person) == [name for name in names if name in person]
    assert set(names) - set(person) <= {"nick"}
    assert re.fullmatch("[A-Z][a-z]{1,8}", person["name"])
    assert isinstance(person["age"], int) and 18 <= person["age"] <= 99
    assert person.get("nick") is None or len(person["nick"]) <= 6
    assert len(person["colors"]) <= 3 and set(person["colors"]) <= {"red", "gr\u00fcn"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", person["born"])
    assert list(person["home"]) == ["zip"] and len(person["home"]["zip"]) == 5


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_a_random_model_keeps_to_the_schema(server, seed, temperature):
    status, answer = server.chat(
        f"Person {seed}", seed=seed, temperature=temperature, response_format=schema_format(PERSON)
    )
    assert status == 200, answer
    assert answer["choices"][0]["finish_reason"] == "stop"
    check_person(answer["choices"][0]["message"]["content"])


def test_streams_and_completions_too(server):
    body = {"seed": 3, "response_format": schema_format(PERSON)}
    chunks = server.stream(CHAT, {**body, "messages": [{"role": "user", "content": "x"}]})
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"])
    check_person(text)
    status, answer = server.complete("x", **body)
    assert status == 200
    check_person(answer["choices"][0]["text"])


def test_formats_share_steps_with_free_text(server):
    """One row of a step has a mask and the next has none."""
    free = {"max_tokens": 40, "ignore_eos": True, "seed": 5}
    _, alone = server.complete("y", **free)
    with server.open_stream("/v1/completions", {"prompt": "y", **free}) as stream:
        check_person(
            server.complete("x", seed=8, response_format=schema_format(PERSON))[1]["choices"][0]["text"]
        )
        events = [json.loads(line[6:]) for line in stream.read().decode().split("\n\n")[:-2]]
    text = "".join(event["choices"][0]["text"] for event in events)
    assert text == alone["choices"][0]["text"]


def test_json_object(server):
    # A random model seldom ends a string: quotes and brackets get a push.
    bias = {str(ord(c)): 8 for c in '"}]'}
    ended = 0
    for seed in range(8):
        status, answer = server.chat(
            "x", seed=seed, max_tokens=400, logit_bias=bias, response_format={"type": "json_object"}
        )
        assert status == 200, answer
        choice = answer["choices"][0]
        assert choice["message"]["content"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)
            ended += 1
    assert ended > 0


def test_max_tokens_cuts(server):
    _, answer = server.chat("x", max_tokens=3, response_format=schema_format(PERSON))
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


def test_the_server_survives_hostile_schemas(server):
    deep = {}
    for _ in range(90):
        deep = {"items": deep}
    for schema in [
        deep,
        {"$ref": "#"},
        {"pattern": "(a{1000}){1000}"},
        {"pattern": "(" * 80},
        {"properties": {str(i): {"enum": list(range(50))} for i in range(12000)}},
        {"enum": ["x" * 300000]},
        {"allOf": [{"anyOf": [{"minimum": 0}, {"maximum": 9}]}] * 30},
        {"minimum": 5, "maximum": 4},
    ]:
        status, answer = server.chat("x", response_format=schema_format(schema))
        assert status == 400, schema
        assert answer["error"]["param"] == "response_format.json_schema.schema"


def test_grpc(grpc_client):
    answer = grpc_client.generate(
        text="x",
        options={"seed": 1, "response_format": {"json_schema": json.dumps(PERSON)}},
    )
    check_person("".join(m.token.text for m in answer if m.WhichOneof("event") == "token"))
    call = grpc_client.chat(
        messages=[{"role": "user", "content": "x"}],
        options={"response_format": {"json_object": True}, "max_tokens": 4},
    )
    assert "".join(m.token.text + m.finished.text for m in call).startswith("{")
    for schema, words in [("{", "not valid JSON"), ('{"not": {}}', "not supported")]:
        with pytest.raises(grpc.RpcError) as caught:
            list(grpc_client.generate(text="x", options={"response_format": {"json_schema": schema}}))
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert caught.value.details().startswith("response_format.json_schema ")
        assert words in caught.value.details()
