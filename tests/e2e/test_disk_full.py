"""A disk without room, for each thing that is ever written."""

import contextlib
import json
import os
import pathlib
import subprocess
import time

import pytest

from server import MAKE_CHECKPOINT, MOBIUS, START_SECONDS

FULL = pathlib.Path("/dev/full")  # takes nothing, as a full disk


def run(*arguments, **environment):
    return subprocess.run([str(word) for word in arguments], capture_output=True, text=True, timeout=START_SECONDS,
                          env={**os.environ, **environment})


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if run("mount", "-t", "tmpfs", "-o", "size=1m", "none", folder).returncode != 0:
        pytest.skip("only root can mount a small file system")
    yield folder
    run("umount", "-l", folder)


def test_a_full_disk_stops_the_log_and_nothing_else(start_server):
    server = start_server(**{"log.file": FULL})
    for _ in range(5):
        status, answer = server.complete("x", max_tokens=3)
        assert status == 200, answer
    assert server.stats()["status"] == "ready"
    assert server.stop() == 0


def test_the_log_goes_on_when_there_is_room_again(start_server, small_disk):
    log = small_disk / "log"
    server = start_server(**{"log.file": log})
    server.complete("x", max_tokens=1)
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    for _ in range(50):  # more lines than the file's last block has room for
        assert server.complete("x", max_tokens=1)[0] == 200
    filler.unlink()
    mark = "after-the-flood"

    def marked():
        """Whole lines of it: the one in which the room ended is lost, and may be half there before another."""
        for line in log.read_text().rpartition("\n")[0].splitlines():
            with contextlib.suppress(ValueError):
                if json.loads(line).get("request_id") == mark:
                    return True
        return False

    end = time.monotonic() + 60
    while not marked():
        assert time.monotonic() < end, "the log did not go on"
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, {"x-request-id": mark})[0] == 200


def test_ports_that_cannot_be_written_end_the_start(tmp_path, checkpoint):
    file = tmp_path / "ports.json"
    (tmp_path / "ports.json.tmp").symlink_to(FULL)
    result = run(MOBIUS, "--model.path", checkpoint, "--http.port", 0, "--grpc.port", 0, "--server.port_file", file)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == f'mobius: server.port_file: "{file}" cannot be written'
    assert not file.exists()


def test_a_report_that_cannot_be_written_is_an_error(server):
    host, port = server.http_address
    result = run(MOBIUS, "bench", "--url", f"http://{host}:{port}", "--requests", 1, "--concurrency", 1,
                 "--prompt-tokens", 10, "--output-tokens", 2, "--out", FULL)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "mobius: /dev/full: cannot be written"


def test_a_checkpoint_that_does_not_fit_leaves_no_half_of_it(small_disk):
    result = run(MAKE_CHECKPOINT, "--shape", "tiny", "--layers", 8, "--hidden", 512, "--out", small_disk / "model")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1 and "No space left" in result.stderr
    assert list((small_disk / "model").iterdir()) == []


def test_a_killed_generator_leaves_a_whole_checkpoint_or_none(tmp_path):
    """At whatever moment: what has a file's name is that file, and config.json comes last."""
    arguments = ["--shape", "tiny", "--layers", "6", "--hidden", "512", "--seed", "3"]
    whole = tmp_path / "whole"
    start = time.monotonic()
    assert run(MAKE_CHECKPOINT, *arguments, "--out", whole).returncode == 0
    seconds = time.monotonic() - start
    expected = (whole / "model.safetensors").read_bytes()
    endings = set()
    for part in range(20):
        folder = tmp_path / "killed"
        process = subprocess.Popen([MAKE_CHECKPOINT, *arguments, "--out", folder], stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=seconds * part / 16)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        weights = folder / "model.safetensors"
        assert not weights.exists() or weights.read_bytes() == expected
        check = run(MOBIUS, "--check", "--model.path", folder)
        complete = (folder / "config.json").exists()
        assert (check.returncode == 0) == complete, check.stderr
        assert complete or "config.json" in check.stderr or "such folder" in check.stderr, check.stderr
        endings.add(complete)
    assert run(MAKE_CHECKPOINT, *arguments, "--out", folder).returncode == 0
    assert weights.read_bytes() == expected
    assert False in endings, "no run was killed in time"
