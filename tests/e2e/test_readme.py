"""The README's commands, run as they are printed against a server of the embedded model.

Every ```sh block is run, unless the line before it is a comment `<!-- not run: reason -->`. A ```text block behind it holds
what its output must contain, a line each. Ports and the binary's folder are replaced, so that a server of yours is in nobody's way.
"""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pytest

from server import ANSWER_SECONDS, MOBIUS, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```sh\n(?P<script>.*?)^```$\n"
                   r"(?:\n```text\n(?P<expected>.*?)^```$)?", re.MULTILINE | re.DOTALL)
BLOCKS = list(BLOCK.finditer(README))
RUN = [block for block in BLOCKS if not block["reason"]]


def first_command(block):
    return block["script"].splitlines()[0][:40]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """The server that `make serve` starts, on free ports."""
    server = Server(tmp_path_factory.mktemp("readme-server"), ROOT / "models/mobius-tiny",
                    config=ROOT / "configs/embedded.json", model__name="mobius-tiny", kv__bytes=512 << 20)
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The repository as a reader has it, without a place to spoil."""
    folder = tmp_path_factory.mktemp("readme")
    for name in ("README.md", "configs", "models", "proto", "tests"):
        (folder / name).symlink_to(ROOT / name)
    activate = folder / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.write_text(f'PATH="{pathlib.Path(sys.executable).parent}:$PATH"\n')
    tools = folder / "build/release/server"
    tools.mkdir(parents=True)
    (tools / "mobius").symlink_to(pathlib.Path(MOBIUS).resolve())
    return folder


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def replaced(script, server):
    http_port = server.http_address[1]
    grpc_port = server.grpc_address.rsplit(":", 1)[1]
    for printed, real in (("127.0.0.1:8000", f"127.0.0.1:{http_port}"), ("127.0.0.1:8001", f"127.0.0.1:{grpc_port}"),
                          ("8443", free_port()), ("8444", free_port()), ("0.0.0.0", "127.0.0.1")):
        script = script.replace(printed, str(real))
    return script


def test_the_readme_has_commands():
    assert len(RUN) >= 8
    assert len(BLOCKS) == README.count("```sh\n"), "a block of the README was not understood"


@pytest.mark.parametrize("block", RUN, ids=first_command)
def test_commands_work_as_printed(block, embedded, folder):
    script = replaced(block["script"], embedded)
    for tool in ("curl", "openssl", "protoc"):
        if re.search(rf"\b{tool}\b", script) and shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "MOBIUS_"))}
    host, port = embedded.http_address
    result = subprocess.run(
        ["bash", "-c", "set -euo pipefail\n" + script], cwd=folder, capture_output=True, text=True,
        timeout=ANSWER_SECONDS,
        env={**kept, "PATH": f"{folder}/build/release/server:{kept['PATH']}", "MOBIUS_URL": f"http://{host}:{port}"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    for line in (block["expected"] or "").splitlines():
        assert line in result.stdout, f"{line!r} is not in {result.stdout!r} ({result.stderr!r})"
