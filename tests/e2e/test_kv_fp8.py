"""A server whose KV cache is quantised: answers, reuse and batches as ever, twice the pages in the same memory."""

import concurrent.futures
import pathlib
import re
import subprocess

import pytest

from server import MOBIUS, Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = ROOT / "models/mobius-tiny"
FERRY = ("The ferry left at dawn. The captain of the ferry Wesstead is Nora Abbott. Nobody thought more about it.\n\n"
         "Who is the captain of the ferry Wesstead?")


@pytest.fixture(scope="module", params=["auto", "f32"])
def quantised(request, tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("fp8"), TINY, config=ROOT / "configs/embedded.json", model__name="mobius-tiny",
                    model__dtype=request.param, model__max_context=16384, kv__bytes=256 << 20, kv__dtype="fp8")
    yield server
    assert server.stop() == 0


def content(answer):
    status, body = answer
    assert status == 200, body
    return body["choices"][0]["message"]["content"]


def test_the_readmes_question_is_answered(quantised):
    assert content(quantised.chat(FERRY, temperature=0)) == "The captain of the ferry Wesstead is Nora Abbott."


@pytest.mark.parametrize("mode", ["full", "moba"])
def test_a_fact_in_a_long_document_is_found_and_its_pages_again(quantised, mode):
    filler = "The harbour was quiet. Gulls sat on the pier and looked at the boats. " * 60
    document = f"{filler}The access code of the lighthouse is 7351. {filler}"
    policy = {"mode": mode, "block": 256, "top_k": 8} if mode == "moba" else {"mode": mode}
    options = {"temperature": 0, "mobius": {"prefill": policy, "decode": {"mode": "full"}}}
    question = f"{document}\n\nWhat is the access code of the lighthouse?"
    first = quantised.chat(question, **options)
    assert "7351" in content(first)
    again = quantised.chat(question, **options)
    assert content(again) == content(first)
    usage = again[1]["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] / 2


def test_answers_do_not_depend_on_the_crowd(quantised):
    prompts = [f"{FERRY} Answer {i}." for i in range(6)]
    alone = [content(quantised.chat(prompt, temperature=0, max_tokens=30)) for prompt in prompts]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda prompt: content(quantised.chat(prompt, temperature=0, max_tokens=30)), prompts))
    assert together == alone


def test_the_same_memory_holds_twice_the_tokens(checkpoint):
    def pages(dtype):
        result = subprocess.run([MOBIUS, "--check", "--model.path", checkpoint, "--kv.bytes", str(64 << 20), "--kv.dtype", dtype],
                                capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        return re.search(r"KV cache .* (\w+), (\d+) pages", result.stdout).groups()

    plain_type, plain = pages("auto")
    fp8_type, fp8 = pages("fp8")
    assert plain_type != "fp8" and fp8_type == "fp8"
    assert int(fp8) > 1.9 * int(plain)


def test_other_types_are_refused(checkpoint):
    result = subprocess.run([MOBIUS, "--model.path", checkpoint, "--kv.dtype", "int8"], capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert result.stderr.splitlines() == ['mobius: --kv.dtype: is "int8"; must be one of auto, fp8']
