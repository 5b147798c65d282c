"""`mobius` as a child process."""

import json
import pathlib
import signal
import subprocess
import tempfile
import time

START_SECONDS = 300  # reading a large checkpoint from a slow disk
STOP_SECONDS = 30


class ServerProcess:
    """The server on free ports, stopped on leaving the `with` block.

    `address` is "host:port" of its HTTP interface. `settings` are further command-line settings, by
    their keys in the configuration. Raises RuntimeError with the server's log if it does not start.
    """

    def __init__(self, binary, config, settings=None):
        self._folder = tempfile.TemporaryDirectory(prefix="mobius-")
        self._ports_file = pathlib.Path(self._folder.name) / "ports.json"
        self._log_path = pathlib.Path(self._folder.name) / "server.log"
        self._command = [str(binary), "--config", str(config)]
        chosen = {**(settings or {}), "http.port": 0, "grpc.port": 0,
                  "server.port_file": self._ports_file}
        for key, value in chosen.items():
            self._command += [f"--{key}", str(value)]
        self._process = None

    def __enter__(self):
        with open(self._log_path, "wb") as log:
            try:
                self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
            except OSError as error:
                raise RuntimeError(f"cannot start {self._command[0]}: {error.strerror}") from error
        try:
            deadline = time.monotonic() + START_SECONDS
            while not self._ports_file.exists():
                if self._process.poll() is not None:
                    raise RuntimeError(f"the server did not start:\n{self.log()}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the server was not ready after {START_SECONDS} s:\n{self.log()}")
                time.sleep(0.05)
            self.address = json.loads(self._ports_file.read_text())["http"]
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def log(self):
        return self._log_path.read_text(errors="replace")

    def stop(self):
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()
