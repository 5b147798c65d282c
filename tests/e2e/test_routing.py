"""`mobius.routing`: which blocks MoBA selected for an answer."""

import json
import pathlib
import random
import threading

import grpc
import pytest

from server import Server

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models/mobius-tiny"
BLOCK, TOP_K = 128, 4
ATTENTION = {"prefill": {"mode": "moba", "block": BLOCK, "top_k": TOP_K},
             "decode": {"mode": "moba", "block": BLOCK, "top_k": TOP_K}, "full_attention_last_layers": 1}
LAYERS, HEADS = 6, 8
FACT = "The captain of the ferry Wesstead is Nora Abbott."
QUESTION = "Who is the captain of the ferry Wesstead?"
OTHER_FACT = "The captain of the ferry Halden is Edith Cole."
OTHER_QUESTION = "Who is the captain of the ferry Halden?"


def story(seed, sentences, at, other_at=None):
    """Prose without facts, but for one behind so many sentences, and another where it is wanted."""
    draw = random.Random(seed)
    who = ["The miller", "An old sailor", "The baker's son", "A tall woman", "The night porter", "Somebody's uncle"]
    did = ["walked along", "looked down at", "had never liked", "sat for an hour by", "came back to", "painted"]
    what = ["the river", "the empty market", "a wooden bridge", "the harbour wall", "the long road", "a field of barley"]
    when = ["in the morning", "before the rain came", "on most Sundays", "without a word", "when the bells rang", "that year"]
    lines = [f"{draw.choice(who)} {draw.choice(did)} {draw.choice(what)} {draw.choice(when)}." for _ in range(sentences)]
    facts = [(at, FACT)] + ([(other_at, OTHER_FACT)] if other_at is not None else [])
    for place, fact in sorted(facts, reverse=True):
        lines.insert(place, fact)
    return " ".join(lines)


def question_about(document, question=QUESTION):
    return [{"role": "user", "content": f"{document}\n\n{question}"}]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A server of the embedded model."""
    running = Server(tmp_path_factory.mktemp("embedded"), MODEL, kv__bytes=256 << 20)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def grpc_embedded(embedded):
    client = embedded.grpc_client()
    yield client
    client.close()


def ask(server, document, question=QUESTION, **more):
    body = {"messages": question_about(document, question), "max_tokens": 24, "temperature": 0,
            "mobius": {**ATTENTION, "routing": True}, **more}
    status, answer = server.post("/v1/chat/completions", body)
    assert status == 200, answer
    return answer


def chosen(entry):
    return entry["count"] - entry["own"]


def check_shape(routing, answer, layers=LAYERS, heads=HEADS, full=1, top_k=TOP_K):
    """What holds for the routing of every answer that MoBA drew in blocks of one size."""
    usage = answer["usage"]
    tokens = usage.get("completion_tokens") or usage["output_tokens"]
    prompt = usage.get("prompt_tokens") or usage["input_tokens"]
    assert routing["tokens"] == tokens
    assert routing["first_own_block"] == (prompt - 1) // routing["block"]
    assert routing["blocks"] == (prompt + tokens - 2) // routing["block"] + 1
    columns = -(-routing["blocks"] // routing["column_blocks"])
    assert len(routing["counts"]) == layers
    assert routing["counts"][layers - full:] == [None] * full
    own = [0] * routing["blocks"]
    for position in range(prompt - 1, prompt - 1 + tokens):
        own[position // routing["block"]] += 1
    for layer in routing["counts"][:layers - full]:
        assert len(layer) == heads
        for counts in layer:
            assert len(counts) == columns
            assert sum(counts) == sum(min(top_k, (prompt - 1 + i) // routing["block"] + 1) for i in range(tokens))
            if routing["column_blocks"] == 1:
                assert all(count >= must for count, must in zip(counts, own, strict=True))
                assert max(counts) <= tokens
    lists = (layers - full) * heads
    for entry in routing["top"]:
        assert entry["first_token"] == entry["block"] * routing["block"]
        assert entry["own"] == lists * own[entry["block"]]
        if routing["column_blocks"] == 1:
            assert entry["count"] == sum(counts[entry["block"]] for layer in routing["counts"] if layer for counts in layer)
    order = [(-chosen(entry), entry["block"]) for entry in routing["top"]]
    assert order == sorted(order)


def blocks_of(server, document, text):
    """The blocks that hold a text of the document."""
    begin = document.index(text)

    def tokens(content):
        messages = [{"role": "user", "content": content}]
        return server.post("/tokenize", {"messages": messages})[1]["count"] - after

    after = 6  # tokens of the template behind the content: the end of the turn, and the next one's header
    return range(tokens(document[:begin]) // BLOCK, tokens(document[:begin + len(text)]) // BLOCK + 1)


def test_a_question_draws_the_block_that_answers_it(embedded):
    """Two facts in a document, two questions. Every layer has to choose: where the last one reads everything, it is
    this one that finds facts, and the others' choices say little."""
    mobius = {"prefill": {**ATTENTION["prefill"], "top_k": 6}, "decode": {**ATTENTION["decode"], "top_k": 6},
              "full_attention_last_layers": 0, "routing": True}
    drawn = {True: 0.0, False: 0.0}  # by its own question, by the other
    for seed, at, other_at in ((3, 90, 30), (4, 22, 75), (6, 120, 60)):
        document = story(seed, 150, at, other_at)
        for question, expected in ((QUESTION, "Nora Abbott"), (OTHER_QUESTION, None)):
            answer = ask(embedded, document, question, mobius=mobius)
            routing = answer["mobius"]["routing"]
            check_shape(routing, answer, full=0, top_k=6)
            if expected:
                assert expected in answer["choices"][0]["message"]["content"]
            for fact, own_question in ((FACT, QUESTION), (OTHER_FACT, OTHER_QUESTION)):
                count = sum(head[block] for head in routing["counts"][-1] for block in blocks_of(embedded, document, fact))
                drawn[question == own_question] += count / routing["tokens"]
    assert drawn[True] > 1.15 * drawn[False], drawn


def streamed(server, path, body):
    with server.open_stream(path, {**body, "stream": True}) as response:
        assert response.status == 200
        lines = response.read().decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(event) for event in data if event != "[DONE]"]


def test_it_is_the_same_whole_and_streamed_on_every_endpoint(embedded):
    document = story(3, 40, 20)
    whole = ask(embedded, document)
    expected = whole["mobius"]["routing"]
    check_shape(expected, whole)
    text = whole["choices"][0]["message"]["content"]
    common = {"temperature": 0, "mobius": {**ATTENTION, "routing": True}}

    chat = {"messages": question_about(document), "max_tokens": 24, **common}
    for more in ({}, {"stream_options": {"include_usage": True}}):
        events = streamed(embedded, "/v1/chat/completions", {**chat, **more})
        assert [event.get("mobius", {}).get("routing") for event in events[:-1]] == [None] * (len(events) - 1)
        assert events[-1]["mobius"]["routing"] == expected

    response = {"input": question_about(document), "max_output_tokens": 24, **common}
    status, answer = embedded.post("/v1/responses", response)
    assert status == 200, answer
    assert answer["mobius"]["routing"] == expected
    assert streamed(embedded, "/v1/responses", response)[-1]["response"]["mobius"]["routing"] == expected

    prompt = embedded.post("/v1/chat/completions/render", {"messages": question_about(document)})[1]["token_ids"]
    status, answer = embedded.complete(prompt, max_tokens=24, **common)
    assert status == 200, answer
    assert (answer["choices"][0]["text"], answer["mobius"]["routing"]) == (text, expected)


def test_it_is_the_same_over_grpc(embedded, grpc_embedded):
    document = story(3, 40, 20)
    expected = ask(embedded, document)["mobius"]["routing"]
    attention = {phase: {"mode": "MODE_MOBA", "block": BLOCK, "top_k": TOP_K} for phase in ("prefill", "decode")}
    options = {"max_tokens": 24, "temperature": 0, "routing": True,
               "attention": {**attention, "full_attention_last_layers": 1}}
    prompt = embedded.post("/v1/chat/completions/render", {"messages": question_about(document)})[1]["token_ids"]
    for messages in (grpc_embedded.chat(messages=question_about(document), options=options),
                     grpc_embedded.generate(tokens={"ids": prompt}, options=options)):
        messages = list(messages)
        assert not any(message.finished.HasField("routing") for message in messages[:-1])
        found = messages[-1].finished.routing
        flat = [count for layer in expected["counts"] if layer for head in layer for count in head]
        assert list(found.counts) == flat
        assert (found.layers, found.full_layers, found.heads) == (LAYERS, 1, HEADS)
        assert found.columns == len(flat) // HEADS // (LAYERS - 1)
        for name in ("tokens", "block", "blocks", "first_own_block", "column_blocks"):
            assert getattr(found, name) == expected[name], name
        assert [{name: getattr(block, name) for name in ("block", "first_token", "tokens", "count", "own", "text")}
                for block in found.top] == expected["top"]


def test_over_grpc_too_only_where_asked(grpc_client):
    assert grpc_client.ask("GetModelInfo").routing
    options = {"max_tokens": 2, "ignore_eos": True}
    assert not list(grpc_client.generate(text="Hi", options=options))[-1].finished.HasField("routing")
    full = {phase: {"mode": "MODE_FULL"} for phase in ("prefill", "decode")}
    found = list(grpc_client.generate(text="Hi", options={**options, "routing": True, "attention": full}))[-1].finished
    assert found.HasField("routing") and (found.routing.tokens, found.routing.block) == (0, 0)
    with pytest.raises(grpc.RpcError) as error:
        list(grpc_client.generate(text="Hi", options={**options, "routing": True, "n": 2}))
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert dict(error.value.trailing_metadata())["mobius-field"] == "routing"


def test_texts_are_those_of_the_prompts_tokens(embedded):
    document = story(4, 40, 30)
    answer = ask(embedded, document)
    tokens = embedded.post("/v1/chat/completions/render", {"messages": question_about(document)})[1]["token_ids"]
    for entry in answer["mobius"]["routing"]["top"]:
        end = entry["first_token"] + entry["tokens"]
        if end > len(tokens):
            continue
        text = embedded.post("/detokenize", {"tokens": tokens[entry["first_token"]:end]})[1]["prompt"]
        assert entry["text"] == text


def test_a_prompt_from_the_cache_is_routed_alike(embedded):
    document = story(5, 40, 10)
    first, second = ask(embedded, document), ask(embedded, document)
    assert second["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    assert first["mobius"]["routing"] == second["mobius"]["routing"]


def test_preemption_and_company_change_nothing(tmp_path, embedded):
    documents = [story(10 + i, 20, 4 * i) for i in range(5)]
    options = {"max_tokens": 300, "ignore_eos": True}
    expected = [ask(embedded, document, **options)["mobius"]["routing"] for document in documents]
    # Room for four of them when they begin, and for three when they end.
    small = Server(tmp_path, MODEL, kv__bytes=12 << 20, model__max_context=1280)
    try:
        found = [None] * len(documents)

        def run(index):
            found[index] = ask(small, documents[index], **options)["mobius"]["routing"]

        threads = [threading.Thread(target=run, args=(i,)) for i in range(len(documents))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        metrics = small.request("GET", "/metrics")[2].decode()
        assert found == expected
        preemptions = next(line for line in metrics.splitlines() if line.startswith("vllm:num_preemptions_total"))
        assert float(preemptions.split()[-1]) > 0, "the pool is too large for this test"
    finally:
        small.stop()


@pytest.mark.parametrize("prefill, decode, tokens", [
    ({"mode": "full"}, {"mode": "full"}, 0),
    ({"mode": "moba", "block": 128, "top_k": 3}, {"mode": "full"}, 1),
    ({"mode": "full"}, {"mode": "moba", "block": 128, "top_k": 3}, 9),
    ({"mode": "moba", "block": 256, "top_k": 3}, {"mode": "moba", "block": 128, "top_k": 3}, 9),
    ({"mode": "moba", "block": 128, "top_k": 3}, {"mode": "moba", "block": 128, "top_k": 2}, 10),
])
def test_what_counts_under_policies_that_differ(server, prefill, decode, tokens):
    mobius = {"prefill": prefill, "decode": decode, "full_attention_last_layers": 1, "routing": True}
    status, answer = server.complete("Once upon a time " * 100, max_tokens=10, ignore_eos=True, mobius=mobius)
    assert status == 200, answer
    routing = answer["mobius"]["routing"]
    assert routing["tokens"] == tokens
    assert bool(routing["top"]) == (tokens > 0)
    if tokens == 0:
        assert routing["block"] is None and set(routing["counts"]) == {None}
    else:
        assert routing["block"] == 128
        assert [layer is None for layer in routing["counts"]] == [False, False, False, True]


def test_nothing_comes_where_nobody_asked(server):
    for mobius in ({}, {"routing": False}, {"routing": None}):
        status, answer = server.chat(max_tokens=3, mobius=mobius)
        assert status == 200
        assert "routing" not in answer["mobius"]


@pytest.mark.parametrize("body, param, words", [
    ({"mobius": {"routing": 1}}, "mobius.routing", ["boolean"]),
    ({"mobius": {"routing": "yes"}}, "mobius.routing", ["boolean"]),
    ({"mobius": {"routing": True}, "n": 2}, "mobius.routing", ["one answer", "2"]),
    ({"mobius": {"routing": True, "decode": {"mode": "moba", "block": 128, "top_k": 257}}}, "mobius.routing",
     ["257", "256"]),
    ({"mobius": {"routing": True, "prefill": {"mode": "moba", "block": 128, "top_k": 1000}}}, "mobius.routing",
     ["1000", "256"]),
])
def test_what_cannot_be_told_is_refused(server, body, param, words):
    status, answer = server.chat(max_tokens=3, **body)
    assert status == 400, answer
    assert answer["error"]["param"] == param
    for word in words:
        assert word in answer["error"]["message"]


def test_several_prompts_are_refused(server):
    status, answer = server.complete(["One", "Two"], max_tokens=3, mobius={"routing": True})
    assert status == 400 and answer["error"]["param"] == "mobius.routing"


def test_the_model_says_whether_it_can(server):
    assert server.get("/v1/models")[1]["data"][0]["mobius"]["routing"] is True
