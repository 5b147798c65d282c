"""Starting, refusing to start, and stopping."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import MOBIUS, START_SECONDS, sse_data

COMPLETIONS = "/v1/completions"


def run(*arguments):
    # Any free port: the usual ones may be somebody's.
    environment = {**os.environ, "MOBIUS_HTTP_PORT": "0", "MOBIUS_GRPC_PORT": "0"}
    return subprocess.run([MOBIUS, *map(str, arguments)], capture_output=True, text=True,
                          timeout=START_SECONDS, env=environment)


def assert_one_line(result, *words):
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("mobius: ")
    for word in words:
        assert word in result.stderr, result.stderr


def write_config(folder, config):
    file = folder / "config.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return file


def test_help_documents_every_key():
    result = run("--help")
    assert result.returncode == 0
    documented = run("--print-config-docs").stdout
    keys = [line.split("`")[1] for line in documented.splitlines() if line.startswith("| `")]
    assert len(keys) > 30
    for key in keys:
        assert f"--{key} " in result.stdout


def test_version():
    assert run("--version").stdout.startswith("mobius ")


@pytest.mark.parametrize(
    "config, words",
    [
        ('{"http": {"port": 99999}}', ["http.port", "99999", "65535"]),
        ('{"http": {"prot": 1}}', ["http.prot", "unknown key", "http.port"]),
        ('{"http": {"port": "x"}}', ["http.port", '"x"', "integer"]),
        ('{"http": ', ["not valid JSON", "line 1"]),
        ('{"http": {"port": 1, "port": 2}}', ["duplicate key", "port"]),
    ],
)
def test_bad_config_file(tmp_path, checkpoint, config, words):
    file = write_config(tmp_path, config)
    assert_one_line(run("--config", file, "--model.path", checkpoint), str(file), *words)


def test_config_file_and_overrides(tmp_path, checkpoint):
    file = write_config(tmp_path, {"model": {"path": str(checkpoint), "max_context": 4096}})
    result = run("--config", file, "--check")
    assert result.returncode == 0, result.stderr
    assert "4096" in result.stdout
    result = run("--config", file, "--check", "--model.max_context=2048")
    assert "2048" in result.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], ["model.path"]),
        (["--model.path", "/nonexistent"], ["/nonexistent"]),
        (["--config", "/nonexistent.json"], ["/nonexistent.json", "No such file"]),
        (["--http.port"], ["--http.port", "no value"]),
        (["--http.prot", "1"], ["--http.prot", "http.port"]),
        (["sevre"], ["sevre", "unexpected"]),
    ],
)
def test_bad_command_lines(arguments, words):
    assert_one_line(run(*arguments), *words)


def test_remote_addresses_need_a_key_or_consent(tmp_path, checkpoint):
    arguments = ["--model.path", checkpoint, "--check", "--http.address", "0.0.0.0"]
    assert_one_line(run(*arguments), "http.address", "server.allow_insecure_remote")
    assert run(*arguments, "--server.allow_insecure_remote").returncode == 0
    keys = tmp_path / "keys"
    keys.write_text("alice mk-alice-0123456789\n")
    assert run(*arguments, "--security.key_file", keys).returncode == 0
    keys.write_text("alice\n")
    assert_one_line(run(*arguments, "--security.key_file", keys), "security.key_file", "line 1")


def test_a_plan_that_cannot_work_is_refused(checkpoint):
    for action in (["--check"], []):
        result = run(
            "--model.path", checkpoint, "--model.max_context", 100000, "--kv.bytes", 1 << 20, *action
        )
        assert_one_line(result)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--attention.full_attention_last_layers", 99], ["full_attention_last_layers", "99", "4"]),
        (["--attention.decode.block", 100], ["attention.decode.block", "100", "128"]),
        (["--kv.page_tokens", 100], ["kv.page_tokens", "100", "16"]),
        (["--model.max_context", 10**6], ["model.max_context", "1000000"]),
        (["--kv.bytes", 1000], ["kv.bytes", "1000"]),
        (["--server.max_queued_bytes", 2000], ["server.max_queued_bytes", "http.max_body_bytes"]),
    ],
)
def test_settings_that_no_request_could_run_with(checkpoint, arguments, words):
    """Refused before the first request, by names that the configuration has."""
    for action in (["--check"], []):
        result = run("--model.path", checkpoint, *arguments, *action)
        assert result.returncode == 1
        for word in words:
            assert word in result.stderr.splitlines()[0], result.stderr


def test_truncated_shard(tmp_path, checkpoint):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    shard = broken / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1000])
    assert_one_line(run("--model.path", broken), "model.safetensors")
    assert_one_line(run("--model.path", broken, "--check"), "model.safetensors")


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.safetensors"])
def test_missing_files(tmp_path, checkpoint, name):
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint, broken)
    (broken / name).unlink()
    # Other formats of the same thing may be what the message asks for.
    assert_one_line(run("--model.path", broken), str(broken))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_port_in_use(checkpoint, protocol):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = "grpc" if protocol == "http" else "http"
        result = run(
            "--model.path", checkpoint, f"--{protocol}.port", port, f"--{other}.port", 0
        )
    assert_one_line(result, f"{protocol}.port", str(port))


def test_sigterm_lets_running_requests_finish(start_server):
    server = start_server(server__drain_seconds=600)
    client = server.grpc_client()
    call = client.generate(text="x", options={"max_tokens": 1500, "ignore_eos": True})
    next(call)
    with server.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 1500, "ignore_eos": True}
    ) as response:
        first = response.readline()
        assert first.startswith(b"data: ")
        server.process.send_signal(signal.SIGTERM)
        events = sse_data((first + response.read()).decode())
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == "length"
    assert list(call)[-1].finished.usage.completion_tokens == 1500
    client.close()
    assert server.process.wait(timeout=START_SECONDS) == 0


def wait_until_refused(server):
    """Returns once the server takes no new connections."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(server.http_address, timeout=1).close()
        except OSError:
            return
    raise AssertionError("the server still accepts connections")


def test_sigterm_refuses_new_requests_while_draining(start_server):
    server = start_server()
    idle = server.connect()
    idle.request("GET", "/ready")
    assert idle.getresponse().read()
    with server.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}
    ) as response:
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        wait_until_refused(server)
        assert server.process.poll() is None
    assert server.process.wait(timeout=START_SECONDS) == 0


def test_drain_has_an_end(start_server):
    server = start_server(server__drain_seconds=0)
    client = server.grpc_client()
    endless = {"max_tokens": 8000, "ignore_eos": True}
    call = client.generate(text="x", options=endless)
    next(call)
    with server.open_stream(COMPLETIONS, {"prompt": "x", **endless}) as response:
        first = response.readline()
        server.process.send_signal(signal.SIGTERM)
        events = sse_data((first + response.read()).decode())
    # Told so, not just cut off.
    assert events[-1] == "[DONE]"
    assert json.loads(events[-2])["error"]["code"] == "unavailable"
    with pytest.raises(grpc.RpcError) as error:
        list(call)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    assert "shutting down" in error.value.details()
    client.close()
    assert server.process.wait(timeout=START_SECONDS) == 0


def test_a_request_that_is_half_sent_is_answered(start_server):
    server = start_server()
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    with server.raw() as connection:
        connection.sendall(
            f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
            f"Expect: 100-continue\r\n\r\n".encode()
        )
        # It reads the body from here on.
        assert connection.recv(1000).startswith(b"HTTP/1.1 100")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for_log("draining")
        connection.sendall(body.encode())
        answer = b""
        while piece := connection.recv(1000):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"shutting down" in answer
    assert server.process.wait(timeout=START_SECONDS) == 0


def test_stopping_while_large_bodies_are_parsed(start_server):
    server = start_server(server__drain_seconds=0)
    body = b'{"prompt": "' + b"y" * 6_000_000 + b'"}'
    connections = [server.raw() for _ in range(4)]

    def send(connection):
        try:
            connection.sendall(
                f"POST {COMPLETIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
        except OSError:
            pass  # closed meanwhile

    with ThreadPoolExecutor(len(connections)) as pool:
        for connection in connections:
            pool.submit(send, connection)
        server.wait_until(lambda stats: stats["queued_bytes"] >= len(body))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=START_SECONDS) == 0
    for connection in connections:
        connection.close()


def test_the_server_can_stop_itself(start_server):
    """What it does when the model fails: it wakes its own main thread with this signal."""
    server = start_server()
    server.process.send_signal(signal.SIGUSR1)
    assert server.process.wait(timeout=START_SECONDS) == 0


def test_second_signal_ends_at_once(start_server):
    server = start_server(server__drain_seconds=600)
    with server.open_stream(
        COMPLETIONS, {"prompt": "x", "max_tokens": 8000, "ignore_eos": True}
    ) as response:
        response.readline()
        server.process.send_signal(signal.SIGTERM)
        # The first one has been taken once new connections are refused.
        wait_until_refused(server)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=START_SECONDS) == 128 + signal.SIGINT


def test_log_is_json_and_holds_no_prompts(start_server):
    server = start_server()
    assert server.chat("a very secret text", max_tokens=2)[0] == 200
    server.request("GET", "/nothing%22%0a\"quoted\"")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "listening" and events[-1] == "stopped"
    statuses = [line["status"] for line in lines if line["event"] == "request"]
    assert sorted(statuses) == [200, 404]
    assert "secret" not in server.log.read_text()


def test_a_health_watch_does_not_hold_up_the_drain(start_server):
    server = start_server(server__drain_seconds=600)
    client = server.grpc_client()
    watch = health_pb2_grpc.HealthStub(client.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    server.process.send_signal(signal.SIGTERM)
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert server.process.wait(timeout=START_SECONDS) == 0
    client.close()
