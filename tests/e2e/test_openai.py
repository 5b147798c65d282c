"""The OpenAI endpoints, answered whole and streamed."""

import pytest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


def test_health_ready_and_models(server):
    assert server.get("/health") == (200, {"status": "ok"})
    status, ready = server.get("/ready")
    assert status == 200 and ready["status"] == "ready" and ready["pages_total"] > 0
    status, models = server.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in models["data"]] == ["tiny"]
    assert server.get("/v1/models/tiny")[0] == 200
    assert server.get("/v1/models/other")[0] == 404


def test_chat_has_the_shape_of_openai(server):
    status, answer = server.chat(max_tokens=8, seed=7, model="tiny", user="somebody", n=1)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["id"].startswith("chatcmpl-")
    assert answer["model"] == "tiny"
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    mobius = answer["mobius"]
    assert mobius["seed"] == 7
    assert 0 < mobius["ttft_ms"] <= mobius["total_ms"]
    assert 0 < mobius["prefill_blocks"]["read"] <= mobius["prefill_blocks"]["total"]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_stream_says_the_same_as_the_whole_answer(server, path):
    body = {"max_tokens": 20, "seed": 3, "ignore_eos": True}
    body.update({"messages": MESSAGES} if path == CHAT else {"prompt": "Hello"})
    status, whole = server.post(path, body)
    assert status == 200
    chunks = server.stream(path, body)
    if path == CHAT:
        assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
        assert text == whole["choices"][0]["message"]["content"]
    else:
        text = "".join(c["choices"][0]["text"] for c in chunks)
        assert text == whole["choices"][0]["text"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    finish_reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finish_reasons[:-1] == [None] * (len(chunks) - 1)
    assert finish_reasons[-1] == "length" == whole["choices"][0]["finish_reason"]
    assert chunks[-1]["mobius"]["seed"] == 3


def test_stream_usage_and_progress(server):
    prompt = "All happy families are alike. " * 100
    chunks = server.stream(
        COMPLETIONS,
        {
            "prompt": prompt,
            "max_tokens": 4,
            "stream_options": {"include_usage": True},
            "mobius": {"progress": True},
        },
    )
    progress = [c["mobius"]["progress"] for c in chunks if "progress" in c.get("mobius", {})]
    assert progress, "no progress was reported"
    total = chunks[-1]["usage"]["prompt_tokens"]
    done = [entry["done"] for entry in progress]
    assert done == sorted(done) and done[-1] <= total
    assert all(entry["total"] == total for entry in progress)
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] <= 4
    assert chunks[-1]["mobius"]["total_ms"] > 0


def test_comments_keep_a_waiting_stream_open(start_server):
    server = start_server(http__keepalive_comment_seconds=1, engine__max_running=1)
    with server.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}
    ) as running:
        assert running.readline().startswith(b"data: ")
        # The only place is taken: this one waits, and hears comments meanwhile.
        with server.open_stream(COMPLETIONS, {"prompt": "x", "max_tokens": 2}) as waiting:
            assert waiting.readline() == b": keep-alive\n"
            running.close()
            assert "data: [DONE]" in waiting.read().decode()


def test_chat_logprobs(server):
    _, answer = server.chat(max_tokens=5, logprobs=True, top_logprobs=3, ignore_eos=True, seed=1)
    content = answer["choices"][0]["logprobs"]["content"]
    assert len(content) == 5
    for entry in content:
        assert entry["logprob"] <= 0
        top = [other["logprob"] for other in entry["top_logprobs"]]
        assert len(top) == 3 and top == sorted(top, reverse=True)
        assert entry["logprob"] <= top[0]
    greedy = server.chat(max_tokens=5, logprobs=True, top_logprobs=1, temperature=0)[1]
    for entry in greedy["choices"][0]["logprobs"]["content"]:
        assert entry["token"] == entry["top_logprobs"][0]["token"]


def test_completion_logprobs(server):
    _, answer = server.complete(max_tokens=5, logprobs=2, ignore_eos=True, seed=1)
    choice = answer["choices"][0]
    lists = choice["logprobs"]
    assert {len(values) for values in lists.values()} == {5}
    assert lists["text_offset"][0] == 0
    assert all(len(top) == 2 for top in lists["top_logprobs"])


def test_echo_with_logprobs(server):
    text = "Once upon a t\u00efme"
    body = {"prompt": text, "max_tokens": 5, "logprobs": 2, "ignore_eos": True, "seed": 1}
    _, plain = server.post(COMPLETIONS, body)
    _, answer = server.post(COMPLETIONS, {**body, "echo": True, "n": 2})
    prompt = answer["usage"]["prompt_tokens"]
    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    for choice in answer["choices"]:
        assert choice["text"].startswith(text)
        lists = choice["logprobs"]
        assert {len(values) for values in lists.values()} == {prompt + 5}
        assert lists["token_logprobs"][0] is None and lists["top_logprobs"][0] is None
        assert all(value <= 0 for value in lists["token_logprobs"][1:])
        assert all(len(top) == 2 for top in lists["top_logprobs"][1:])
        offsets = lists["text_offset"]
        assert offsets[0] == 0 and offsets == sorted(offsets) and offsets[prompt] == len(text)
    first = answer["choices"][0]
    assert first["text"] == text + plain["choices"][0]["text"]
    own = plain["choices"][0]["logprobs"]
    for name in ["tokens", "token_logprobs", "top_logprobs"]:
        assert first["logprobs"][name][prompt:] == own[name]

    chunks = server.stream(COMPLETIONS, {**body, "echo": True})
    streamed = [c for chunk in chunks for c in chunk["choices"]]
    assert "".join(c["text"] for c in streamed) == first["text"]
    for name, values in first["logprobs"].items():
        assert [v for c in streamed if c["logprobs"] for v in c["logprobs"][name]] == values


def test_a_prompts_logprobs_are_those_of_generating_it(server, grpc_client):
    prompt = [65, 66, 67] * 40
    options = {"max_tokens": 8, "temperature": 0, "ignore_eos": True, "top_logprobs": 3}
    messages = list(grpc_client.generate(tokens={"ids": prompt}, options=options))
    tokens = [m.token for m in messages if m.WhichOneof("event") == "token"]
    whole = prompt + [token.id for token in tokens]
    body = {"prompt": whole, "max_tokens": 1, "logprobs": 3, "echo": True, "prompt_logprobs": 2}
    choice = server.post(COMPLETIONS, body)[1]["choices"][0]
    scored = choice["logprobs"]["token_logprobs"]
    assert scored[len(prompt) : len(whole)] == pytest.approx([t.logprob for t in tokens], abs=1e-4)
    listed = choice["prompt_logprobs"]
    assert listed[0] is None and len(listed) == len(whole)
    for token, logprob, entry in zip(whole[1:], scored[1:], listed[1:]):
        own = entry[str(token)]
        assert own["logprob"] == logprob and isinstance(own["decoded_token"], str)
        # Two alternatives, and the token itself where it is none of them.
        assert len(entry) == (3 if own["rank"] is None else 2)
    assert all(entry[str(t.id)]["rank"] == 1 for t, entry in zip(tokens, listed[len(prompt) :]))


def test_a_prompt_is_scored_without_an_answer(server):
    body = {"prompt": ["Once upon a t\u00efme", "Hello"], "logprobs": 2, "echo": True, "seed": 1}
    _, answered = server.post(COMPLETIONS, {**body, "max_tokens": 1, "ignore_eos": True})
    status, answer = server.post(COMPLETIONS, {**body, "max_tokens": 0})
    assert status == 200, answer
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["usage"]["prompt_tokens"] == answered["usage"]["prompt_tokens"]
    for prompt, choice, longer in zip(body["prompt"], answer["choices"], answered["choices"]):
        assert (choice["text"], choice["finish_reason"]) == (prompt, "length")
        assert choice["logprobs"] == {name: values[:-1] for name, values in longer["logprobs"].items()}
    chunks = server.stream(COMPLETIONS, {**body, "prompt": "Hello", "max_tokens": 0})
    streamed = [c for chunk in chunks for c in chunk["choices"]]
    assert "".join(c["text"] for c in streamed) == "Hello"
    assert streamed[-1]["finish_reason"] == "length"


def test_a_prompt_may_only_be_put_into_the_cache(server):
    prompt = [70, 71, 72] * 100
    status, answer = server.complete(prompt, max_tokens=0)
    assert status == 200 and answer["choices"][0]["text"] == ""
    assert server.complete(prompt, max_tokens=1)[1]["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    for path, body in [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 0}),
        ("/v1/responses", {"input": "x", "max_output_tokens": 0}),
    ]:
        status, answer = server.post(path, body)
        assert status == 400 and "is 0, must be at least 1" in answer["error"]["message"], answer


def test_members_that_routers_add(server):
    """smg's defaults, written out."""
    added = {"priority": 0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "temperature": 1.0, "seed": 1}
    plain = {"seed": 1, "top_k": 0, "max_output_tokens": 8, "input": "Hello"}
    _, expected = server.post("/v1/responses", plain)
    status, answer = server.post("/v1/responses", {**plain, **added, "store": True})
    assert status == 200, answer
    assert answer["output"][0]["content"] == expected["output"][0]["content"]
    assert server.chat(max_tokens=1, **added)[0] == 200
    assert server.complete(max_tokens=1, **added)[0] == 200


def test_prompt_logprobs_of_a_chat(server):
    _, answer = server.chat(max_tokens=2, prompt_logprobs=0, n=2)
    listed = answer["prompt_logprobs"]
    assert listed[0] is None and len(listed) == answer["usage"]["prompt_tokens"]
    assert all(len(entry) == 1 for entry in listed[1:])
    assert "prompt_logprobs" not in answer["choices"][0]


def test_stop_string_ends_the_answer(server):
    body = {"max_tokens": 200, "seed": 5, "ignore_eos": True, "prompt": "x"}
    _, free = server.post(COMPLETIONS, body)
    text = free["choices"][0]["text"]
    stop = text[20:23]
    _, stopped = server.post(COMPLETIONS, {**body, "stop": [stop, "never \u2603"]})
    assert stopped["choices"][0]["text"] == text[: text.index(stop)]
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["mobius"]["stop_sequence"] == stop
    streamed = server.stream(COMPLETIONS, {**body, "stop": stop})
    assert "".join(c["choices"][0]["text"] for c in streamed) == text[: text.index(stop)]


def test_prompt_of_tokens_is_used_as_it_is(server):
    status, answer = server.complete(prompt=[65, 66, 67], max_tokens=2)
    assert status == 200
    assert answer["usage"]["prompt_tokens"] == 3


def choices_of(chunks, index):
    return [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_several_choices(server, path):
    body = {"max_tokens": 12, "seed": 9, "ignore_eos": True}
    body.update({"messages": MESSAGES} if path == CHAT else {"prompt": "Hello"})
    status, answer = server.post(path, {**body, "n": 3})
    assert status == 200, answer

    def text_of(choice):
        return choice["message"]["content"] if path == CHAT else choice["text"]

    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert len({text_of(choice) for choice in answer["choices"]}) == 3
    # Each choice is what its own seed gives alone.
    for choice in answer["choices"]:
        _, alone = server.post(path, {**body, "seed": choice["mobius"]["seed"]})
        assert text_of(alone["choices"][0]) == text_of(choice)
        assert alone["usage"]["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert answer["choices"][0]["mobius"]["seed"] == 9 == answer["mobius"]["seed"]
    assert answer["usage"]["completion_tokens"] == 36

    chunks = server.stream(path, {**body, "n": 3, "stream_options": {"include_usage": True}})
    for index, choice in enumerate(answer["choices"]):
        parts = choices_of(chunks, index)
        reasons = [part["finish_reason"] for part in parts]
        assert reasons[:-1] == [None] * (len(parts) - 1) and reasons[-1] == "length"
        if path == CHAT:
            assert parts[0]["delta"] == {"role": "assistant", "content": ""}
            text = "".join(part["delta"].get("content", "") for part in parts)
        else:
            text = "".join(part["text"] for part in parts)
        assert text == text_of(choice)
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["completion_tokens"] == 36
    assert usage["prompt_tokens"] == answer["usage"]["prompt_tokens"]


def test_choices_share_the_prompt(start_server):
    """Of n answers of one prompt, one computes the full pages, and the others find them."""
    server = start_server()
    prompt = list(range(65, 91)) * 100
    _, answer = server.complete(prompt=prompt, n=4, max_tokens=2, ignore_eos=True)
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    reads = answer["mobius"]["prefill_blocks"]
    _, alone = server.complete(prompt=[1] + prompt, max_tokens=2, ignore_eos=True)
    # Four prompts' work would read four times as much.
    assert reads["total"] < 2 * alone["mobius"]["prefill_blocks"]["total"]


def test_several_prompts(server):
    body = {"max_tokens": 6, "seed": 2, "ignore_eos": True}
    prompts = ["Once", [72, 105], "upon"]
    _, answer = server.complete(prompt=prompts, n=2, **body)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    tokens = 0
    for index, choice in enumerate(answer["choices"]):
        own = {**body, "seed": choice["mobius"]["seed"]}
        _, alone = server.complete(prompt=prompts[index // 2], **own)
        assert alone["choices"][0]["text"] == choice["text"]
        tokens += alone["usage"]["prompt_tokens"] if index % 2 == 0 else 0
    assert answer["usage"]["prompt_tokens"] == tokens
    assert answer["usage"]["completion_tokens"] == 36


def test_echo(server):
    body = {"max_tokens": 4, "seed": 2, "ignore_eos": True}
    _, plain = server.complete(prompt="Zo\u00eb: ", **body)
    text = plain["choices"][0]["text"]
    _, echoed = server.complete(prompt="Zo\u00eb: ", echo=True, **body)
    assert echoed["choices"][0]["text"] == "Zo\u00eb: " + text
    assert echoed["usage"] == {**plain["usage"], "prompt_tokens_details": echoed["usage"]["prompt_tokens_details"]}
    _, tokens = server.post("/tokenize", {"prompt": "Zo\u00eb: ", "add_special_tokens": False})
    chunks = server.stream(
        COMPLETIONS, {**body, "prompt": ["a", tokens["tokens"]], "echo": True}
    )
    for index, prompt in enumerate(["a", "Zo\u00eb: "]):
        parts = choices_of(chunks, index)
        assert parts[0]["text"] == prompt
        assert "".join(part["text"] for part in parts).startswith(prompt)


def test_a_client_that_leaves_ends_all_choices(server):
    body = {"prompt": "x", "n": 4, "max_tokens": 8000, "ignore_eos": True}
    with server.open_stream(COMPLETIONS, body) as response:
        assert response.readline().startswith(b"data: ")
        # The first choice may write before the last is admitted.
        server.wait_until(lambda stats: stats["running"] == 4)
    server.wait_idle()


def test_content_parts_tools_and_roles(server):
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    _, from_parts = server.post(
        CHAT, {"messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    )
    _, from_text = server.chat("Hello", max_tokens=1)
    assert from_parts["usage"]["prompt_tokens"] == from_text["usage"]["prompt_tokens"]

    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Look."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "a door"},
    ]
    body = {"messages": messages, "tools": [tool], "max_tokens": 1}
    status, with_tools = server.post(CHAT, body)
    assert status == 200, with_tools
    status, without = server.post(CHAT, {**body, "tool_choice": "none"})
    assert status == 200
    assert with_tools["usage"]["prompt_tokens"] > without["usage"]["prompt_tokens"]


def test_moba_override_reads_fewer_blocks(server):
    prompt = [7] * 4000
    moba = {"mode": "moba", "block": 128, "top_k": 2}
    _, sparse = server.complete(
        prompt, max_tokens=4, ignore_eos=True, mobius={"prefill": moba, "decode": moba}
    )
    _, full = server.complete(prompt, max_tokens=4, ignore_eos=True)
    for phase in ("prefill_blocks", "decode_blocks"):
        reads = sparse["mobius"][phase]
        assert 0 < reads["read"] < reads["total"] / 4
        assert full["mobius"][phase]["read"] == full["mobius"][phase]["total"]
