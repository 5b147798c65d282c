"""A corpus and a server that are small enough to know every result of."""

import http.server
import json
import sys
import threading
from dataclasses import dataclass, field

TEMPLATE_TOKENS = 30


@dataclass
class FakeTurn:
    question: str
    answer: str
    expect: list
    decoys: list = field(default_factory=list)


@dataclass
class FakeDialogue:
    task: str
    document: str
    turns: list

    def first_message(self):
        return f"{self.document}\n\n{self.turns[0].question}"


def fake_dialogue(task, rng, split, characters, depth=None, turns=1):
    """Words of one to nine letters, denser in some documents than in others, with a code among them."""
    assert split == "eval"
    longest = rng.randrange(3, 10)
    codes = [f"code{rng.randrange(10 ** 6)}" for _ in range(turns)]
    words, length = [], 0
    while length < characters:
        words.append("x" * rng.randrange(1, longest + 1))
        length += len(words[-1]) + 1
    for code in codes:
        words.insert(int(depth * len(words)), code)
    asked = [FakeTurn(f"Which one is number {i}?", code, [code]) for i, code in enumerate(codes)]
    return FakeDialogue(task, " ".join(words), asked)


class FakeServer:
    """Counts a token for each word. Answers with every code that it sees, under MoBA only with those
    in the first half of the document, so that the two modes differ in a known way."""

    def __init__(self):
        self.max_context = 1_000_000
        self.says_context = True
        self.usage = True
        self.extension = True
        self.fail_after = None  # chat requests that are answered before HTTP 500
        self.hangs = None  # an event: answers wait for it
        self.busy = 0  # answers 429 that many times
        self.requests = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def reply(self, status, body, kind="application/json"):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def error(self, status, message, **members):
                self.reply(status, json.dumps({"error": {"message": message, **members}}).encode())

            def do_GET(self):
                model = {"id": "fake"}
                if fake.says_context:
                    model["mobius"] = {"max_context": fake.max_context, "device": "none"}
                self.reply(200, json.dumps({"data": [model]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                fake.requests.append(body)
                if fake.hangs is not None and body["max_tokens"] > 1:
                    fake.hangs.wait(30)
                if fake.busy > 0:
                    fake.busy -= 1
                    return self.error(429, "full")
                if fake.fail_after is not None and len(fake.requests) > fake.fail_after:
                    return self.error(500, "broken")
                tokens = TEMPLATE_TOKENS + sum(len(m["content"].split()) for m in body["messages"])
                if tokens >= fake.max_context:
                    return self.error(400, f"messages has {tokens} tokens, must have at most "
                                      f"{fake.max_context - 1} (the context is ...)", param="messages")
                self.reply(200, fake.answer(body, tokens), "text/event-stream")

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                if not isinstance(sys.exc_info()[1], ConnectionError):  # clients may go away
                    super().handle_error(request, client_address)

        self.server = Server(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def answer(self, body, tokens):
        words = " ".join(m["content"] for m in body["messages"] if m["role"] == "user").split()
        sparse = (body.get("mobius") or {}).get("prefill", {}).get("mode") == "moba"
        seen = words[:len(words) // 2] if sparse else words
        text = " ".join(word for word in seen if word.startswith("code"))
        chunks = [{"choices": [{"delta": {"content": piece}}]} for piece in (text[:4], text[4:])]
        last = {"choices": []}
        if self.usage:
            last["usage"] = {"prompt_tokens": tokens, "completion_tokens": len(text.split())}
        if self.extension:
            reads = {"read": tokens // 2 if sparse else tokens, "total": tokens}
            last["mobius"] = {"ttft_ms": 250, "prefill_blocks": reads, "decode_blocks": reads}
        events = [": a comment"] + [f"data: {json.dumps(c)}" for c in [*chunks, last]] + ["data: [DONE]"]
        return "".join(event + "\n\n" for event in events).encode()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def questions(self):
        """The requests that are cases, not counts."""
        return [body for body in self.requests if body["max_tokens"] > 1]
