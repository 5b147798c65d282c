import subprocess

import pytest

from server import MAKE_CHECKPOINT, Server


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny Llama with random weights."""
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    subprocess.run(
        [MAKE_CHECKPOINT, "--shape", "tiny", "--seed", "1", "--out", folder],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return folder


@pytest.fixture(scope="session")
def server(checkpoint, tmp_path_factory):
    """The server that most tests share: it has to survive all of them."""
    running = Server(tmp_path_factory.mktemp("server"), checkpoint)
    yield running
    assert running.process.poll() is None, "the server died during the tests"
    assert running.stop() == 0


@pytest.fixture
def start_server(checkpoint, tmp_path):
    """Starts servers with settings of their own; they are stopped at the test's end."""
    started = []

    def start(**settings):
        folder = tmp_path / f"server{len(started)}"
        folder.mkdir()
        started.append(Server(folder, checkpoint, **settings))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def grpc_client(server):
    client = server.grpc_client()
    yield client
    client.close()
