"""Bodies made from OpenAI's API description, right and wrong: whatever comes, the server answers as described."""

import json
import os

import pytest

from openapi import FILE, check, needs_description

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")
yaml = pytest.importorskip("yaml")

pytestmark = needs_description

ENDPOINTS = [
    ("/chat/completions", "CreateChatCompletionResponse"),
    ("/completions", "CreateCompletionResponse"),
    ("/responses", "Response"),
]
# Right bodies of each endpoint, the same in every run, and a quarter as many wrong ones.
EXAMPLES = int(os.environ.get("MOBIUS_FUZZ_EXAMPLES", "20"))


@pytest.fixture(scope="module")
def description():
    """What of the description this server implements."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    with open(FILE, "rb") as file:
        whole = yaml.load(file, Loader=loader)
    paths = {path: {"post": whole["paths"][path]["post"]} for path, _ in ENDPOINTS}
    schemathesis.experimental.OPEN_API_3_1.enable()
    return schemathesis.from_dict({**whole, "paths": paths})


def fit(body):
    """The same body, for this server's model and soon answered: what it says of its limits has tests of its own."""
    if not isinstance(body, dict):
        return body
    body = dict(body)
    if isinstance(body.get("model"), str):
        body["model"] = "tiny"
    for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"]:
        if isinstance(body.get(name), int) and body[name] > 4:
            body[name] = 4
    if not {"max_tokens", "max_completion_tokens", "max_output_tokens"} & set(body):
        body["max_output_tokens" if "input" in body else "max_tokens"] = 4
    if isinstance(body.get("n"), int) and body["n"] > 2:
        body["n"] = 2
    return body


def send(server, path, body):
    status, headers, answer = server.request(
        "POST", "/v1" + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    return status, headers.get("Content-Type", ""), answer


def check_error(answer):
    error = json.loads(answer)
    check("ErrorResponse", error)
    assert error["error"]["message"]
    param = error["error"]["param"]
    assert param is None or error["error"]["message"].startswith(param), error


# Wrong bodies take minutes to make: only where somebody asks for a number.
MODES = ["positive", "negative"] if "MOBIUS_FUZZ_EXAMPLES" in os.environ else ["positive"]
CASES = [(*endpoint, mode) for mode in MODES for endpoint in ENDPOINTS]


@pytest.mark.parametrize("path, schema, mode", CASES)
def test_every_body_is_answered_as_described(server, description, path, schema, mode):
    method = schemathesis.DataGenerationMethod[mode]
    cases = description[path]["POST"].as_strategy(data_generation_method=method)
    count = EXAMPLES if mode == "positive" else max(EXAMPLES // 4, 1)
    statuses = []

    @hypothesis.settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(case=cases)
    def run(case):
        body = fit(case.body)
        try:
            json.dumps(body)
        except TypeError:
            hypothesis.reject()  # not JSON at all
        status, kind, answer = send(server, path, body)
        statuses.append(status)
        assert status in (200, 400, 404), (status, body, answer)
        if status != 200:
            check_error(answer)
        elif kind.startswith("text/event-stream"):
            assert answer.endswith(b"\n\n")
        else:
            check(schema, json.loads(answer))

    run()
    assert len(statuses) > count // 3
    assert server.chat(max_tokens=1)[0] == 200
