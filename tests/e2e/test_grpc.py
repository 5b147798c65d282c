"""mobius.v1 through reflection alone, as a client without generated code sees it."""

import json
import signal

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import START_SECONDS


def text_of(messages):
    return "".join(
        m.token.text if m.WhichOneof("event") == "token" else m.finished.text for m in messages
    )


def test_reflection_lists_the_services(grpc_client):
    assert "mobius.v1.Mobius" in grpc_client.services
    assert "grpc.health.v1.Health" in grpc_client.services


@pytest.mark.parametrize("service", ["", "mobius.v1.Mobius"])
def test_health(grpc_client, service):
    stub = health_pb2_grpc.HealthStub(grpc_client.channel)
    answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_generate_streams_tokens_and_finishes(grpc_client):
    messages = list(
        grpc_client.generate(
            text="Hello", options={"max_tokens": 6, "ignore_eos": True, "seed": 1}
        )
    )
    kinds = [message.WhichOneof("event") for message in messages]
    assert kinds == ["token"] * 6 + ["finished"]
    assert len({message.id for message in messages}) == 1
    finished = messages[-1].finished
    assert finished.usage.completion_tokens == 6
    assert finished.usage.prompt_tokens > 0
    assert finished.timing.total_ms >= finished.timing.first_token_ms > 0
    assert 0 < finished.prefill_reads.read <= finished.prefill_reads.total
    assert not messages[0].token.HasField("logprob")


def test_chat_equals_http(server, grpc_client):
    _, answer = server.chat("Hello", max_tokens=16, seed=11)
    messages = grpc_client.chat(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}],
        options={"max_tokens": 16, "seed": 11},
    )
    assert text_of(messages) == answer["choices"][0]["message"]["content"]


def test_generate_equals_http(server, grpc_client):
    _, answer = server.complete("Once", max_tokens=16, seed=12, temperature=0.5, top_k=20)
    messages = grpc_client.generate(
        text="Once", options={"max_tokens": 16, "seed": 12, "temperature": 0.5, "top_k": 20}
    )
    assert text_of(messages) == answer["choices"][0]["text"]


def test_progress_logprobs_and_attention(grpc_client):
    messages = list(
        grpc_client.generate(
            tokens={"ids": [9] * 3000},
            options={
                "max_tokens": 2,
                "ignore_eos": True,
                "progress": True,
                "top_logprobs": 3,
                "attention": {
                    "prefill": {"mode": "MODE_MOBA", "block": 128, "top_k": 2},
                    "full_attention_last_layers": 1,
                },
            },
        )
    )
    progress = [m.progress for m in messages if m.WhichOneof("event") == "progress"]
    assert progress and all(entry.total == 3000 for entry in progress)
    tokens = [m.token for m in messages if m.WhichOneof("event") == "token"]
    assert [len(token.top) for token in tokens] == [3, 3]
    assert all(token.logprob <= token.top[0].logprob for token in tokens)
    reads = messages[-1].finished.prefill_reads
    assert reads.read < reads.total


@pytest.mark.parametrize(
    "fields, field, words",
    [
        ({}, "prompt", "missing"),
        ({"text": "x", "options": {"temperature": float("nan")}}, "temperature", "nan"),
        ({"text": "x", "options": {"temperature": 3}}, "temperature", "2"),
        ({"text": "x", "options": {"max_tokens": -1}}, "max_tokens", "-1"),
        ({"text": "x", "options": {"top_p": 0}}, "top_p", "0"),
        ({"text": "x", "options": {"top_logprobs": 21}}, "top_logprobs", "20"),
        ({"text": "x", "options": {"n": 129}}, "n", "128"),
        ({"text": "x", "options": {"n": 0}}, "n", "128"),
        ({"text": "x", "options": {"prompt_logprobs": 21}}, "prompt_logprobs", "20"),
        ({"tokens": {"ids": [1] * 8000}, "options": {"prompt_logprobs": 0, "n": 5}}, "tokens.ids", "32768"),
        ({"text": "x", "options": {"logit_bias": {100000: 1}}}, "logit_bias", "100000"),
        ({"tokens": {"ids": [1, -5]}}, "tokens.ids[1]", "-5"),
        ({"tokens": {"ids": [1] * 9000}}, "tokens.ids", "9000"),
        ({"text": "x " * 20000}, "text", "8191"),
        (
            {"text": "x", "options": {"attention": {"prefill": {"mode": 2, "block": 100}}}},
            "attention.prefill.block",
            "100",
        ),
        (
            {"text": "x", "options": {"attention": {"decode": {"mode": 7}}}},
            "attention.decode.mode",
            "7",
        ),
    ],
)
def test_bad_requests_name_field_and_value(grpc_client, fields, field, words):
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.generate(**fields))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.value.details()
    assert dict(error.value.trailing_metadata())["mobius-field"] == field


def test_several_choices(server, grpc_client):
    body = {"max_tokens": 12, "seed": 9, "ignore_eos": True}
    _, answer = server.complete("Hello", n=3, **body)
    messages = list(grpc_client.generate(text="Hello", options={**body, "n": 3}))
    texts = [
        "".join(m.token.text + m.finished.text for m in messages if m.choice == i) for i in range(3)
    ]
    assert texts == [choice["text"] for choice in answer["choices"]]
    ends = [m for m in messages if m.WhichOneof("event") == "finished"]
    assert sorted(m.choice for m in ends) == [0, 1, 2]
    for end in ends:
        assert end.finished.seed == answer["choices"][end.choice]["mobius"]["seed"]
        assert end.finished.usage.completion_tokens == 12
    assert len({m.id for m in messages}) == 1


def test_choices_of_a_chat_with_tools_have_calls_of_their_own(grpc_client):
    tool = json.dumps(
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {
                    "type": "object",
                    "properties": {"x": {"type": "boolean"}},
                    "required": ["x"],
                    "additionalProperties": False,
                },
            },
        }
    )
    messages = list(
        grpc_client.chat(
            messages=[{"role": "user", "content": "x"}],
            tools=[tool],
            tool_choice={"function": "f"},
            options={"n": 2, "seed": 4, "max_tokens": 200},
        )
    )
    calls = {0: {}, 1: {}}
    for message in messages:
        for part in (message.token, message.finished):
            for call in part.tool_calls:
                if call.id:
                    calls[message.choice]["id"] = call.id
                old = calls[message.choice].get("arguments", "")
                calls[message.choice]["arguments"] = old + call.arguments
    assert calls[0]["id"] != calls[1]["id"]
    for call in calls.values():
        assert set(json.loads(call["arguments"])) == {"x"}


def test_one_choice_that_fails_ends_the_call_and_all_others(server, grpc_client):
    call = grpc_client.generate(
        text="x", options={"n": 3, "max_tokens": 8000, "ignore_eos": True}, timeout=0.3
    )
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_idle()


def test_abort_ends_all_choices(server, grpc_client):
    call = grpc_client.generate(text="x", options={"n": 3, "max_tokens": 8000, "ignore_eos": True})
    first = next(call)
    grpc_client.ask("Abort", id=first.id)
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    server.wait_idle()


def test_prompt_logprobs(server, grpc_client):
    options = {"max_tokens": 2, "seed": 1, "prompt_logprobs": 2, "n": 2}
    messages = list(grpc_client.generate(text="Once upon", options=options))
    _, answer = server.complete("Once upon", max_tokens=2, seed=1, echo=True, logprobs=2)
    expected = answer["choices"][0]["logprobs"]["token_logprobs"]
    for choice in (0, 1):
        own = [m for m in messages if m.choice == choice]
        kinds = [m.WhichOneof("event") for m in own]
        assert kinds.index("token") > max(i for i, kind in enumerate(kinds) if kind == "prompt")
        tokens = [t for m in own for t in m.prompt.tokens]
        assert len(tokens) == answer["usage"]["prompt_tokens"]
        assert not tokens[0].HasField("logprob") and len(tokens[0].top) == 0
        assert [t.logprob for t in tokens[1:]] == pytest.approx(expected[1 : len(tokens)], abs=1e-5)
        assert all(len(t.top) == 2 for t in tokens[1:])


def test_bad_chats(grpc_client):
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.chat(messages=[{"role": "king", "content": "x"}]))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["mobius-field"] == "messages[0].role"
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.chat(messages=[]))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    user = {"role": "user", "content": "x"}
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.chat(messages=[user], tools=["{broken"]))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    call = {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "["}]}
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.chat(messages=[user, call]))
    field = "messages[1].tool_calls[0].arguments"
    assert dict(error.value.trailing_metadata())["mobius-field"] == field
    assert error.value.details().startswith(field)


def test_over_long_chat_names_the_messages(grpc_client):
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.chat(messages=[{"role": "developer", "content": "x " * 20000}]))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["mobius-field"] == "messages"


def test_unknown_model(grpc_client):
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.generate(model="gpt-5", text="x"))
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert "gpt-5" in error.value.details()


def test_message_over_the_limit(start_server):
    server = start_server(grpc__max_message_bytes=4096)
    client = server.grpc_client()
    with pytest.raises(grpc.RpcError) as error:
        list(client.generate(text="x" * 5000))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()


def test_deadline_ends_the_generation(server, grpc_client):
    call = grpc_client.generate(
        text="x", options={"max_tokens": 8000, "ignore_eos": True}, timeout=0.3
    )
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    server.wait_idle()


def test_cancelling_frees_the_pages(server, grpc_client):
    server.wait_idle()
    before = server.stats()["pages_used"]
    call = grpc_client.generate(
        tokens={"ids": [3] * 2000}, options={"max_tokens": 6000, "ignore_eos": True}
    )
    next(call)
    assert server.stats()["pages_used"] > before
    call.cancel()
    server.wait_until(lambda stats: stats["running"] == 0 and stats["pages_used"] <= before)


def test_slow_reader_gets_everything(grpc_client):
    call = grpc_client.generate(
        text="x", options={"max_tokens": 2000, "ignore_eos": True, "top_logprobs": 20}
    )
    first = next(call)
    assert first.WhichOneof("event") == "token"
    rest = list(call)
    assert len(rest) == 2000
    assert rest[-1].finished.usage.completion_tokens == 2000


def test_client_that_does_not_read_is_cut_off(start_server):
    server = start_server(grpc__write_timeout_seconds=1)
    # Takes little without being asked to.
    client = server.grpc_client(http2__bdp_probe=0, http2__lookahead_bytes=65535)
    call = client.generate(
        text="x", options={"max_tokens": 8000, "ignore_eos": True, "top_logprobs": 20}
    )
    next(call)
    # Not read: flow control stops the messages, and the write times out.
    server.wait_for_log("grpc_client_cut_off", seconds=60)
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    # Its generation has come to an end too, and holds up nothing.
    server.wait_for_log("generation", lambda line: line["protocol"] == "grpc")
    assert len(list(client.generate(text="x", options={"max_tokens": 1}))) >= 1
    client.close()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=START_SECONDS) == 0
    assert server.log_lines("stopped")[0]["drained"] == "yes"


@pytest.mark.parametrize(
    "data", [b"\xff" * 50, b"\x12\x02\xff\xfe", b"\x0a\x7f"], ids=["garbage", "utf8", "cut"]
)
def test_messages_that_are_no_protobuf(server, grpc_client, data):
    """Garbage, text that is not UTF-8, a length beyond the end: gRPC itself refuses them, its C++
    callback API (1.51) with UNIMPLEMENTED."""
    call = grpc_client.channel.unary_stream("/mobius.v1.Mobius/Generate")
    with pytest.raises(grpc.RpcError) as error:
        list(call(data, timeout=20))
    assert error.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNIMPLEMENTED)
    assert server.get("/health")[0] == 200
