"""mobius.v1's calls with one answer: Tokenize, GetModelInfo, GetLoad, Abort."""

import json

import grpc
import pytest

from server import sse_data

ENDLESS = {"max_tokens": 8000, "ignore_eos": True}
ALICE, BOB = "mk-alice-0123456789abcdef", "mk-bob-0123456789abcdef01"


def error_of(call, *arguments, **fields):
    with pytest.raises(grpc.RpcError) as error:
        call(*arguments, **fields)
    return error.value


def field_of(error):
    return dict(error.trailing_metadata()).get("mobius-field")


# ---- Tokenize ------------------------------------------------------------------------------------


def test_tokens_are_those_of_http(server, grpc_client):
    text = "Once upon a time there was äöü and 日本語."
    answer = grpc_client.ask("Tokenize", text=text)
    _, expected = server.post("/tokenize", {"prompt": text})
    assert list(answer.ids) == expected["tokens"]
    assert answer.max_context == expected["max_model_len"] == 8192
    bare = grpc_client.ask("Tokenize", text=text, add_begin_of_text=False)
    assert list(bare.ids) == expected["tokens"][1:]
    assert list(grpc_client.ask("Tokenize", text="", add_begin_of_text=False).ids) == []


def test_a_conversation_becomes_the_prompt_that_chat_has(server, grpc_client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for tools in ([], [tool]):
        answer = grpc_client.ask(
            "Tokenize", chat={"messages": messages, "tools": [json.dumps(entry) for entry in tools]}
        )
        body = {"messages": messages, **({"tools": tools} if tools else {})}
        assert list(answer.ids) == server.post("/v1/chat/completions/render", body)[1]["token_ids"]
    finished = list(grpc_client.chat(messages=messages, options={"max_tokens": 1}))[-1].finished
    assert finished.usage.prompt_tokens == len(
        grpc_client.ask("Tokenize", chat={"messages": messages}).ids
    )


@pytest.mark.parametrize(
    "fields, code, field",
    [
        ({}, "INVALID_ARGUMENT", "prompt"),
        ({"chat": {"messages": [{"role": "king"}]}}, "INVALID_ARGUMENT", "chat.messages[0].role"),
        ({"chat": {}}, "INVALID_ARGUMENT", "chat.messages"),
        ({"text": "x", "model": "other"}, "NOT_FOUND", "model"),
        ({"text": "x" * (8 << 20)}, "INVALID_ARGUMENT", None),
    ],
)
def test_bad_questions_for_tokens(grpc_client, fields, code, field):
    error = error_of(grpc_client.ask, "Tokenize", **fields)
    assert error.code().name == code
    assert field_of(error) == field


def test_many_at_once(grpc_client):
    """Whoever finds no place is told so; nobody waits for ever."""
    request = grpc_client.message("TokenizeRequest", text="word " * 100_000)
    stub = grpc_client.channel.unary_unary(
        "/mobius.v1.Mobius/Tokenize",
        request_serializer=lambda message: message.SerializeToString(),
    )
    codes = {call.code() for call in [stub.future(request, timeout=100) for _ in range(100)]}
    assert grpc.StatusCode.OK in codes
    assert codes <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


# ---- GetModelInfo, GetLoad -----------------------------------------------------------------------


def test_the_model_is_described(start_server):
    server = start_server(
        attention__prefill__mode="moba", attention__prefill__block=256, attention__prefill__top_k=3
    )
    client = server.grpc_client()
    info = client.ask("GetModelInfo")
    _, models = server.get("/v1/models")
    model = models["data"][0]
    assert info.name == model["id"] == "tiny"
    assert info.max_context == model["mobius"]["max_context"] == 8192
    assert info.page_tokens == model["mobius"]["page_tokens"]
    assert info.device == model["mobius"]["device"]
    assert info.pages == server.stats()["pages_total"]
    assert info.vocab_size > 256 and info.layers > 0 and info.heads >= info.kv_heads > 0
    attention = info.attention
    assert (attention.prefill.mode, attention.prefill.block, attention.prefill.top_k) == (2, 256, 3)
    assert attention.decode.mode == 1
    client.close()


def test_the_load_is_told(start_server):
    server = start_server(engine__max_running=1)
    client = server.grpc_client()
    idle = client.ask("GetLoad")
    assert idle.ready and idle.pages > 0
    assert (idle.running, idle.waiting, idle.pages_used) == (0, 0, 0)
    first = client.generate(text="x", options=ENDLESS)
    next(first)
    second = client.generate(tokens={"ids": [5] * 100}, options=ENDLESS)
    server.wait_until(lambda stats: stats["waiting"] == 1)
    busy = client.ask("GetLoad")
    assert (busy.running, busy.waiting, busy.waiting_tokens) == (1, 1, 100)
    assert 0 < busy.pages_used <= busy.pages
    assert busy.generated_tokens > 0
    first.cancel()
    second.cancel()
    server.wait_idle()
    assert client.ask("GetLoad").requests_finished == 2
    client.close()


# ---- Abort ---------------------------------------------------------------------------------------


def test_abort_ends_a_call(server, grpc_client):
    call = grpc_client.generate(text="x", options=ENDLESS)
    identifier = next(call).id
    grpc_client.ask("Abort", id=identifier)
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    server.wait_idle()
    error = error_of(grpc_client.ask, "Abort", id=identifier)
    assert error.code() == grpc.StatusCode.NOT_FOUND and identifier in error.details()


def test_abort_ends_all_choices_of_an_http_answer(server, grpc_client):
    with server.open_stream("/v1/completions", {"prompt": "x", "n": 3, **ENDLESS}) as response:
        first = json.loads(response.readline().decode().removeprefix("data: "))
        grpc_client.ask("Abort", id=first["id"])
        events = sse_data("\n" + response.read().decode())
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "cancelled"
    server.wait_idle()


@pytest.mark.parametrize("identifier", ["", "cmpl-0", "x" * 10000, "\n"])
def test_abort_of_nothing(grpc_client, identifier):
    error = error_of(grpc_client.ask, "Abort", id=identifier)
    assert error.code() == grpc.StatusCode.NOT_FOUND
    assert field_of(error) == "id"


# ---- keys ----------------------------------------------------------------------------------------


def test_they_need_a_key(start_server):
    server = start_server(environment={"MOBIUS_SECURITY_API_KEYS": f"{ALICE},{BOB}"})
    client = server.grpc_client()
    for method, fields in (
        ("Tokenize", {"text": "x"}),
        ("GetModelInfo", {}),
        ("GetLoad", {}),
        ("Abort", {"id": "x"}),
    ):
        error = error_of(client.ask, method, **fields)
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED, method
    client.metadata = [("authorization", f"Bearer {ALICE}")]
    assert client.ask("GetLoad").ready
    assert client.ask("GetModelInfo").name == "tiny"
    assert len(client.ask("Tokenize", text="x").ids) >= 1
    # Nobody ends the work of another key, or learns that there is any.
    call = client.generate(text="x", options=ENDLESS)
    identifier = next(call).id
    client.metadata = [("authorization", f"Bearer {BOB}")]
    assert error_of(client.ask, "Abort", id=identifier).code() == grpc.StatusCode.NOT_FOUND
    assert next(call).id == identifier
    client.metadata = [("authorization", f"Bearer {ALICE}")]
    client.ask("Abort", id=identifier)
    with pytest.raises(grpc.RpcError):
        list(call)
    client.close()


def test_tokenize_counts_against_the_limit_and_load_does_not(start_server):
    server = start_server(security__requests_per_minute=2)
    client = server.grpc_client()
    for _ in range(5):
        assert client.ask("GetLoad").ready
    for _ in range(2):
        client.ask("Tokenize", text="x")
    assert error_of(client.ask, "Tokenize", text="x").code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.ask("GetLoad").ready
    client.close()
