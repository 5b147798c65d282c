"""A router of today in front of a real server: smg, vLLM's and SGLang's model gateway, over HTTP and over gRPC."""

import importlib.util
import json
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from server import ANSWER_SECONDS, START_SECONDS, Server

MODEL = pathlib.Path(__file__).resolve().parents[2] / "models/mobius-tiny"
QUESTION = [{"role": "user", "content": "The gate code is 4417.\n\nWhat is the gate code?"}]

pytestmark = pytest.mark.skipif(importlib.util.find_spec("smg") is None, reason="smg is not installed")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Router:
    """smg in front of one worker; it learns the model from the worker alone."""

    def __init__(self, folder, worker):
        self.port = free_port()
        self.log = open(folder / "smg.txt", "w+")
        command = [sys.executable, "-m", "smg", "launch", "--host", "127.0.0.1", "--port", self.port,
                   "--worker-urls", worker, "--prometheus-host", "127.0.0.1", "--prometheus-port", free_port()]
        if worker.startswith("http"):
            command.append("--disable-tokenizer-autoload")
        self.process = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log)
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                assert self.ask("/v1/models")["data"][0]["id"] == "tiny"
                self.chat(max_tokens=1)
                return
            except (OSError, IndexError, AssertionError):
                if self.process.poll() is not None or time.monotonic() > end:
                    self.log.seek(0)
                    raise RuntimeError(f"the router does not route: {self.log.read()[-4000:]}") from None
                time.sleep(0.2)

    def ask(self, path, body=None):
        with self.open(path, body) as response:
            return json.load(response)

    def open(self, path, body=None):
        data = None if body is None else json.dumps({"model": "tiny", **body}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=ANSWER_SECONDS)

    def chat(self, **options):
        return self.ask("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, **options})

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("routed"), MODEL, kv__bytes=64 << 20)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module", params=["http", "grpc"])
def router(request, embedded, tmp_path_factory):
    worker = "http://{}:{}".format(*embedded.http_address) if request.param == "http" else f"grpc://{embedded.grpc_address}"
    running = Router(tmp_path_factory.mktemp("router"), worker)
    yield running
    running.stop()


def test_a_chat(router, embedded):
    _, direct = embedded.post("/v1/chat/completions", {"messages": QUESTION, "temperature": 0})
    answer = router.chat()
    assert answer["choices"][0]["message"]["content"] == direct["choices"][0]["message"]["content"]
    assert "4417" in answer["choices"][0]["message"]["content"]
    assert answer["choices"][0]["finish_reason"] == "stop"
    # Whoever renders the prompt: the same tokens.
    assert answer["usage"]["prompt_tokens"] == direct["usage"]["prompt_tokens"]


def test_a_stream(router):
    with router.open("/v1/chat/completions", {"messages": QUESTION, "temperature": 0, "stream": True}) as response:
        lines = [line.decode().strip() for line in response]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    text = "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])
    assert "4417" in text and lines[-1 if lines[-1] else -2] == "data: [DONE]"


def test_completions(router):
    answer = router.ask("/v1/completions", {"prompt": "The ferry", "max_tokens": 5, "n": 2, "seed": 1})
    assert len(answer["choices"]) == 2 and answer["usage"]["completion_tokens"] == 10


def test_responses(router):
    answer = router.ask("/v1/responses", {"input": QUESTION[0]["content"], "temperature": 0})
    text = "".join(part["text"] for item in answer["output"] for part in item["content"])
    assert "4417" in text


def test_a_schema_and_a_tool(router):
    schema = {"type": "object", "properties": {"code": {"enum": [4417, 7351]}}, "required": ["code"],
              "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "code", "schema": schema}}
    answer = router.chat(response_format=form)
    assert json.loads(answer["choices"][0]["message"]["content"])["code"] in (4417, 7351)
    tool = {"type": "function", "function": {"name": "open_gate", "parameters": schema}}
    choice = router.chat(tools=[tool], tool_choice="required")["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    call = choice["message"]["tool_calls"][0]["function"]
    assert call["name"] == "open_gate" and json.loads(call["arguments"])["code"] in (4417, 7351)


def test_a_client_that_goes_away_ends_the_generation(router, embedded):
    body = {"messages": QUESTION, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    response = router.open("/v1/chat/completions", body)
    response.readline()
    embedded.wait_until(lambda stats: stats["running"] == 1)
    response.close()
    embedded.wait_idle()
