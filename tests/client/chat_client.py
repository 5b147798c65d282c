"""Asks an OpenAI-compatible server over HTTP and reads its streamed answers."""

import contextlib
import http.client
import json
import socket
import threading
import time
import urllib.parse
from dataclasses import dataclass, field


class ServerError(RuntimeError):
    """The server refused a request or broke an answer off."""

    def __init__(self, status, message, param=None, code=None):
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    @property
    def prompt_too_long(self):
        """Whether the prompt does not fit, as Mobius and other servers say it."""
        if self.status == 413 or self.code == "context_length_exceeded":
            return True
        # Other fields have limits of their own, say "max_tokens".
        about_prompt = self.param in (None, "messages", "prompt")
        return (self.status == 400 and about_prompt and
                "context" in self.message and "token" in self.message)


@dataclass
class Answer:
    text: str = ""
    usage: dict = field(default_factory=dict)
    mobius: dict = field(default_factory=dict)  # the server's extension object, empty elsewhere
    seconds_to_first_token: float | None = None  # as seen here
    seconds: float = 0.0


class ChatClient:
    """One server, "host:port" or a URL. Thread-safe: every request has a connection of its own."""

    def __init__(self, server, timeout=600, api_key=None):
        url = urllib.parse.urlsplit(server if "//" in server else f"http://{server}")
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError(f"{server!r} is not a server's address; write http://host:port")
        self._url = url
        # Both http://host:port and OpenAI's habit, http://host:port/v1.
        self._prefix = url.path.rstrip("/").removesuffix("/v1")
        self._timeout = timeout
        self._lock = threading.Lock()
        self._sockets = set()  # of requests in flight
        self._aborted = False
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    @contextlib.contextmanager
    def _request(self, method, path, body=None):
        """The response; its connection is closed at the end of the `with` block."""
        kind = (http.client.HTTPSConnection if self._url.scheme == "https"
                else http.client.HTTPConnection)
        connection = kind(self._url.hostname, self._url.port, timeout=self._timeout)
        held = None
        try:
            connection.connect()
            held = connection.sock  # the connection itself lets go of it while an answer is read
            with self._lock:
                if self._aborted:
                    raise ConnectionAbortedError("the client was told to stop")
                self._sockets.add(held)
            connection.request(method, self._prefix + path, body, self._headers)
            response = connection.getresponse()
            if response.status != 200:
                raise _error_of(response.status, response.read())
            yield response
        finally:
            with self._lock:
                self._sockets.discard(held)
            connection.close()

    def abort(self):
        """Breaks off the requests in flight and refuses new ones, from any thread: they raise OSError,
        ServerError or http.client.HTTPException."""
        with self._lock:
            self._aborted = True
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def model(self):
        """The first of the server's models, as /v1/models describes it."""
        with self._request("GET", "/v1/models") as response:
            return json.loads(response.read())["data"][0]

    def chat(self, messages, on_text=None, on_progress=None, **options):
        """Streams one answer. `options` are members of the request's body. `on_text` is called with
        each piece of text, `on_progress` with Mobius' progress object."""
        body = {"messages": messages, "stream": True, "stream_options": {"include_usage": True},
                **options}
        answer = Answer()
        started = time.monotonic()
        with self._request("POST", "/v1/chat/completions", json.dumps(body)) as response:
            for event in server_sent_events(response):
                if "error" in event:
                    raise _error_of(response.status, json.dumps(event).encode())
                extension = event.get("mobius") or {}
                if "progress" in extension:
                    if on_progress:
                        on_progress(extension["progress"])
                elif extension:
                    answer.mobius = extension
                if event.get("usage"):
                    answer.usage = event["usage"]
                for choice in event.get("choices") or []:
                    text = (choice.get("delta") or {}).get("content") or ""
                    if not text:
                        continue
                    if answer.seconds_to_first_token is None:
                        answer.seconds_to_first_token = time.monotonic() - started
                    answer.text += text
                    if on_text:
                        on_text(text)
        answer.seconds = time.monotonic() - started
        return answer


def server_sent_events(lines):
    """The JSON of each event up to [DONE]; comment lines keep the connection alive and are skipped.
    Raises ServerError if the stream ends without [DONE]."""
    for line in lines:
        if line.startswith(b"data:"):
            data = line[len(b"data:"):].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)
    raise ServerError(200, "the stream broke off before [DONE]")


def _error_of(status, body):
    try:
        error = json.loads(body)["error"]
        return ServerError(status, error["message"], error.get("param"), error.get("code"))
    except (ValueError, KeyError, TypeError):
        return ServerError(status, body.decode(errors="replace")[:500])
