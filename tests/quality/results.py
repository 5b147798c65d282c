"""The results file: what was measured, on what, and what need not be measured again."""

import datetime
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import threading
import time

FORMAT = 1
SAVE_SECONDS = 5


class ResultsMismatch(RuntimeError):
    """The file holds results that cannot be continued with these settings."""


def load(path):
    """The content of a results file."""
    try:
        data = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ResultsMismatch(f"{path} is not JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ResultsMismatch(f"{path} is not a results file of format {FORMAT}")
    return data


class Results:
    """One JSON file. Thread-safe. Written under another name first, so that it is always whole."""

    def __init__(self, path, settings, run):
        """`settings` decide what a document is (model, seed, ...): they have to be the file's own.
        `run` describes this run; each case names the run it was measured in."""
        self.path = pathlib.Path(path)
        self._lock = threading.Lock()
        self._saved = 0.0
        if self.path.exists():
            self.data = load(self.path)
            for name, value in settings.items():
                old = self.data["settings"].get(name)
                if old != value:
                    raise ResultsMismatch(f"{self.path} was made with {name} {old!r}, this run has "
                                          f"{value!r}; choose another --out")
        else:
            self.data = {"format": FORMAT, "settings": settings, "runs": [], "documents": {},
                         "too_long": [], "cases": []}
        self.run = len(self.data["runs"])
        self.data["runs"].append(run)
        self._done = {(case["document"], case["mode"]) for case in self.data["cases"]}

    @property
    def cases(self):
        return self.data["cases"]

    def has(self, document, mode):
        with self._lock:
            return (str(document), mode.name) in self._done

    def characters_of(self, document):
        """How long the document was made, if it has been fitted before."""
        with self._lock:
            return self.data["documents"].get(str(document))

    def set_characters(self, document, characters):
        with self._lock:
            self.data["documents"][str(document)] = characters

    def set_too_long(self, length, why):
        with self._lock:
            if all(entry["length"] != length for entry in self.data["too_long"]):
                self.data["too_long"].append({"length": length, "why": why})

    def add(self, document, mode, measured):
        case = {"document": str(document), "task": document.task, "length": document.length,
                "depth": document.depth, "sample": document.sample, "mode": mode.name,
                "attention": mode.extension(), "run": self.run, **measured}
        with self._lock:
            self.data["cases"].append(case)
            self._done.add((str(document), mode.name))
            if time.monotonic() - self._saved >= SAVE_SECONDS:
                self._write()

    def save(self):
        with self._lock:
            self._write()

    def _write(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(self.path.name + ".partial")
        with open(partial, "w") as file:
            # One case to a line: long runs stay readable, and diffs small.
            file.write("{\n")
            for name in ("format", "settings", "too_long", "documents"):
                file.write(f"{json.dumps(name)}: {json.dumps(self.data[name])},\n")
            for name in ("runs", "cases"):
                lines = ",\n".join(json.dumps(entry) for entry in self.data[name])
                file.write(f"{json.dumps(name)}: [\n{lines}\n]{',' if name == 'runs' else ''}\n")
            file.write("}\n")
        os.replace(partial, self.path)
        self._saved = time.monotonic()


def describe_run(source_root, model, hardware=None, commit=None):
    """Date, code and machine of a run. `model` is the server's own description."""
    extension = model.get("mobius") or {}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit or commit_of(source_root),
        "hardware": hardware or local_hardware(),
        "server": {"model": model.get("id"), "device": extension.get("device"),
                   "max_context": extension.get("max_context"),
                   "page_tokens": extension.get("page_tokens")},
    }


def fingerprint(paths):
    """Follows from names and contents of files; of large ones from size, beginning and end."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}:".encode())
        with open(path, "rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def _output_of(command, **options):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30,
                              **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def commit_of(folder):
    commit = _output_of(["git", "rev-parse", "--short", "HEAD"], cwd=folder)
    if commit is None:
        return "unknown"
    changes = _output_of(["git", "status", "--porcelain", "--untracked-files=no"], cwd=folder)
    return commit + ("-dirty" if changes else "")


def local_hardware():
    processor = platform.processor() or platform.machine()
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    parts = [f"{processor}, {len(os.sched_getaffinity(0))} cores"]
    gpus = _output_of(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if gpus:
        parts.append(", ".join(gpus.splitlines()))
    return "; ".join(parts)
