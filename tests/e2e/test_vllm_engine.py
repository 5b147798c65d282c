"""vLLM's engine service, as routers speak it, over gRPC reflection."""

import hashlib
import io
import pathlib
import zipfile

import grpc
import pytest
from google.protobuf import message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "vllm.grpc.engine.VllmEngine"
PROMPT = [65, 66, 67] * 5


@pytest.fixture(scope="module")
def engine(server):
    client = server.grpc_client(SERVICE)
    yield client
    client.close()


def generate(engine, ids=PROMPT, stream=False, request_id="", timeout=60, **params):
    return engine.call(
        "Generate",
        engine.message(
            "GenerateRequest",
            request_id=request_id,
            tokenized={"input_ids": ids, "original_text": "not read"},
            sampling_params=params,
            stream=stream,
        ),
        timeout,
    )


def mobius_tokens(grpc_client, **options):
    messages = list(grpc_client.generate(tokens={"ids": PROMPT}, options=options))
    return [m.token for m in messages if m.WhichOneof("event") == "token"]


def test_whole_answer(engine, grpc_client):
    params = {"max_tokens": 8, "seed": 3, "ignore_eos": True}
    answer = list(generate(engine, logprobs=2, **params))
    assert [m.WhichOneof("response") for m in answer] == ["complete"]
    complete = answer[0].complete
    expected = mobius_tokens(grpc_client, top_logprobs=2, **params)
    assert list(complete.output_ids) == [token.id for token in expected]
    assert complete.finish_reason == "length"
    assert (complete.prompt_tokens, complete.completion_tokens) == (len(PROMPT), 8)
    assert list(complete.output_logprobs.token_ids) == list(complete.output_ids)
    assert list(complete.output_logprobs.token_logprobs) == [t.logprob for t in expected]
    tops = complete.output_logprobs.top_logprobs
    assert [list(top.token_ids) for top in tops] == [[o.id for o in t.top] for t in expected]
    assert not complete.HasField("input_logprobs")


def test_stream(engine, grpc_client):
    params = {"max_tokens": 8, "seed": 3, "ignore_eos": True}
    answer = list(generate(engine, stream=True, logprobs=0, **params))
    *chunks, last = answer
    assert all(m.WhichOneof("response") == "chunk" for m in chunks)
    ids = [token for m in chunks for token in m.chunk.token_ids]
    expected = mobius_tokens(grpc_client, top_logprobs=0, **params)
    assert ids == [token.id for token in expected]
    logprobs = [x for m in chunks for x in m.chunk.output_logprobs.token_logprobs]
    assert logprobs == [token.logprob for token in expected]
    assert all(not m.chunk.output_logprobs.top_logprobs for m in chunks)
    assert all(m.chunk.prompt_tokens == len(PROMPT) for m in chunks)
    assert last.complete.completion_tokens == 8 and not last.complete.output_ids


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(engine, server, stream):
    body = {"max_tokens": 6, "seed": 5, "ignore_eos": True}
    answer = list(generate(engine, n=2, stream=stream, **body))
    completes = [m.complete for m in answer if m.WhichOneof("response") == "complete"]
    assert sorted(complete.index for complete in completes) == [0, 1]
    ids = {0: [], 1: []}
    for message in answer:
        part = getattr(message, message.WhichOneof("response"))
        ids[part.index] += list(part.token_ids if hasattr(part, "token_ids") else part.output_ids)
    assert [len(ids[0]), len(ids[1])] == [6, 6] and ids[0] != ids[1]
    _, http = server.complete(PROMPT, n=2, **body)
    texts = [server.post("/detokenize", {"tokens": ids[i]})[1]["prompt"] for i in (0, 1)]
    assert texts == [choice["text"] for choice in http["choices"]]


@pytest.mark.parametrize("stream", [False, True])
def test_prompt_logprobs(engine, server, stream):
    answer = list(generate(engine, stream=stream, max_tokens=2, seed=1, prompt_logprobs=1))
    first = getattr(answer[0], answer[0].WhichOneof("response")).input_logprobs
    assert list(first.token_ids) == PROMPT
    assert not first.token_logprobs[0].HasField("value")
    _, http = server.complete(PROMPT, max_tokens=2, seed=1, echo=True, logprobs=1)
    expected = http["choices"][0]["logprobs"]["token_logprobs"][1 : len(PROMPT)]
    assert [x.value for x in first.token_logprobs[1:]] == pytest.approx(expected, abs=1e-5)
    assert [len(top.values) for top in first.top_logprobs] == [0] + [1] * (len(PROMPT) - 1)
    for message in answer[1:]:
        part = getattr(message, message.WhichOneof("response"))
        assert not part.HasField("input_logprobs")


def test_what_stopped_it(engine, server):
    ids = list(next(generate(engine, max_tokens=20, seed=5, ignore_eos=True)).complete.output_ids)
    stopped = next(generate(engine, max_tokens=20, seed=5, ignore_eos=True, stop_token_ids=[ids[4]]))
    complete = stopped.complete
    assert complete.finish_reason == "stop" and complete.matched_token_id == ids[4]
    assert list(complete.output_ids) == ids[: ids.index(ids[4]) + 1]
    text = server.post("/detokenize", {"tokens": ids})[1]["prompt"]
    stop = text[6:8]
    complete = next(generate(engine, max_tokens=20, seed=5, ignore_eos=True, stop=[stop])).complete
    assert complete.matched_stop_str == stop


def test_a_prompt_is_scored_without_an_answer(engine):
    longer = list(generate(engine, max_tokens=1, prompt_logprobs=1))[0].complete
    complete = list(generate(engine, max_tokens=0, prompt_logprobs=1))[0].complete
    assert not complete.output_ids and complete.completion_tokens == 0
    assert complete.input_logprobs == longer.input_logprobs


def test_json_schema(engine, server):
    schema = '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}'
    complete = next(generate(engine, max_tokens=100, json_schema=schema)).complete
    assert complete.finish_reason == "stop"
    text = server.post("/detokenize", {"tokens": list(complete.output_ids)})[1]["prompt"]
    assert '"a"' in text


def test_the_tokenizers_files(engine, checkpoint):
    descriptor = engine.service.FindMethodByName("GetTokenizer")
    call = engine.channel.unary_stream(
        f"/{SERVICE}/GetTokenizer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=message_factory.GetMessageClass(descriptor.output_type).FromString,
    )
    for _ in range(2):
        chunks = list(call(message_factory.GetMessageClass(descriptor.input_type)(), timeout=60))
        data = b"".join(chunk.data for chunk in chunks)
        assert [bool(chunk.sha256) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        assert chunks[-1].sha256 == hashlib.sha256(data).hexdigest()
        assert all(len(chunk.data) <= 65536 for chunk in chunks)
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    names = set(archive.namelist())
    assert {"config.json", "tokenizer.json"} <= names
    assert not any(name.endswith(".safetensors") for name in names)
    for name in names:
        assert archive.read(name) == (checkpoint / name).read_bytes()


def test_the_models_path_is_absolute(engine, checkpoint):
    info = engine.ask("GetModelInfo")
    assert pathlib.Path(info.model_path).is_absolute()
    assert pathlib.Path(info.tokenizer_path).resolve() == checkpoint.resolve()


def test_defaults_of_a_client_that_sets_nothing(engine):
    request = engine.message("GenerateRequest", text="Hello", sampling_params={"max_tokens": 3})
    complete = next(engine.call("Generate", request)).complete
    assert complete.finish_reason in ("length", "stop") and complete.completion_tokens <= 3


@pytest.mark.parametrize(
    "fields, field, words",
    [
        ({}, "input", "missing"),
        ({"sampling_params": {"temperature": 3}}, "temperature", "2"),
        ({"sampling_params": {"max_tokens": 2**32 - 1}}, "max_tokens", str(2**31 - 1)),
        ({"sampling_params": {"logprobs": -1}}, "logprobs", "20"),
        ({"sampling_params": {"prompt_logprobs": 21}}, "prompt_logprobs", "20"),
        ({"sampling_params": {"min_tokens": 4}}, "min_tokens", "4"),
        ({"sampling_params": {"n": 200}}, "n", "128"),
        ({"sampling_params": {"truncate_prompt_tokens": 4}}, "truncate_prompt_tokens", "support"),
        ({"sampling_params": {"regex": "a+"}}, "regex", "support"),
        ({"sampling_params": {"choice": {}}}, "choice", "support"),
        ({"sampling_params": {"json_schema": "{"}}, "json_schema", "JSON"),
        ({"mm_inputs": {}}, "mm_inputs", "support"),
        ({"kv_transfer_params_json": "{}"}, "kv_transfer_params_json", "support"),
        ({"data_parallel_rank": 1}, "data_parallel_rank", "only 0"),
        ({"request_id": "x" * 129}, "request_id", "128"),
        ({"request_id": "a\nb"}, "request_id", "printable"),
        ({"request_id": "gr\u00fcn"}, "request_id", "printable"),
        ({"tokenized": {"input_ids": [1, 2**32 - 1]}}, "tokenized.input_ids[1]", f"is {2**32 - 1}, must be a token from 0 to 319"),
        ({"tokenized": {"input_ids": [1, 100000]}}, "tokenized.input_ids[1]", "100000"),
        ({"tokenized": {"input_ids": [1] * 9000}}, "tokenized.input_ids", "9000"),
    ],
)
def test_bad_requests_name_field_and_value(engine, fields, field, words):
    if field != "input" and "tokenized" not in fields:
        fields = {"text": "x", **fields}
    with pytest.raises(grpc.RpcError) as error:
        list(engine.call("Generate", engine.message("GenerateRequest", **fields)))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert words in error.value.details()
    assert dict(error.value.trailing_metadata())["mobius-field"] == field


def test_abort_by_the_clients_own_id(engine, server):
    call = generate(engine, stream=True, request_id="mine", max_tokens=8000, ignore_eos=True, n=2)
    next(call)
    with pytest.raises(grpc.RpcError) as error:
        list(generate(engine, request_id="mine", max_tokens=1))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["mobius-field"] == "request_id"
    engine.ask("Abort", request_ids=["nobody's", "mine"])
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    server.wait_idle()
    assert list(generate(engine, request_id="mine", max_tokens=1))


def test_health_and_information(engine, server, checkpoint):
    assert engine.ask("HealthCheck").healthy
    stub = health_pb2_grpc.HealthStub(engine.channel)
    state = stub.Check(health_pb2.HealthCheckRequest(service=SERVICE)).status
    assert state == health_pb2.HealthCheckResponse.SERVING
    model = engine.ask("GetModelInfo")
    assert model.served_model_name == "tiny" and pathlib.Path(model.model_path) == checkpoint
    assert model.is_generation and not model.supports_vision
    assert model.max_context_length == 8192 and model.vocab_size > 0
    assert model.eos_token_ids and model.bos_token_id > 0
    info = engine.ask("GetServerInfo")
    assert info.server_type == "mobius" and not info.is_paused and info.uptime_seconds > 0


def test_loads(engine, server):
    server.wait_idle()
    call = generate(engine, stream=True, max_tokens=8000, ignore_eos=True)
    server.wait_until(lambda stats: stats["running"] == 1)
    answer = engine.ask("GetLoads")
    (load,) = answer.loads
    assert answer.dp_rank_count == 1 and answer.version and answer.timestamp.endswith("Z")
    assert (load.num_running_reqs, load.num_total_reqs) == (1, 1)
    assert 0 < load.num_used_tokens < load.max_total_num_tokens and 0 < load.token_usage < 1
    assert 0 < load.utilization <= 1 and load.max_running_requests > 0
    call.cancel()
    assert not engine.ask("GetLoads", dp_rank=1).loads
    server.wait_idle()


def test_keys_are_those_of_the_other_protocols(start_server, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("alice mk-0123456789abcdef0123456789abcdef\n")
    keys.chmod(0o600)
    server = start_server(security__key_file=keys)
    client = server.grpc_client(SERVICE)
    for ask in [
        lambda: list(generate(client, max_tokens=1)),
        lambda: client.ask("HealthCheck"),
        lambda: client.ask("GetModelInfo"),
        lambda: client.ask("GetServerInfo"),
        lambda: client.ask("GetLoads"),
        lambda: client.ask("Abort", request_ids=["x"]),
    ]:
        client.metadata = []
        with pytest.raises(grpc.RpcError) as error:
            ask()
        assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
        client.metadata = [("authorization", "Bearer mk-0123456789abcdef0123456789abcdef")]
        ask()
    client.close()
