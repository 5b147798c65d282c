"""Starts and talks to the real `mobius` binary: black-box helpers for the end-to-end tests."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import time

import grpc
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

MOBIUS = os.environ.get("MOBIUS_BINARY", "build/release/server/mobius")
# The same with a model that fails when a test wants it to (faulty_server.cc).
FAULTY = os.environ.get("MOBIUS_FAULTY", "build/release/tests/e2e/mobius-faulty")
MAKE_CHECKPOINT = os.environ.get(
    "MOBIUS_MAKE_CHECKPOINT", "build/release/models/mobius-make-checkpoint"
)

# Start-up is fast with the tiny model; sanitizers and busy machines are not.
START_SECONDS = 60
WAIT_SECONDS = 60
# Nothing that answers takes long; a prompt of thousands of tokens under a sanitizer does.
ANSWER_SECONDS = 300


class Server:
    """One running `mobius` on free ports."""

    def __init__(self, folder, checkpoint, environment=None, binary=MOBIUS, wait=True, **settings):
        """`wait`: until it answers; else it has just been started, and `wait_for_ports` does it."""
        self.folder = folder
        self.port_file = folder / "ports.json"
        self.log = folder / "log.txt"
        options = {
            "model.path": checkpoint,
            "model.name": "tiny",
            "model.max_context": 8192,
            "kv.bytes": 64 << 20,
            "http.port": 0,
            "grpc.port": 0,
            "server.port_file": self.port_file,
            "log.file": self.log,
            "log.format": "json",
        }
        options.update({key.replace("__", "."): value for key, value in settings.items()})
        arguments = [binary]
        for key, value in options.items():
            arguments += [f"--{key}", str(value)]
        self.output = open(folder / "output.txt", "w+")
        self.process = subprocess.Popen(
            arguments,
            stdout=self.output,
            stderr=self.output,
            env={**os.environ, **(environment or {})},
        )
        if wait:
            self.wait_for_ports()

    def wait_for_ports(self):
        end = time.monotonic() + START_SECONDS
        while not self.port_file.exists():
            if self.process.poll() is not None:
                self.output.seek(0)
                raise RuntimeError(f"mobius ended with {self.process.returncode}: {self.output.read()}")
            if time.monotonic() > end:
                self.process.kill()
                raise RuntimeError("mobius did not start in time")
            time.sleep(0.02)
        ports = json.loads(self.port_file.read_text())
        host, port = ports["http"].rsplit(":", 1)
        self.http_address = (host, int(port))
        self.grpc_address = ports["grpc"]
        self.tls = None  # an SSLContext, where the server speaks TLS
        self.grpc_credentials = None  # likewise

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.output.closed:
            return self.process.returncode
        self.output.seek(0)
        output = self.output.read()
        self.output.close()
        # A report may come with any exit code, and some tests expect none of theirs.
        assert "Sanitizer" not in output and "runtime error: " not in output, output
        return self.process.returncode

    # ---- HTTP ----------------------------------------------------------------------------------

    def connect(self, timeout=ANSWER_SECONDS):
        if self.tls is not None:
            return http.client.HTTPSConnection(
                *self.http_address, timeout=timeout, context=self.tls
            )
        return http.client.HTTPConnection(*self.http_address, timeout=timeout)

    def raw(self, timeout=20):
        return socket.create_connection(self.http_address, timeout=timeout)

    def request(self, method, path, body=None, headers=None):
        """Returns (status, headers, body bytes)."""
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def get(self, path):
        status, _, body = self.request("GET", path)
        return status, json.loads(body)

    def post_for_headers(self, path, body, headers=None):
        """`body` is an object, or bytes to send as they are. Returns (status, headers, object)."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer_headers, answer = self.request(
            "POST", path, data, {"Content-Type": "application/json", **(headers or {})}
        )
        return status, answer_headers, json.loads(answer)

    def post(self, path, body, headers=None):
        status, _, answer = self.post_for_headers(path, body, headers)
        return status, answer

    def chat(self, text="Hello", **options):
        messages = [{"role": "user", "content": text}]
        return self.post("/v1/chat/completions", {"messages": messages, **options})

    def complete(self, prompt="Once upon a time", **options):
        return self.post("/v1/completions", {"prompt": prompt, **options})

    @contextlib.contextmanager
    def open_stream(self, path, body):
        """Yields the response of a streamed request; closing it early disconnects."""
        connection = self.connect()
        try:
            connection.request(
                "POST",
                path,
                json.dumps({**body, "stream": True}),
                {"Content-Type": "application/json"},
            )
            yield connection.getresponse()
        finally:
            connection.close()

    def stream(self, path, body):
        """All SSE data of a streamed request, the closing [DONE] checked and left out."""
        with self.open_stream(path, body) as response:
            assert response.status == 200, response.read()
            assert response.getheader("Content-Type").startswith("text/event-stream")
            events = sse_data(response.read().decode())
        assert events[-1] == "[DONE]"
        return [json.loads(event) for event in events[:-1]]

    # ---- state ---------------------------------------------------------------------------------

    def stats(self):
        return self.get("/ready")[1]

    def wait_until(self, condition, seconds=WAIT_SECONDS):
        """Polls /ready until the condition on its body holds."""
        end = time.monotonic() + seconds
        while not condition(self.stats()):
            assert time.monotonic() < end, f"still {self.stats()}"
            time.sleep(0.01)

    def wait_idle(self):
        self.wait_until(lambda stats: stats["running"] == 0 and stats["waiting"] == 0)

    def log_lines(self, event):
        """The log's entries of that event so far."""
        if not self.log.exists():
            return []
        # A line may be half written.
        lines = self.log.read_text().rpartition("\n")[0].splitlines()
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def wait_for_log(self, event, condition=lambda line: True, seconds=WAIT_SECONDS):
        """Waits for an entry that meets the condition, and returns it."""
        end = time.monotonic() + seconds
        while True:
            found = [line for line in self.log_lines(event) if condition(line)]
            if found:
                return found[0]
            assert time.monotonic() < end, f"no {event} in {self.log.read_text()}"
            time.sleep(0.02)

    # ---- gRPC ----------------------------------------------------------------------------------

    def grpc_client(self, service="mobius.v1.Mobius", **options):
        """Options are channel arguments, "." written as "__"."""
        arguments = [(f"grpc.{key.replace('__', '.')}", value) for key, value in options.items()]
        return ReflectionClient(self.grpc_address, arguments, self.grpc_credentials, service)


def sse_data(text):
    """The data of each event; comments are skipped, other lines are an error."""
    events = []
    for block in text.split("\n\n"):
        for line in block.split("\n"):
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
            else:
                assert line == "" or line.startswith(":"), f"not SSE: {line!r}"
    return events


class ReflectionClient:
    """Calls a service knowing nothing but what the reflection service says."""

    def __init__(self, address, options, credentials=None, service="mobius.v1.Mobius"):
        options = [("grpc.max_send_message_length", -1), *options]
        if credentials is None:
            self.channel = grpc.insecure_channel(address, options=options)
        else:
            self.channel = grpc.secure_channel(address, credentials, options=options)
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.services = list(database.get_services())
        self.pool = descriptor_pool.DescriptorPool(database)
        self.service = self.pool.FindServiceByName(service)
        self.metadata = []  # (name, value), sent with every call

    def close(self):
        self.channel.close()

    def message(self, name, **fields):
        package = self.service.full_name.rpartition(".")[0]
        descriptor = self.pool.FindMessageTypeByName(f"{package}.{name}")
        return message_factory.GetMessageClass(descriptor)(**fields)

    def call(self, method, request, timeout=ANSWER_SECONDS):
        """The call object: iterate over it for the answer's messages."""
        descriptor = self.service.FindMethodByName(method)
        output = message_factory.GetMessageClass(descriptor.output_type)
        stub = self.channel.unary_stream(
            f"/{self.service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=output.FromString,
        )
        return stub(request, timeout=timeout, metadata=self.metadata)

    def ask(self, method, timeout=ANSWER_SECONDS, **fields):
        """The answer of a call that has one."""
        descriptor = self.service.FindMethodByName(method)
        output = message_factory.GetMessageClass(descriptor.output_type)
        stub = self.channel.unary_unary(
            f"/{self.service.full_name}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=output.FromString,
        )
        request = message_factory.GetMessageClass(descriptor.input_type)(**fields)
        return stub(request, timeout=timeout, metadata=self.metadata)

    def generate(self, timeout=ANSWER_SECONDS, **fields):
        return self.call("Generate", self.message("GenerateRequest", **fields), timeout)

    def chat(self, timeout=ANSWER_SECONDS, **fields):
        return self.call("Chat", self.message("ChatRequest", **fields), timeout)
