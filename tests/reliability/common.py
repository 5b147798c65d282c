"""What the commands of this folder share: the server under test, its memory, and the report."""

import argparse
import datetime
import json
import pathlib
import resource
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/client"), str(ROOT / "tests/quality")]

from results import commit_of, local_hardware  # noqa: E402
from server_process import ServerProcess  # noqa: E402


def arguments_of(description, **counts):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--mobius", type=pathlib.Path, default=ROOT / "build/release/server/mobius")
    parser.add_argument("--make-checkpoint", type=pathlib.Path,
                        default=ROOT / "build/release/models/mobius-make-checkpoint")
    parser.add_argument("--out", type=pathlib.Path, help="file for the result as JSON")
    parser.add_argument("--seed", type=int, default=1)
    for name, (default, what) in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=what)
    return parser.parse_args()


class TinyServer(ServerProcess):
    """A server of a random model so small that requests, not products, are what takes time."""

    def __init__(self, arguments, **settings):
        # As many connections as the machine lets one process have.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._model = tempfile.TemporaryDirectory(prefix="mobius-model-")
        subprocess.run([arguments.make_checkpoint, "--shape", "tiny", "--seed", "1", "--out", self._model.name],
                       check=True, stdout=subprocess.DEVNULL)
        config = pathlib.Path(self._model.name) / "server.json"
        config.write_text(json.dumps({"model": {"path": self._model.name, "name": "tiny", "max_context": 4096}}))
        super().__init__(arguments.mobius, config, {key.replace("__", "."): value for key, value in settings.items()})

    def stop(self):
        super().stop()
        self._model.cleanup()

    @property
    def alive(self):
        return self._process.poll() is None

    def open_files(self):
        """Descriptors of the process: connections, and what it always has."""
        return len(list(pathlib.Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def resident_bytes(self, peak=False):
        name = "VmHWM:" if peak else "VmRSS:"
        for line in pathlib.Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise RuntimeError(f"no {name} of process {self._process.pid}")


def report(arguments, command, failures, **values):
    """Prints the result, writes it where it is wanted, and returns the exit code."""
    result = {
        "command": command,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit_of(ROOT),
        "hardware": local_hardware(),
        **values,
        "failures": failures[:20],
        "failed": len(failures),
    }
    print(json.dumps(result, indent=1))
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")
    return 1 if failures else 0
