#!/usr/bin/env python3
"""The main job, start to end: start the server, ask it about a long document, show the answer, stop it.

Needs nothing but Python's standard library. Exits 1 if the server does not start, the request fails,
or (with a trained model) the answer is wrong.
"""

import argparse
import http.client
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

from document import make_document


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mobius", required=True, help="the server binary")
    parser.add_argument("--config", default="configs/embedded.json")
    parser.add_argument("--characters", type=int, default=50_000, help="length of the document")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--max-tokens", type=int, default=48)
    return parser.parse_args()


class Server:
    """The server as a child process on free ports; stopped on leaving the `with` block."""

    def __init__(self, binary, config):
        self.folder = tempfile.TemporaryDirectory(prefix="mobius-demo-")
        self.ports_file = pathlib.Path(self.folder.name) / "ports.json"
        self.log_path = pathlib.Path(self.folder.name) / "server.log"
        self.command = [binary, "--config", config, "--http.port", "0", "--grpc.port", "0",
                        "--server.port_file", str(self.ports_file)]

    def __enter__(self):
        self.log = open(self.log_path, "wb")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while not self.ports_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                sys.exit(f"demo: the server did not start:\n{self.log_path.read_text(errors='replace')}")
            time.sleep(0.05)
        self.address = json.loads(self.ports_file.read_text())["http"]
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def server_sent_events(response):
    """The JSON of each event up to [DONE]; comment lines keep the connection alive and are skipped."""
    for line in response:
        if line.startswith(b"data: "):
            data = line[len(b"data: "):].strip()
            if data == b"[DONE]":
                return
            yield json.loads(data)


def show_progress(done, total, started):
    width = 32
    filled = width * done // max(total, 1)
    text = f"  reading [{'#' * filled}{'.' * (width - filled)}] {done:,} of {total:,} tokens"
    if sys.stdout.isatty():
        print(f"\r{text}", end="\n" if done == total else "", flush=True)
    elif done == total:
        print(f"{text} in {time.monotonic() - started:.1f} s")


def ask(address, model, prompt, max_tokens):
    """Streams one chat answer to the terminal; returns its text and the server's closing numbers."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "mobius": {"progress": True},
    }
    connection = http.client.HTTPConnection(address, timeout=600)
    started = time.monotonic()
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    if response.status != 200:
        sys.exit(f"demo: HTTP {response.status}: {response.read().decode(errors='replace')}")
    answer, closing = "", {}
    for event in server_sent_events(response):
        if "error" in event:
            sys.exit(f"demo: the answer broke off: {event['error']['message']}")
        extension = event.get("mobius") or {}
        if "progress" in extension:
            show_progress(extension["progress"]["done"], extension["progress"]["total"], started)
        for choice in event["choices"]:
            text = choice["delta"].get("content") or ""
            if text and not answer:
                print("\nAnswer: ", end="")
            answer += text
            print(text.translate({code: " " for code in range(32)}), end="", flush=True)
        if event.get("usage"):
            closing = event
    connection.close()
    print()
    return answer, closing


def share(reads):
    return f"{100 * reads['read'] / reads['total']:.1f} %" if reads["total"] else "none"


def main():
    arguments = parse_arguments()
    model_folder = pathlib.Path(json.loads(pathlib.Path(arguments.config).read_text())["model"]["path"])
    stand_in = model_folder.parts[-2:] == ("cache", "tiny")
    document = make_document(arguments.characters, arguments.seed)
    prompt = f"{document.text}\n\n{document.question}"
    if stand_in:
        print("NOTE: this runs on a stand-in model: random weights in the shape of a small Llama. It shows the\n"
              "      whole path from socket to token; what it answers means nothing.\n")
    with Server(arguments.mobius, arguments.config) as server:
        connection = http.client.HTTPConnection(server.address, timeout=30)
        connection.request("GET", "/v1/models")
        model = json.loads(connection.getresponse().read())["data"][0]["id"]
        connection.close()
        print(f"Model:    {model}")
        print(f"Document: {len(document.text):,} characters; it says: \"...{document.answer}...\"")
        print(f"Question: {document.question}")
        answer, closing = ask(server.address, model, prompt, arguments.max_tokens)
    usage, extension = closing["usage"], closing["mobius"]
    decode_seconds = (extension["total_ms"] - extension["ttft_ms"]) / 1000
    decoded = usage["completion_tokens"] - 1
    print(f"\nPrompt tokens            {usage['prompt_tokens']:,}")
    print(f"Answer tokens            {usage['completion_tokens']:,}")
    print(f"Time to first token      {extension['ttft_ms'] / 1000:.2f} s"
          f"  ({usage['prompt_tokens'] / extension['ttft_ms'] * 1000:,.0f} prompt tokens/s)")
    if decoded > 0 and decode_seconds > 0:
        print(f"Decode                   {decoded / decode_seconds:,.0f} tokens/s")
    print(f"KV blocks read, prefill  {share(extension['prefill_blocks'])} of full attention's")
    print(f"KV blocks read, decode   {share(extension['decode_blocks'])} of full attention's")
    if stand_in:
        return 0
    if document.answer not in answer:
        print(f"\nWRONG: the answer does not contain {document.answer!r}.", file=sys.stderr)
        return 1
    print("\nRight: the answer contains the hidden fact.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
