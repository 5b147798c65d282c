"""`mobius bench`: loads of every kind, on our server and on one that is none of ours."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from fake_openai import FakeOpenAi
from server import ANSWER_SECONDS, MOBIUS

PERCENTILES = ("min", "mean", "p50", "p90", "p95", "p99", "max")


def bench(url, *arguments):
    return subprocess.run(
        [MOBIUS, "bench", "--url", url, "--out", "-", *map(str, arguments)],
        capture_output=True, text=True, timeout=ANSWER_SECONDS, env=os.environ,
    )


def report_of(result):
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def url_of(server):
    return "http://{}:{}".format(*server.http_address)


def check(report, requests):
    """What every report of a load that went well holds."""
    assert report["requests"] == {"planned": requests, "sent": requests, "succeeded": requests, "failed": 0}
    assert report["errors"] == {}
    for name in ("ttft_ms", "itl_ms", "e2e_ms"):
        row = report[name]
        if name == "itl_ms" and row["count"] == 0:
            continue  # answers of one token, or of one character in several
        assert row["min"] <= row["p50"] <= row["p90"] <= row["p95"] <= row["p99"] <= row["max"], row
        assert len(row["curve"]) == 101
    assert report["ttft_ms"]["count"] == report["e2e_ms"]["count"] == requests
    assert report["ttft_ms"]["max"] <= report["e2e_ms"]["max"]
    assert len(report["per_request"]) == requests
    # Both are rounded to thousandths.
    seconds, rate = report["seconds"], report["throughput"]["requests_per_s"]
    assert (rate - 0.001) * (seconds - 0.001) <= requests <= (rate + 0.001) * (seconds + 0.001)


def test_closed_loop(server):
    report = report_of(bench(url_of(server), "-n", 6, "-c", 3, "--prompt-tokens", "200:400",
                             "--output-tokens", 5, "--ignore-eos"))
    check(report, 6)
    assert report["load"]["kind"] == "closed"
    assert report["model"] == "tiny"
    assert report["tokens"]["output"] == 30
    # The server's own count of the prompts that it got.
    for request in report["per_request"]:
        assert 180 <= request["prompt_tokens"] <= 420, request
        assert request["output_tokens"] == 5


def test_open_loop(server):
    report = report_of(bench(url_of(server), "-n", 5, "--rate", 50, "--prompt-tokens", 60,
                             "--output-tokens", 3, "--ignore-eos", "--endpoint", "completions"))
    check(report, 5)
    assert report["load"]["kind"] == "open"
    starts = [request["at_s"] for request in report["per_request"]]
    assert starts == sorted(starts) and len(set(starts)) == 5


def test_trace_replay_shares_prefixes(server, tmp_path):
    trace = tmp_path / "trace.jsonl"
    first = {"timestamp": 1000, "input_length": 1024, "output_length": 4, "hash_ids": [900, 901]}
    second = {"timestamp": 1500, "input_length": 1100, "output_length": 4, "hash_ids": [900, 901, 902]}
    longer = {"timestamp": 1600, "input_length": 9000, "output_length": 4, "hash_ids": list(range(18))}
    trace.write_text("".join(json.dumps(line) + "\n" for line in (first, second, longer)))
    report = report_of(bench(url_of(server), "--trace", trace, "--speed", 0.25, "--skip-longer", 5000,
                             "--ignore-eos"))
    check(report, 2)
    assert report["load"] == {"kind": "trace", "trace": "trace.jsonl", "speed": 0.25, "length_scale": 1.0,
                              "endpoint": "chat"}
    assert [request["at_s"] for request in report["per_request"]] == [0, 2]
    # What both begin with was computed once, if the first was done by then; never more than that.
    assert report["tokens"]["prompt_cached"] <= 1100
    scaled = report_of(bench(url_of(server), "--trace", trace, "--length-scale", 0.1, "--speed", 100))
    check(scaled, 3)
    assert scaled["per_request"][2]["prompt_tokens"] < 1100


def test_errors_are_counted():
    with FakeOpenAi(failures=[429, 500, 429]) as fake:
        report = report_of(bench(fake.url, "-n", 10, "-c", 2))
    assert report["requests"] == {"planned": 10, "sent": 10, "succeeded": 7, "failed": 3}
    assert report["errors"] == {"HTTP 429: not now": 2, "HTTP 500: not now": 1}
    assert report["ttft_ms"]["count"] == 7
    assert sum("error" in request for request in report["per_request"]) == 3
    assert report["tokens"]["output"] == 21


def test_any_server_of_openais_api():
    """The fake one refuses every member that is not OpenAI's."""
    with FakeOpenAi(with_usage=False) as fake:
        report = report_of(bench(fake.url, "-n", 3, "--prompt-tokens", 50, "--seed", 4))
        check(report, 3)
        assert report["tokens"]["output"] == 9  # events counted, where the server does not
        # It counts 7 tokens of its own beside the words.
        prompts = [body["messages"][0]["content"] for body in fake.bodies if body.get("stream")]
        assert [len(prompt.split()) for prompt in prompts] == [43] * 3
        assert len(set(prompts)) == 3
        report_of(bench(fake.url, "-n", 1, "--extra", '{"seed": 7, "temperature": null}'))
        assert fake.bodies[-1]["seed"] == 7
        assert "temperature" not in fake.bodies[-1]


def test_a_load_that_cannot_be_is_refused(tmp_path):
    binary, unlike = tmp_path / "binary", tmp_path / "unlike"
    binary.write_bytes(bytes(range(256)) * 20)
    unlike.write_text('{"input_length": 3}\n')
    with FakeOpenAi() as fake:
        for arguments, word in (
            (("--prompt-tokens", "0"), "--prompt-tokens"),
            (("--output-tokens", "9:1"), "--output-tokens"),
            (("--rate", 1, "--concurrency", 2), "excludes"),
            (("--rate", 0), "rate"),
            (("--rate", "nan"), "not a number"),
            (("--trace", tmp_path / "none"), "none: cannot be read: No such file"),
            (("--trace", tmp_path), "is a directory"),
            (("--trace", binary), "line 1: is not a JSON object"),
            (("--trace", unlike), "line 1: has no timestamp"),
            (("--speed", 2), "trace"),
            (("--extra", "[]"), "--extra"),
            (("--extra", "{"), "--extra"),
        ):
            result = bench(fake.url, *arguments)
            assert result.returncode == 1, arguments
            assert word in result.stderr, (arguments, result.stderr)
        nowhere = tmp_path / "no-folder" / "report.json"
        result = subprocess.run([MOBIUS, "bench", "--url", fake.url, "--out", nowhere], capture_output=True, text=True)
        assert result.returncode == 1 and "report.json: cannot be written" in result.stderr
        assert fake.bodies == []
        nobody = fake.url
    assert bench(nobody, "-n", 1).returncode == 1


def test_nothing_that_succeeds_is_a_failure():
    with FakeOpenAi(failures=[500] * 3) as fake:
        result = bench(fake.url, "-n", 3)
    assert result.returncode == 1
    assert json.loads(result.stdout)["requests"]["succeeded"] == 0


def test_ctrl_c_ends_with_what_there_is(server):
    process = subprocess.Popen(
        [MOBIUS, "bench", "--url", url_of(server), "-n", "1000", "--output-tokens", "2000",
         "--ignore-eos", "--out", "-"],
        stdout=subprocess.PIPE, text=True,
    )
    server.wait_until(lambda stats: stats["running"] == 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=ANSWER_SECONDS)
    server.wait_idle()
    if output:  # the signal may have come while the prompts' lengths were being learnt
        report = json.loads(output)
        assert report["stopped_early"]
        assert report["requests"]["sent"] < 1000
    assert process.returncode == 1


def test_the_terminal_gets_a_table(tmp_path):
    out = tmp_path / "report.json"
    with FakeOpenAi() as fake:
        result = subprocess.run([MOBIUS, "bench", "--url", fake.url, "-n", "2", "--out", out],
                                capture_output=True, text=True, timeout=ANSWER_SECONDS)
    assert result.returncode == 0, result.stderr
    assert "2 of 2 requests succeeded" in result.stdout
    for name in ("TTFT", "ITL", "E2E", *PERCENTILES[1:]):
        assert name in result.stdout
    check(json.loads(out.read_text()), 2)


def test_reports_become_a_picture(tmp_path):
    plot = pathlib.Path(__file__).parents[1] / "bench/plot_load.py"
    reports = []
    for name, failures in (("good", []), ("some-fail", [500])):
        reports.append(tmp_path / f"{name}.json")
        with FakeOpenAi(failures=failures) as fake:
            assert subprocess.run([MOBIUS, "bench", "--url", fake.url, "-n", "3", "--out", reports[-1]],
                                  capture_output=True, timeout=ANSWER_SECONDS).returncode == 0
    picture = tmp_path / "load.png"
    result = subprocess.run([sys.executable, plot, picture, *reports], capture_output=True, text=True)
    if "matplotlib is missing" in result.stderr:
        pytest.skip("matplotlib is not installed (tests/quality/requirements.txt)")
    assert result.returncode == 0, result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_something_else_is_refused(tmp_path):
    plot = pathlib.Path(__file__).parents[1] / "bench/plot_load.py"
    for text in ("{", "[]", '{"what": "else"}'):
        other = tmp_path / "other.json"
        other.write_text(text)
        result = subprocess.run([sys.executable, plot, tmp_path / "x.png", other], capture_output=True, text=True)
        assert result.returncode == 1
        assert "other.json" in result.stderr
