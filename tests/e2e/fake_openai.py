"""A server of OpenAI's API that is none of ours, for clients: it keeps what it was sent, and knows nothing but OpenAI's fields."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KNOWN = {"model", "messages", "prompt", "max_tokens", "temperature", "seed", "stream", "stream_options"}


class FakeOpenAi:
    """Answers "one two three" on loopback. `failures` are statuses for the next generations, in order."""

    def __init__(self, key=None, failures=(), break_off=False, with_usage=True):
        self.bodies = []
        self.failures = list(failures)
        self.lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, status, body):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def allowed(self):
                if key is None or self.headers.get("Authorization") == f"Bearer {key}":
                    return True
                self.answer(401, {"error": {"message": "wrong key"}})
                return False

            def do_GET(self):
                if not self.allowed():
                    return
                if self.path == "/v1/models":
                    self.answer(200, {"object": "list", "data": [{"id": "fake-1", "owned_by": "somebody"}]})
                else:
                    self.answer(404, {"error": {"message": "no such path"}})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if not self.allowed():
                    return
                unknown = set(body) - KNOWN
                if unknown:
                    self.answer(400, {"error": {"message": f"unknown: {sorted(unknown)}"}})
                    return
                with owner.lock:
                    owner.bodies.append(body)
                    failure = owner.failures.pop(0) if owner.failures and body.get("stream") else None
                if failure:
                    self.answer(failure, {"error": {"message": "not now"}})
                    return
                text = body.get("prompt") or body["messages"][-1]["content"]
                usage = {"prompt_tokens": len(text.split()) + 7, "completion_tokens": 3}
                if not body.get("stream"):
                    self.answer(200, {"choices": [], "usage": usage})
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for word in ("one", " two", " three"):
                    piece = {"text": word} if "prompt" in body else {"delta": {"content": word}}
                    self.event({"choices": [{"index": 0, **piece}]})
                if break_off:
                    self.close_connection = True
                    return
                if with_usage:
                    self.event({"choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def event(self, data):
                self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")
                self.wfile.flush()

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
