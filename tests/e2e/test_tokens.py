"""/tokenize, /detokenize and /v1/chat/completions/render."""

import pytest

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]


def tokenize(server, **body):
    return server.post("/tokenize", body)


def test_text_becomes_tokens_and_text_again(server):
    text = "Once upon a time, \u00fcber 12345 \U0001f600!\n"
    status, answer = tokenize(server, prompt=text, add_special_tokens=False)
    assert status == 200
    assert answer["count"] == len(answer["tokens"]) > 0
    assert answer["max_model_len"] == server.get("/v1/models")[1]["data"][0]["mobius"]["max_context"]
    assert answer["token_strs"] is None
    assert server.post("/detokenize", {"tokens": answer["tokens"]}) == (200, {"prompt": text})


def test_text_begins_with_begin_of_text_unless_told_otherwise(server):
    bare = tokenize(server, prompt="Hi", add_special_tokens=False)[1]["tokens"]
    whole = tokenize(server, prompt="Hi", return_token_strs=True)[1]
    assert whole["tokens"][1:] == bare
    assert whole["token_strs"][0] == "<|begin_of_text|>"
    assert "".join(whole["token_strs"][1:]) == "Hi"
    assert whole["count"] == server.complete("Hi", max_tokens=1)[1]["usage"]["prompt_tokens"]


def test_a_chat_is_tokenized_as_it_is_answered(server):
    status, rendered = server.post("/v1/chat/completions/render", {"messages": MESSAGES, "max_tokens": 3})
    assert status == 200
    assert rendered["prompt"].startswith("<|begin_of_text|><|start_header_id|>system<|end_header_id|>")
    assert rendered["prompt"].endswith("<|start_header_id|>assistant<|end_header_id|>\n\n")
    assert tokenize(server, messages=MESSAGES)[1]["tokens"] == rendered["token_ids"]
    answered = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 1})[1]
    assert answered["usage"]["prompt_tokens"] == rendered["count"] == len(rendered["token_ids"])


def test_control_tokens_in_text_stay_text(server):
    tokens = tokenize(server, prompt="<|eot_id|>", add_special_tokens=False)[1]["tokens"]
    assert len(tokens) > 1
    assert server.post("/detokenize", {"tokens": tokens})[1]["prompt"] == "<|eot_id|>"


@pytest.mark.parametrize("path, body, words", [
    ("/tokenize", {}, ["prompt", "missing"]),
    ("/tokenize", {"prompt": 3}, ["prompt", "an integer"]),
    ("/tokenize", {"prompt": "a", "surprise": 1}, ["surprise"]),
    ("/tokenize", {"prompt": "a", "add_special_tokens": "yes"}, ["add_special_tokens", "a string"]),
    ("/tokenize", {"messages": []}, ["messages"]),
    ("/tokenize", {"messages": MESSAGES, "prompt": "a"}, ["prompt", "messages"]),
    ("/tokenize", {"messages": [{"role": "king", "content": "a"}]}, ["messages[0].role", "king"]),
    ("/tokenize", [1], ["an array"]),
    ("/detokenize", {}, ["tokens", "missing"]),
    ("/detokenize", {"tokens": "a"}, ["tokens", "a string"]),
    ("/detokenize", {"tokens": [1, -1]}, ["tokens[1]", "-1"]),
    ("/detokenize", {"tokens": [10**9]}, ["tokens[0]", "1000000000"]),
    ("/detokenize", {"tokens": [1.5]}, ["tokens[0]", "1.5"]),
    ("/v1/chat/completions/render", {"messages": MESSAGES, "surprise": 1}, ["surprise"]),
    ("/v1/chat/completions/render", {"prompt": "a"}, ["messages"]),
])
def test_what_is_wrong_is_named(server, path, body, words):
    status, answer = server.post(path, body)
    assert status == 400, answer
    for word in words:
        assert word in answer["error"]["message"], answer


def test_another_model_is_not_found(server):
    for path, body in (("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": []}),
                       ("/v1/chat/completions/render", {"messages": MESSAGES})):
        status, answer = server.post(path, {**body, "model": "another"})
        assert status == 404 and answer["error"]["param"] == "model"


def test_they_take_posted_json_alone(server):
    assert server.request("GET", "/tokenize")[0] == 405
    assert server.request("POST", "/tokenize", b"{}", {"Content-Type": "text/plain"})[0] == 415
    assert server.post("/detokenize", b"{")[0] == 400


def test_size_is_bounded(server):
    status, answer = server.post("/tokenize", {"prompt": "x" * (8 << 20)})
    assert status == 400 and "8388608" in answer["error"]["message"]
    status, answer = server.post("/tokenize", {"prompt": "a1 " * 100_000, "return_token_strs": True})
    assert status == 400 and "131072" in answer["error"]["message"]
    status, answer = server.post("/tokenize", {"prompt": "a1 " * 100_000})
    assert status == 200 and answer["count"] == len(answer["tokens"]) > 131072


def test_who_wants_tokens_delays_no_answer_and_may_go(server):
    for _ in range(8):
        connection = server.connect()
        connection.request("POST", "/tokenize", b'{"prompt": "' + b"word " * 1_500_000 + b'"}',
                           {"Content-Type": "application/json"})
        connection.close()
    status, answer = server.complete(max_tokens=2)
    assert status == 200 and answer["usage"]["completion_tokens"] == 2
    server.wait_for_log("request", lambda line: line["target"] == "/tokenize" and line["status"] == 499)
