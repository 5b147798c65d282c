"""The harness against a fake server and a fake corpus, both small enough to know the right result."""

import importlib.util
import json
import pathlib
import random
import sys
import threading
import time
import types

import pytest

HERE = pathlib.Path(__file__).resolve().parent
sys.path += [str(HERE.parent / "client"), str(HERE.parents[1] / "models" / "training")]

import corpus as real_corpus  # noqa: E402
from cases import DocumentKey, Mode, Policy, depths_of, grid, parse_lengths, parse_modes  # noqa: E402
from chat_client import ChatClient, ServerError  # noqa: E402
from evaluator import Evaluator  # noqa: E402
from fakes import TEMPLATE_TOKENS, FakeServer, fake_dialogue  # noqa: E402
from fit_length import LengthFitter, slices_of  # noqa: E402
from heatmap import draw, file_name, panels_of  # noqa: E402
from report import cost_table, difference_table, overview, score_table, summary  # noqa: E402
from results import Results, ResultsMismatch, fingerprint  # noqa: E402
from run import checkpoint_of, merged, parse_arguments, write_report  # noqa: E402

FULL = Mode(Policy("full"), Policy("full"))
MOBA = Mode(Policy("moba", 128, 2), Policy("moba", 128, 2))
FAKE_CORPUS = types.SimpleNamespace(make_dialogue=fake_dialogue, grade=real_corpus.grade)


@pytest.fixture
def fake():
    server = FakeServer()
    yield server
    server.close()


SETTINGS = {"model": "fake", "seed": 1}
RUN = {"date": "today", "commit": "abc", "hardware": "a machine", "server": {"device": "none"}}


def results_in(folder, **settings):
    return Results(folder / "results.json", {**SETTINGS, **settings}, RUN)


def evaluate(fake, results, keys, modes=(FULL, MOBA), parallel=1, **options):
    client = ChatClient(fake.address, timeout=30)
    evaluator = Evaluator(client, "fake", FAKE_CORPUS, results, modes, seed=1,
                          log=lambda line: None, **options)
    return evaluator.run(keys, parallel)


# ---- what is to be measured ------------------------------------------------------------------------


def test_modes_are_expanded_by_block():
    modes = parse_modes(["full:full", "moba:full", "server"], [(128, 8), (512, 3)], 2)
    assert [mode.name for mode in modes] == [
        "full:full", "moba:full 128/8 last 2 full", "moba:full 512/3 last 2 full", "server"]
    assert modes[0].extension() == {"prefill": {"mode": "full"}, "decode": {"mode": "full"}}
    assert modes[2].extension() == {"prefill": {"mode": "moba", "block": 512, "top_k": 3},
                                    "decode": {"mode": "full"}, "full_attention_last_layers": 2}
    assert modes[3].extension() is None
    assert [mode.is_full for mode in modes] == [True, False, False, False]


@pytest.mark.parametrize("modes, blocks, named", [
    (["moba"], [(128, 8)], "'moba'"), (["moba:half"], [(128, 8)], "'moba:half'"),
    (["moba:moba"], [], "'moba:moba'"), (["full:full", "full:full"], [], "twice")])
def test_wrong_modes_are_named(modes, blocks, named):
    with pytest.raises(ValueError, match=named):
        parse_modes(modes, blocks)


def test_lengths_and_depths():
    assert parse_lengths("4096,8192") == [4096, 8192]
    for wrong in ("", "4096,", "8192,4096", "4096,4096", "12", "4k"):
        with pytest.raises(ValueError):
            parse_lengths(wrong)
    assert depths_of(5) == [0, 0.25, 0.5, 0.75, 1]
    assert depths_of(1) == [0.5]
    with pytest.raises(ValueError):
        depths_of(0)


def test_the_grid_is_covered_before_the_next_sample():
    keys = list(grid(["a", "b"], [1000, 2000], [0.0, 1.0], 2))
    assert len(set(keys)) == 16
    assert {key.sample for key in keys[:8]} == {0}
    assert len({key.seed(1) for key in keys}) == 16
    assert keys[0].seed(1) != keys[0].seed(2)
    assert keys[0].seed(1) == DocumentKey("a", 1000, 0.0, 0).seed(1)


@pytest.mark.parametrize("arguments, named", [
    ("--out x", "either --server or --config"), ("--out x --server s --config c", "either"),
    ("--out x --server s --report", "--report"), ("--server s", "--out"),
    ("--out x --server s --tasks nonsense", "'nonsense': must be one of single"),
    ("--out x --server s --blocks 512", "BLOCK/TOP_K"), ("--out x --server s --samples 0", "--samples is 0"),
    ("--out x --server s --lengths 9", "lengths '9'"), ("--out x --config c --set kv", "KEY=VALUE")])
def test_wrong_command_lines_are_refused(capsys, arguments, named):
    with pytest.raises(SystemExit) as error:
        parse_arguments(arguments.split())
    assert error.value.code == 2
    assert named in capsys.readouterr().err


def test_the_command_line_says_what_is_measured():
    chosen = parse_arguments("--out x --server s --modes full:full,moba:full --blocks 128/4,512/8 "
                             "--lengths 4096,8192 --depths 3".split())
    assert [mode.name for mode in chosen.modes] == ["full:full", "moba:full 128/4", "moba:full 512/8"]
    assert chosen.tasks == list(real_corpus.TASKS)
    assert chosen.lengths == [4096, 8192] and chosen.depths == [0, 0.5, 1]


def test_a_started_server_is_known_by_its_weights(tmp_path):
    config = {"model": {"path": "elsewhere", "name": "tiny"}}
    changed = merged(config, {"model.path": str(tmp_path), "kv.bytes": "1000"})
    assert changed == {"model": {"path": str(tmp_path), "name": "tiny"}, "kv": {"bytes": "1000"}}
    assert config["model"]["path"] == "elsewhere"
    (tmp_path / "model.safetensors").write_text("trained")
    before = checkpoint_of(changed)
    (tmp_path / "model.safetensors").write_text("trained on")
    assert checkpoint_of(changed) != before


# ---- lengths ---------------------------------------------------------------------------------------


def test_slices_are_spread_over_the_text():
    words = [f"w{i}" for i in range(20_000)]
    sample = slices_of(" ".join(words))
    assert 3500 < len(sample) < 4500
    found = [int(word[1:]) for word in sample.split()]
    assert all(word in set(words) for word in sample.split()[:-1])  # cut between words
    assert found[0] == 0 and found[-1] > 19_900
    assert max(b - a for a, b in zip(found, found[1:])) < 4_000
    assert slices_of("short") == "short"


@pytest.mark.parametrize("tokens", [500, 4096, 60_000])
def test_lengths_are_met(tokens):
    asked = []

    def count(text):
        asked.append(text)
        return TEMPLATE_TOKENS + len(text.split())

    fitter = LengthFitter(count)
    for seed in range(8):
        def make(characters):
            return fake_dialogue("t", random.Random(seed), "eval", characters, depth=0.5)
        fitted = fitter.fit(make, tokens)
        message = make(fitted.characters).first_message()
        assert message == fitted.dialogue.first_message()
        assert abs(TEMPLATE_TOKENS + len(message.split()) - tokens) <= 0.06 * tokens
    assert max(len(text) for text in asked) < 6000
    assert len(asked) == 9  # the template once, then one sample for each document


# ---- asking ----------------------------------------------------------------------------------------


def test_a_run_measures_every_case(fake, tmp_path):
    results = results_in(tmp_path)
    keys = list(grid(["t"], [600, 1200], depths_of(3), 1))
    assert evaluate(fake, results, keys) == 12
    by_name = {(c["document"], c["mode"]): c for c in results.cases}
    assert len(by_name) == 12
    for key in keys:
        full, sparse = (by_name[str(key), mode.name] for mode in (FULL, MOBA))
        assert full["score"] == 1.0
        assert sparse["score"] == (1.0 if key.depth <= 0.5 else 0.0)
        # Both were asked the same, and about as long as wanted.
        assert full["expect"] == sparse["expect"]
        assert full["prompt_tokens"] == sparse["prompt_tokens"]
        assert 0.85 * key.length < full["prompt_tokens"] <= key.length
        assert full["ttft_seconds"] == 0.25
        assert sparse["attention"] == MOBA.extension()
        assert full["answers"] == [full["expect"][0][0]]
    assert all(body["temperature"] == 0 for body in fake.requests)


def test_every_turn_counts(fake, tmp_path):
    results = results_in(tmp_path)
    key = DocumentKey("t", 600, 0.2, 0)
    evaluate(fake, results, [key], modes=[FULL], turns=3)
    case = results.cases[0]
    assert case["scores"] == [1, 1, 1] and case["score"] == 1
    conversation = fake.requests[-1]["messages"]
    assert [m["role"] for m in conversation] == ["user", "assistant"] * 2 + ["user"]
    assert conversation[1]["content"] == case["answers"][0]


def test_wrong_guesses_at_a_length_are_corrected(fake, tmp_path, monkeypatch):
    # A sample that misleads: its tokens are counted double.
    monkeypatch.setattr(LengthFitter, "tokens_per_character",
                        lambda self, text: 2 * len(text.split()) / len(text))
    results = results_in(tmp_path)
    key = DocumentKey("t", 3000, 0.5, 0)
    evaluate(fake, results, [key])
    assert len(results.cases) == 2
    assert all(2700 < case["prompt_tokens"] <= 3000 for case in results.cases)
    assert results.cases[0]["prompt_tokens"] == results.cases[1]["prompt_tokens"]


def test_other_servers_can_be_measured(fake, tmp_path):
    fake.extension = fake.says_context = False
    results = results_in(tmp_path)
    evaluate(fake, results, [DocumentKey("t", 600, 0.5, 0)], modes=[Mode()])
    assert all("mobius" not in body for body in fake.requests)
    case = results.cases[0]
    assert case["mode"] == "server" and case["score"] == 1
    assert case["prefill_blocks"] is None and case["ttft_seconds"] > 0
    assert "server" in summary(results.data)


def test_a_server_without_usage_is_refused(fake, tmp_path):
    fake.usage = False
    with pytest.raises(RuntimeError, match="usage.prompt_tokens"):
        evaluate(fake, results_in(tmp_path), [DocumentKey("t", 600, 0.5, 0)])


def test_a_length_of_the_whole_context_fits(fake, tmp_path):
    fake.max_context = 2048
    results = results_in(tmp_path)
    keys = [DocumentKey("t", 2048, depth, sample) for depth in depths_of(3) for sample in range(4)]
    evaluate(fake, results, keys, max_context=2048)
    assert len(results.cases) == 24 and not results.data["too_long"]


@pytest.mark.parametrize("known", [True, False])
def test_lengths_beyond_the_context_are_left_out(fake, tmp_path, known):
    fake.max_context = 1000
    results = results_in(tmp_path)
    keys = list(grid(["t"], [600, 4000], [0.5], 2))
    evaluate(fake, results, keys, max_context=1000 if known else None)
    assert {case["length"] for case in results.cases} == {600}
    assert [entry["length"] for entry in results.data["too_long"]] == [4000]
    assert "4000 not measured" in summary(results.data)


def test_a_busy_server_is_asked_again(fake, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluator.RETRY_SECONDS", (0, 0, 0))
    results = results_in(tmp_path)
    fake.busy = 3
    assert evaluate(fake, results, [DocumentKey("t", 600, 0.5, 0)]) == 2
    fake.busy = 100
    with pytest.raises(ServerError, match="429"):
        evaluate(fake, results, [DocumentKey("t", 600, 1.0, 0)])


# ---- results ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_interrupted_run_goes_on(fake, tmp_path, parallel):
    keys = list(grid(["t", "u"], [600], depths_of(3), 2))
    first = results_in(tmp_path)
    fake.fail_after = 20
    with pytest.raises(ServerError, match="500: broken"):
        evaluate(fake, first, keys, parallel=parallel)
    assert 0 < len(first.cases) < 24
    before = json.loads((tmp_path / "results.json").read_text())["cases"]
    assert len(before) == len(first.cases)

    fake.fail_after = None
    fake.requests.clear()
    second = results_in(tmp_path)
    assert evaluate(fake, second, keys, parallel=parallel) == 24 - len(before)
    assert len(fake.questions()) >= 24 - len(before)
    assert second.cases[:len(before)] == before
    names = [(case["document"], case["mode"]) for case in second.cases]
    assert len(names) == len(set(names)) == 24
    assert {case["run"] for case in second.cases} == {0, 1}
    # A document whose first mode was done before is asked as it was then.
    lengths = {}
    for case in second.cases:
        assert lengths.setdefault(case["document"], case["prompt_tokens"]) == case["prompt_tokens"]

    fake.requests.clear()
    assert evaluate(fake, results_in(tmp_path), keys, parallel=parallel) == 0
    assert not fake.requests


def test_an_interrupt_does_not_wait_for_answers(fake, tmp_path, monkeypatch):
    # Ctrl-C while the server computes a prompt that takes minutes.
    fake.hangs = threading.Event()
    results = results_in(tmp_path)

    def interrupted(futures):
        while not fake.questions():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr("evaluator.concurrent.futures.as_completed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(fake, results, list(grid(["t"], [600], depths_of(3), 1)), parallel=2)
    assert not fake.hangs.is_set()  # nobody waited for it
    fake.hangs.set()
    assert not results.cases and results.path.exists()


def test_results_of_something_else_are_not_continued(tmp_path):
    results_in(tmp_path).save()
    with pytest.raises(ResultsMismatch, match="seed 1, this run has 2"):
        results_in(tmp_path, seed=2)
    path = tmp_path / "results.json"
    for content in ("{", "[]", '{"format": 0}'):
        path.write_text(content)
        with pytest.raises(ResultsMismatch):
            results_in(tmp_path)
    assert path.read_text() == content


def test_a_fingerprint_follows_the_files(tmp_path):
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_bytes(bytes(3 << 20))
    before = fingerprint(tmp_path.iterdir())
    assert fingerprint(reversed(sorted(tmp_path.iterdir()))) == before
    (tmp_path / "b").write_bytes(bytes(3 << 20 | 1))
    longer = fingerprint(tmp_path.iterdir())
    (tmp_path / "a").write_text("two")
    assert len({before, longer, fingerprint(tmp_path.iterdir())}) == 3


# ---- tables and heat maps --------------------------------------------------------------------------


def case(task, length, score, mode="full:full", depth=0.5, sample=0, read=100, **members):
    moba = MOBA.extension() if mode.startswith("moba") else FULL.extension()
    reads = {"read": read, "total": 100}
    return {"document": f"{task}/{length}/{depth:g}/{sample}", "task": task, "length": length,
            "depth": depth, "sample": sample, "mode": mode, "attention": moba, "score": score,
            "prompt_tokens": length - 100, "ttft_seconds": 1.0, "prefill_blocks": reads,
            "decode_blocks": reads, **members}


def cells(table, row):
    """The cells of the row that begins with `row`; columns are two spaces apart."""
    line = next(line for line in table.splitlines() if line.startswith(row))
    return [cell.strip() for cell in line[len(row):].split("  ") if cell.strip()]


def test_scores_are_averaged_by_task_and_length():
    # One task has more samples: all tasks count the same nonetheless.
    cases = [case("a", 4096, 1.0), case("a", 4096, 0.5, sample=1), case("b", 4096, 0.25),
             case("a", 5000, 1.0)]
    table = score_table(cases, ["a", "b"], [4096, 5000])
    assert table.splitlines()[0].split()[2:] == ["4K", "5000"]
    assert cells(table, "a ") == ["75.0", "100.0"]
    assert cells(table, "b") == ["25.0", "-"]
    assert cells(table, "all tasks") == ["50.0", "100.0"]


def test_differences_are_of_the_same_documents():
    reference = [case("a", 4096, 1.0), case("a", 4096, 0.5, sample=1), case("b", 4096, 0.0)]
    moba = [case("a", 4096, 0.5, "moba:moba 128/2"), case("a", 4096, 0.5, "moba:moba 128/2", sample=1),
            case("b", 4096, 0.5, "moba:moba 128/2"), case("b", 4096, 1.0, "moba:moba 128/2", sample=9)]
    table = difference_table(moba, reference, ["a", "b"], [4096], "full:full")
    assert cells(table, "a ") == ["-25.0 ±25.0", "-25.0 ±25.0"]
    assert cells(table, "b") == ["+50.0", "+50.0"]
    assert cells(table, "all tasks")[1] == "+0.0 ±28.9"
    lines = overview({"full:full": reference, "moba:moba 128/2": moba}, [4096])
    assert cells(lines, "full:full") == ["37.5", "3", "-", "100.0"]
    assert cells(lines, "moba:moba 128/2") == ["62.5", "4", "+0.0 ±28.9", "100.0"]


def test_costs_are_those_of_the_servers_counts():
    mode = "moba:moba 128/2"
    cases = [case("a", 4196, 1, mode, read=20), case("a", 4196, 1, mode, sample=1, read=40),
             case("a", 4196, 1, mode, sample=2, read=30, cached_tokens=4000, ttft_seconds=0.01)]
    row = cells(cost_table(cases, [4196, 8192]), "4196")
    assert row == ["3", "4096", "4096-4096", "30.0", "30.0", "93.8", "1.00"]
    assert cells(cost_table([case("a", 4196, 1)], [4196]), "4196")[5] == "-"
    silent = case("a", 4196, 1, prefill_blocks=None, decode_blocks=None)
    assert cells(cost_table([silent], [4196]), "4196")[3:5] == ["-", "-"]


def test_heat_maps_have_a_cell_for_each_length_and_depth():
    cases = [case("a", 8192, 1.0, depth=0.0), case("a", 4096, 0.5, depth=1.0),
             case("a", 4096, 0.0, depth=1.0, sample=1), case("b", 4096, 1.0, depth=0.0)]
    panels = panels_of(cases)
    assert [panel[0] for panel in panels] == ["all tasks", "a", "b"]
    assert panels[1][1:] == ([0.0, 1.0], [4096, 8192], [[None, 1.0], [0.25, None]])
    assert len(panels_of(cases[:3])) == 1  # one task needs no average
    assert file_name("moba:full 512/8") == "heatmap_moba-full-512-8.png"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_heat_maps_are_pictures(tmp_path):
    draw([case("a", 4096, 0.5), case("b", 8192, 1.0, depth=0.25)], "title", tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_can_be_written_again(tmp_path, capsys):
    data = {"settings": {"model": "fake"}, "runs": [RUN], "too_long": [{"length": 4096, "why": "small"},
                                                                     {"length": 8192, "why": "small"}],
            "cases": [case("a", 4096, 1.0), case("a", 4096, 0.0, "moba:moba 128/2")]}
    write_report(data, tmp_path, plots=False)
    text = (tmp_path / "summary.txt").read_text()
    assert text == capsys.readouterr().out
    assert text.startswith("fake, today, commit abc, none, a machine")
    assert text.index("== full:full") < text.index("== moba:moba 128/2")
    assert "8K not measured: small" in text and "4K not measured" not in text


# ---- the client ------------------------------------------------------------------------------------


def test_broken_streams_are_errors(fake):
    client = ChatClient(f"http://{fake.address}/v1")
    messages = [{"role": "user", "content": "code1 x"}]
    pieces = []
    answer = client.chat(messages, on_text=pieces.append, max_tokens=5)
    assert answer.text == "code1" == "".join(pieces)
    whole = fake.answer
    fake.answer = lambda *arguments: whole(*arguments).removesuffix(b"data: [DONE]\n\n")
    with pytest.raises(ServerError, match="broke off"):
        client.chat(messages, max_tokens=5)
    error = b'data: {"error": {"message": "out of luck", "code": "internal"}}\n\ndata: [DONE]\n\n'
    fake.answer = lambda *_: error
    with pytest.raises(ServerError, match="out of luck"):
        client.chat(messages, max_tokens=5)
    with pytest.raises(ValueError):
        ChatClient("ftp://somewhere")


@pytest.mark.parametrize("status, param, message, too_long", [
    (400, "messages", "has 9 tokens, must have at most 7 (the context is 8 tokens)", True),
    (400, None, "This model's maximum context length is 8 tokens", True),
    (413, None, "body", True), (400, "max_tokens", "tokens of context", False),
    (500, None, "context token", False), (400, "messages", "is missing", False)])
def test_prompts_that_are_too_long_are_told_apart(status, param, message, too_long):
    assert ServerError(status, message, param).prompt_too_long == too_long


# ---- the corpus that is really used ------------------------------------------------------------------


@pytest.mark.parametrize("task", real_corpus.TASKS)
def test_the_corpus_fits_the_harness(task):
    for depth in (0.0, 1.0):
        def make(characters):
            return real_corpus.make_dialogue(task, random.Random(3), "eval", characters, depth=depth)
        dialogue = make(8000)
        assert dialogue == make(8000)
        assert 6000 < len(dialogue.first_message()) < 10_000
        for turn in dialogue.turns:
            assert real_corpus.grade(turn, turn.answer) == 1.0
            assert real_corpus.grade(turn, "") == 0.0
        fitter = LengthFitter(lambda text: TEMPLATE_TOKENS + len(text.split()))
        fitted = fitter.fit(make, 1500)
        assert abs(TEMPLATE_TOKENS + len(fitted.dialogue.first_message().split()) - 1500) < 100
