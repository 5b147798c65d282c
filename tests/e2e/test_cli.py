"""The commands besides `serve`: chat, tokenize, check."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import time

import pytest

from fake_openai import FakeOpenAi
from server import ANSWER_SECONDS, MOBIUS, START_SECONDS, WAIT_SECONDS


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")}
    return {**kept, **more}


def run(*arguments, text="", **more):
    return subprocess.run(
        [MOBIUS, *map(str, arguments)], input=text, capture_output=True, text=True,
        timeout=ANSWER_SECONDS, env=environment(**more),
    )


def url_of(server):
    return "http://{}:{}".format(*server.http_address)


def chat(server, *arguments, **more):
    return run("chat", "--url", url_of(server), "--max-tokens", 8, "--seed", 1, *arguments, **more)


# ---- commands ------------------------------------------------------------------------------------


def test_help_names_the_commands():
    text = run("--help").stdout
    for command in ("serve", "check", "chat", "bench", "tokenize"):
        assert re.search(rf"^  {command} ", text, re.MULTILINE), command
    for command in ("chat", "bench", "tokenize"):
        assert f"mobius {command}" in run(command, "--help").stdout


def test_an_unknown_command_is_refused():
    result = run("sevre")
    assert result.returncode == 1
    assert "sevre: unexpected argument" in result.stderr


@pytest.mark.parametrize("command", ["chat", "bench", "tokenize"])
def test_an_unknown_option_is_refused(command):
    result = run(command, *(["."] if command == "tokenize" else []), "--no-such-option")
    assert result.returncode == 1
    assert "no-such-option" in result.stderr


# ---- check ---------------------------------------------------------------------------------------


def test_check_takes_a_model_folder(checkpoint):
    result = run("check", checkpoint, "--model.max_context", 1024)
    assert (result.returncode, result.stderr) == (0, "")
    assert "The configuration is valid." in result.stdout
    assert "1024" in result.stdout


def test_check_names_everything_that_is_wrong(checkpoint, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / "tokenizer.json").write_text("{}")
    config = json.loads((broken / "config.json").read_text())
    config["hidden_size"] *= 2
    (broken / "config.json").write_text(json.dumps(config))
    result = run("check", broken, "--security.key_file", tmp_path / "no-keys")
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert all(line.startswith("mobius: ") for line in lines)
    assert len(lines) == 3, lines
    assert "no-keys" in lines[0]
    assert "model.safetensors" in lines[1] or "config.json" in lines[1]
    assert "tokenizer.json" in lines[2]
    assert "valid" not in result.stdout


def test_check_says_once_that_there_is_no_folder(tmp_path):
    result = run("check", tmp_path / "nothing")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "nothing" in result.stderr


def test_check_compares_tokenizer_and_model(checkpoint, tmp_path):
    small = tmp_path / "small"
    shutil.copytree(checkpoint, small)
    config = json.loads((small / "config.json").read_text())
    ids = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    config["vocab_size"] = 1 + max([config["bos_token_id"], *ids])
    (small / "config.json").write_text(json.dumps(config))
    result = run("check", small)
    assert result.returncode == 1
    assert f"the model only {config['vocab_size']} (vocab_size)" in result.stderr


# ---- tokenize ------------------------------------------------------------------------------------


def test_tokenize_counts_as_the_server_does(server, checkpoint, tmp_path):
    text = "The ferry left at dawn.\n\nGrüße, 世界!  <|eot_id|>"
    _, answer = server.post("/tokenize", {"prompt": text, "add_special_tokens": False})
    expected = answer["tokens"]
    assert run("tokenize", checkpoint, text=text).stdout == f"{len(expected)}\n"
    ids = run("tokenize", checkpoint, "--ids", text=text).stdout
    assert [int(word) for word in ids.split()] == expected
    file = tmp_path / "text.txt"
    file.write_text(text)
    assert run("tokenize", checkpoint, file).stdout == f"{len(expected)}\n"
    assert run("tokenize", checkpoint, "--decode", text=ids).stdout == text


def test_tokenize_shows_pieces_and_chats(server, checkpoint):
    lines = run("tokenize", checkpoint, "--pieces", text="Hello there").stdout.splitlines()
    pieces = [json.loads(line.split("\t")[1]) for line in lines]
    assert "".join(pieces) == "Hello there"
    _, answer = server.post(
        "/tokenize", {"messages": [{"role": "user", "content": "Hello there"}]})
    ids = run("tokenize", checkpoint, "--ids", "--chat", text="Hello there").stdout
    assert [int(word) for word in ids.split()] == answer["tokens"]


def test_tokenize_refuses(checkpoint, tmp_path):
    for arguments, text, word in (
        ((tmp_path,), "", "tokenizer"),
        ((checkpoint, tmp_path / "none"), "", "none"),
        ((checkpoint, tmp_path), "", "cannot be read"),
        ((checkpoint, "--decode"), "1 x", '"x"'),
        ((checkpoint, "--decode"), "-1", '"-1"'),
        ((checkpoint, "--decode", "--ids"), "", "decode"),
        ((), "", "FOLDER"),
    ):
        result = run("tokenize", *arguments, text=text)
        assert result.returncode == 1, arguments
        assert word in result.stderr, result.stderr


# ---- chat ----------------------------------------------------------------------------------------


def test_chat_answers_one_question(server):
    result = chat(server, "--temperature", 0, "Hello")
    assert (result.returncode, result.stderr) == (0, "")
    _, answer = server.chat("Hello", max_tokens=8, seed=1, temperature=0)
    assert result.stdout.rstrip("\n") == answer["choices"][0]["message"]["content"].rstrip("\n")


def test_chat_puts_documents_before_the_question(tmp_path):
    (tmp_path / "a.txt").write_text("First.\n")
    (tmp_path / "b.txt").write_text("Second.")
    with FakeOpenAi() as fake:
        result = run("chat", "--url", fake.url, "-f", tmp_path / "a.txt", "-f", tmp_path / "b.txt",
                     "--system", "Be brief.", "What?")
    assert (result.returncode, result.stdout, result.stderr) == (0, "one two three\n", "")
    assert fake.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First.\n\nSecond.\n\nWhat?"},
    ]
    assert fake.bodies[0]["model"] == "fake-1"


def test_chat_remembers_and_resets():
    with FakeOpenAi() as fake:
        result = run("chat", "--url", fake.url, text="A?\nB?\n/reset\nC?\n/quit\nD?\n")
    assert result.stdout == "one two three\n" * 3
    said = [[message["content"] for message in body["messages"]] for body in fake.bodies]
    assert said == [["A?"], ["A?", "one two three", "B?"], ["C?"]]


def test_chat_takes_url_and_key_from_the_environment():
    with FakeOpenAi(key="sk-1") as fake:
        for name in ("MOBIUS", "OPENAI"):
            variables = {"MOBIUS_URL" if name == "MOBIUS" else "OPENAI_BASE_URL": fake.url}
            assert run("chat", "Hi", **variables, **{f"{name}_API_KEY": "sk-1"}).stdout == "one two three\n"
            result = run("chat", "Hi", **variables, **{f"{name}_API_KEY": "sk-2"})
            assert result.returncode == 1
            assert "wrong key" in result.stderr
            assert "sk-2" not in result.stderr


def test_chat_says_why_there_is_no_answer(server, tmp_path):
    with FakeOpenAi(failures=[503]) as fake:
        result = run("chat", "--url", fake.url, "Hi")
        assert result.returncode == 1
        assert result.stderr == "mobius: HTTP 503: not now\n"
        unreachable = fake.url
    result = run("chat", "--url", unreachable, "Hi")
    assert result.returncode == 1
    assert "refused" in result.stderr
    with FakeOpenAi(break_off=True) as fake:
        result = run("chat", "--url", fake.url, "Hi")
        assert result.returncode == 1
        assert "broke off" in result.stderr
    for arguments, word in (
        (("--url", "ftp://x", "Hi"), "ftp"),
        (("--url", url_of(server), "-f", tmp_path / "none", "Hi"), "none"),
        (("--url", url_of(server), "--prefill", "some", "Hi"), "--prefill"),
        (("--url", url_of(server), "--prefill", "moba:7/1", "Hi"), "block"),
        (("--url", url_of(server), "--model", "other", "Hi"), "other"),
        (("--temperature", "9", "Hi"), "temperature"),
    ):
        result = run("chat", *arguments)
        assert result.returncode == 1, arguments
        assert word in result.stderr, result.stderr


def test_chat_trusts_only_whom_it_is_told_to(start_server, tmp_path):
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True)
    server = start_server(tls__certificate=certificate, tls__key=key)
    port = server.http_address[1]

    def ask(host, *arguments):
        return run("chat", "--url", f"https://{host}:{port}", "--max-tokens", 2, *arguments, "Hi")

    assert ask("localhost", "--ca", certificate).returncode == 0
    unknown = ask("localhost")
    assert unknown.returncode == 1
    assert "verify failed" in unknown.stderr
    other_name = ask("127.0.0.1", "--ca", certificate)
    assert other_name.returncode == 1
    assert "verify failed" in other_name.stderr
    no_file = ask("localhost", "--ca", key)
    assert no_file.returncode == 1
    assert "holds no certificates" in no_file.stderr


class Terminal:
    """`mobius chat` behind a pseudo-terminal."""

    def __init__(self, *arguments):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [MOBIUS, "chat", *map(str, arguments)], stdin=slave, stdout=slave, stderr=slave,
            env=environment(), preexec_fn=os.setsid, close_fds=True,
        )
        os.close(slave)
        self.output = ""

    def read_until(self, text, seconds=WAIT_SECONDS):
        end = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < end, self.output
            try:
                self.output += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # the other end is closed
                assert text in self.output, self.output
        return self.output

    def type(self, text):
        self.output = ""
        os.write(self.master, text.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal():
    opened = []

    def start(*arguments):
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def test_chat_shows_how_far_a_document_is_read(server, terminal, tmp_path):
    document = tmp_path / "long.txt"
    document.write_text("The ferry left at dawn. " * 250)
    screen = terminal("--url", url_of(server), "--max-tokens", 4, "-f", document, "Why?")
    assert screen.process.wait(timeout=ANSWER_SECONDS) == 0
    output = screen.read_until("first token after")
    assert re.search(r"reading [\d,]+ of [\d,]+ tokens, \d+ %", output), output
    assert "tokens read" in output


def test_ctrl_c_stops_an_answer_and_not_the_conversation(server, terminal):
    screen = terminal("--url", url_of(server), "--max-tokens", 7000)
    screen.read_until("> ")
    cancelled = len(server.log_lines("generation"))
    screen.type("Go on\n")
    server.wait_until(lambda stats: stats["running"] == 1)
    screen.process.send_signal(signal.SIGINT)
    screen.read_until("(stopped)")
    server.wait_idle()
    assert len(server.log_lines("generation")) > cancelled
    assert server.log_lines("generation")[-1]["outcome"] == "cancelled"
    screen.read_until("> ")
    screen.type("/help\n")
    screen.read_until("/reset")
    screen.type("/quit\n")
    assert screen.process.wait(timeout=START_SECONDS) == 0


def test_ctrl_c_ends_a_single_question(server, terminal):
    screen = terminal("--url", url_of(server), "--max-tokens", 7000, "Go on")
    server.wait_until(lambda stats: stats["running"] == 1)
    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(timeout=START_SECONDS) == 130
    server.wait_idle()
