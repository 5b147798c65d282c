"""The checks of docker/verify.sh, which sees to an engine, a base image and this file's packages.

Builds, starts, asks, stops and restarts the compose profile cpu on ports of its own, as a project of
its own. Stops at the first thing that is not as it should be. With --files, only checks what needs no engine.
"""

import contextlib
import http.client
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

import kubernetes_validate
import yaml
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "e2e"))

from server import ReflectionClient, sse_data  # noqa: E402

IMAGE_BYTES = 250_000_000
HEALTHY_SECONDS = 180
LONG_ANSWER_SECONDS = 5  # at a short answer's speed, so rather more; running when Compose gets round to the signal
KUBERNETES = "1.31"  # a release whose schemas the manifests must fit
SERVICE = "mobius-cpu"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


HTTP_PORT, GRPC_PORT = free_port(), free_port()
ENVIRONMENT = {
    **os.environ,
    "COMPOSE_PROJECT_NAME": f"mobius-verify-{os.getpid()}",
    "MOBIUS_PUBLISH_HTTP": str(HTTP_PORT),
    "MOBIUS_PUBLISH_GRPC": str(GRPC_PORT),
    # A busy machine may need longer than the default for the long answer.
    "MOBIUS_SERVER_DRAIN_SECONDS": "300",
    "MOBIUS_STOP_GRACE": "320s",
}
ENVIRONMENT.pop("COMPOSE_PROFILES", None)  # docker/.env has it


def run(*command, **options):
    return subprocess.run([str(word) for word in command], check=True, text=True, env=ENVIRONMENT, **options)


def output(*command):
    return run(*command, stdout=subprocess.PIPE).stdout.strip()


def compose(*arguments, **options):
    return run(*shlex.split(os.environ["COMPOSE"]), "-f", ROOT / "docker" / "compose.yaml", *arguments, **options)


def container():
    return compose("ps", "-q", SERVICE, stdout=subprocess.PIPE).stdout.strip()


def inspect(template):
    return output("docker", "inspect", "--format", template, container())


def check(condition, what, detail=""):
    if not condition:
        raise SystemExit(f"FAILED: {what} {detail}".rstrip())
    print(f"ok: {what} {detail}".rstrip(), flush=True)


def wait_healthy():
    end = time.monotonic() + HEALTHY_SECONDS
    while (state := inspect("{{.State.Health.Status}}")) != "healthy":
        if time.monotonic() > end:
            compose("logs", SERVICE)
            raise SystemExit(f"FAILED: the container is {state} after {HEALTHY_SECONDS} s")
        time.sleep(0.5)


def get(path):
    connection = http.client.HTTPConnection("127.0.0.1", HTTP_PORT, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()


def post(path, body):
    """The response, with its body yet to be read."""
    connection = http.client.HTTPConnection("127.0.0.1", HTTP_PORT, timeout=300)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection.getresponse()


def ask():
    """One short answer over each protocol."""
    with post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}) as response:
        answer = json.loads(response.read())
    check(response.status == 200 and answer["usage"]["completion_tokens"] > 0, "HTTP answers")
    client = ReflectionClient(f"127.0.0.1:{GRPC_PORT}", [])
    with contextlib.closing(client):
        messages = list(client.generate(text="Hello", options={"max_tokens": 4, "ignore_eos": True}))
    check(messages[-1].finished.usage.completion_tokens == 4, "gRPC answers")


def check_files():
    """What needs no engine: compose's file and Kubernetes' against the schemas of either."""
    if "COMPOSE" in os.environ:
        for profile in ("cpu", "gpu", "monitoring"):
            compose("--profile", profile, "config", "--quiet")
        check(True, "this Compose takes every profile")
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "--quiet",
        ROOT / "docker" / "compose.yaml")
    check(True, "compose.yaml fits the Compose specification")
    folder = ROOT / "docker" / "kubernetes"
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    for name in resources:
        for manifest in yaml.safe_load_all((folder / name).read_text()):
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    check(len(resources) >= 2, "Kubernetes manifests fit their schemas", ", ".join(resources))


def check_image(image):
    size = int(output("docker", "image", "inspect", "--format", "{{.Size}}", image))
    check(size < IMAGE_BYTES, f"the image is under {IMAGE_BYTES / 1e6:.0f} MB", f"({size / 1e6:.1f} MB)")
    shell = ["docker", "run", "--rm", "--entrypoint", "sh", image, "-c"]
    found = output(*shell, "for tool in cc gcc g++ c++ clang ld as make cmake; do command -v $tool; done; true")
    check(found == "", "no compiler is in it", found)
    broken = subprocess.run(["docker", "run", "--rm", "--user", "0", "--entrypoint", "sh", image, "-c",
                             "rm /usr/lib/x86_64-linux-gnu/libpcre2-8.so.* && mobius --version"],
                            capture_output=True, text=True, env=ENVIRONMENT)
    check(broken.returncode != 0 and "libpcre2" in broken.stderr, "a library that is missing is noticed")
    bill = ROOT / "build" / "sbom-cpu.spdx.json"
    bill.parent.mkdir(exist_ok=True)
    bill.write_text(output(*shell, "cat /usr/share/doc/mobius/sbom.spdx.json"))
    document = parse_file(str(bill))
    errors = validate_full_spdx_document(document)
    names = {package.name for package in document.packages}
    check(not errors, "the bill of materials is valid SPDX", f"({len(names)} packages, {bill.relative_to(ROOT)})")
    installed = set(output(*shell, "dpkg-query -W -f '${Package}\\n'").split())
    check(installed <= names, "and names every package of the image", " ".join(installed - names))


def check_container():
    check(inspect("{{.HostConfig.ReadonlyRootfs}}") == "true", "its root file system is read-only")
    processes = output("docker", "exec", container(), "sh", "-c",
                       "id -u; grep -E '^(CapEff|NoNewPrivs)' /proc/1/status; touch /x 2>&1; true")
    check(processes.startswith("10001\n"), "it does not run as root")
    check("CapEff:\t0000000000000000" in processes and "NoNewPrivs:\t1" in processes, "it has no capabilities")
    check("Read-only" in processes or "denied" in processes, "it cannot write to it")


@contextlib.contextmanager
def prometheus():
    """A Prometheus with our configuration, but for the server's address. Yields what queries it."""
    port = free_port()
    config = yaml.safe_load((ROOT / "docker" / "monitoring" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    job["static_configs"][0]["targets"] = [f"127.0.0.1:{HTTP_PORT}"]
    config["global"]["scrape_interval"] = "1s"

    def query(path, **parameters):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
            return json.loads(connection.getresponse().read())

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        process = subprocess.Popen(["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
                                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"])
        try:
            yield query
        finally:
            process.terminate()
            process.wait()


def samples(query, name):
    try:
        return query("query", query=f"count({name})")["data"]["result"]
    except (OSError, KeyError, ValueError):  # still starting
        return []


def check_monitoring():
    """The dashboard's panels, asked of a Prometheus that scrapes the server."""
    if shutil.which("prometheus") is None:
        print("skipped: the dashboard's queries; there is no prometheus (group monitoring of dependencies.txt)")
        return
    run("promtool", "check", "config", ROOT / "docker" / "monitoring" / "prometheus.yml", stdout=subprocess.DEVNULL)
    panels = json.loads((ROOT / "docker" / "monitoring" / "grafana" / "mobius.json").read_text())["panels"]
    expressions = [target["expr"].replace("$__rate_interval", "1m") for panel in panels for target in panel["targets"]]
    names = sorted(set(re.findall(r"mobius_\w+", " ".join(expressions))))
    with post("/v1/completions", {"prompt": 5}) as response:  # a refusal, to be counted
        check(response.status == 400, "a bad request is refused")
    with prometheus() as query:
        end = time.monotonic() + 60
        while (missing := [name for name in names if not samples(query, name)]) and time.monotonic() < end:
            time.sleep(0.5)
        check(not missing, "Prometheus finds every metric of the dashboard", f"({len(names)}) {' '.join(missing)}")
        wrong = [text for text in expressions if query("query", query=text)["status"] != "success"]
        check(not wrong, "and understands every query", f"({len(expressions)}) {' '.join(wrong)}")


def tokens_in(seconds):
    """The length of an answer that takes about so long, and fits the model."""
    with post("/v1/completions", {"prompt": "Hello", "max_tokens": 200, "ignore_eos": True}) as response:
        milliseconds = json.loads(response.read())["mobius"]["total_ms"]
    longest = json.loads(get("/v1/models")[1])["data"][0]["mobius"]["max_context"] - 100
    return min(longest, int(200 * seconds * 1000 / milliseconds))


def check_drain():
    """SIGTERM in the middle of an answer: the answer comes whole, then the server is gone."""
    identifier = container()
    length = tokens_in(LONG_ANSWER_SECONDS)
    with post("/v1/completions", {"prompt": "Hello", "max_tokens": length, "ignore_eos": True, "stream": True,
                                  "stream_options": {"include_usage": True}}) as response:
        first = response.readline()
        stopping = threading.Thread(target=compose, args=["stop", SERVICE])
        stopping.start()
        events = sse_data((first + response.read()).decode())
    stopping.join()
    usage = json.loads(events[-2])["usage"]
    check(events[-1] == "[DONE]" and usage["completion_tokens"] == length, "a streaming answer is whole",
          f"({length} tokens)")
    logs = run("docker", "logs", "--timestamps", identifier, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
    when = {event: line.split()[0] for line in sorted(logs.splitlines()) for event in ("draining", "generation", "stopped")
            if f" {event} " in line}
    check(when["draining"] < when["generation"] < when["stopped"], "though SIGTERM came before its end",
          f"({when['draining']}, {when['generation']}, {when['stopped']})")
    code = output("docker", "inspect", "--format", "{{.State.ExitCode}}", identifier)
    check(code == "0", "and the server stopped by itself, with exit code 0")


def check_crash():
    """A server that dies is started again by the engine."""
    before = inspect("{{.RestartCount}}")
    os.kill(int(inspect("{{.State.Pid}}")), signal.SIGKILL)
    end = time.monotonic() + HEALTHY_SECONDS
    while inspect("{{.RestartCount}}") == before and time.monotonic() < end:
        time.sleep(0.2)
    check(inspect("{{.RestartCount}}") != before, "a killed server is started again")
    wait_healthy()


def main():
    check_files()
    if sys.argv[1:] == ["--files"]:
        return
    print("Building", flush=True)
    compose("--profile", "cpu", "build", SERVICE)
    check_image(os.environ.get("MOBIUS_CPU_IMAGE") or "mobius:cpu")
    try:
        compose("up", "-d")
        wait_healthy()
        check(True, "compose brought it up, and it is healthy")
        check_container()
        check(get("/health")[0] == 200 and get("/ready")[0] == 200, "/health and /ready answer 200")
        check("mobius_requests_running" in get("/metrics")[1], "/metrics has metrics")
        ask()
        check_monitoring()
        check_drain()
        compose("up", "-d")
        wait_healthy()
        check(True, "it was started again, and is healthy")
        ask()
        if os.geteuid() == 0:
            check_crash()
            ask()
    finally:
        compose("down", "--volumes")
    print("All checks passed.")


if __name__ == "__main__":
    main()
