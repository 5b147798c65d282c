"""What containers need of the binary: settings from the environment, a health check without other tools."""

import os
import signal
import socket
import subprocess

from server import MOBIUS, START_SECONDS

COMPLETIONS = "/v1/completions"


def run(*arguments, **environment):
    return subprocess.run(
        [MOBIUS, *map(str, arguments)], capture_output=True, text=True, timeout=START_SECONDS,
        env={**os.environ, **{name: str(value) for name, value in environment.items()}},
    )


def probe(server, path):
    host, port = server.http_address
    return run("--probe", path, "--http.address", host, "--http.port", port)


def test_the_environment_sets_what_the_file_and_the_command_line_do_not(tmp_path, checkpoint):
    file = tmp_path / "config.json"
    file.write_text('{"model": {"path": "/nonexistent", "max_context": 1024}}')
    environment = {"MOBIUS_CONFIG": file, "MOBIUS_MODEL_PATH": checkpoint}
    result = run("--check", **environment)
    assert result.returncode == 0, result.stderr
    assert "1024" in result.stdout
    result = run("--check", "--model.max_context", 2048, **environment, MOBIUS_MODEL_MAX_CONTEXT=4096)
    assert "2048" in result.stdout
    result = run("--check", **environment, MOBIUS_MODEL_MAX_CONTEXT="many")
    assert result.returncode == 1
    assert result.stderr.startswith("mobius: MOBIUS_MODEL_MAX_CONTEXT: ")


def test_probe_tells_what_the_server_answers(server):
    for path in ("/health", "/ready"):
        result = probe(server, path)
        assert (result.returncode, result.stderr) == (0, "")
    missing = probe(server, "/nothing")
    assert missing.returncode == 1
    assert "404" in missing.stderr
    malformed = probe(server, "/x HTTP/1.1\r\nA: b")
    assert malformed.returncode == 1
    assert "path" in malformed.stderr


def test_probe_asks_loopback_where_the_server_listens_everywhere(start_server):
    server = start_server(http__address="0.0.0.0", server__allow_insecure_remote="true")
    _, port = server.http_address
    result = run("--probe", "/ready", MOBIUS_HTTP_ADDRESS="0.0.0.0",
                 MOBIUS_HTTP_PORT=port, MOBIUS_SERVER_ALLOW_INSECURE_REMOTE="true")
    assert (result.returncode, result.stderr) == (0, "")


def test_probe_says_when_there_is_no_server():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    result = run("--probe", "/ready", "--http.port", port)
    assert result.returncode == 1
    assert "cannot connect" in result.stderr


def test_probe_gives_up_on_a_server_that_does_not_answer():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = run("--probe", "/ready", "--model.path", "x", "--http.port", silent.getsockname()[1])
    assert result.returncode == 1
    assert "no answer" in result.stderr


def test_a_draining_server_is_not_ready(start_server):
    server = start_server(server__drain_seconds=600)
    with server.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}
    ) as response:
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("draining")
        result = probe(server, "/ready")
        assert result.returncode == 1
    assert server.process.wait(timeout=START_SECONDS) == 0
