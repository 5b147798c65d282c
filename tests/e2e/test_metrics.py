"""GET /metrics, read as Prometheus reads it."""

from prometheus_client.parser import text_string_to_metric_families


def scrape(server):
    status, headers, body = server.request("GET", "/metrics")
    assert status == 200
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = {}
    for family in text_string_to_metric_families(body.decode()):
        assert family.documentation and family.type in ("gauge", "counter", "histogram"), family.name
        for sample in family.samples:
            key = (sample.name, *sorted((k, v) for k, v in sample.labels.items() if k not in ("model", "model_name")))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


def test_an_answer_is_counted_once_under_both_names(start_server):
    server = start_server()
    before = scrape(server)
    status, answer = server.complete("Once upon a time", max_tokens=5, ignore_eos=True)
    assert status == 200
    server.wait_for_log("generation")
    after = scrape(server)

    def grew(*key):
        return after[key] - before.get(key, 0)

    assert grew("mobius_generations_total", ("outcome", "length")) == 1
    assert grew("vllm:request_success_total", ("finished_reason", "length")) == 1
    assert grew("mobius_generated_tokens_total",) == answer["usage"]["completion_tokens"] == 5
    assert grew("vllm:generation_tokens_total",) == 5
    assert grew("vllm:prompt_tokens_total",) == answer["usage"]["prompt_tokens"]
    for name in ("mobius_time_to_first_token_seconds", "vllm:time_to_first_token_seconds",
                 "mobius_time_per_output_token_seconds", "vllm:e2e_request_latency_seconds"):
        assert grew(name + "_count",) == 1
        assert grew(name + "_sum",) > 0
    for name in ("mobius_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"):
        assert grew(name + "_count",) == 4  # gaps of five tokens
        assert 0 < grew(name + "_sum",) <= grew("mobius_decode_seconds_sum",) * 1.001
    phases = sum(grew(f"mobius_{phase}_seconds_sum",) for phase in ("queue", "prefill", "decode"))
    assert abs(phases - grew("mobius_generation_seconds_sum",)) < 1e-6
    assert grew("mobius_moba_blocks_total", ("phase", "prefill")) == answer["mobius"]["prefill_blocks"]["total"]
    assert after[("vllm:num_requests_running",)] == 0
    assert after[("mobius_ready",)] == 1


def test_every_name_that_routers_and_dashboards_read_is_there(server):
    names = {key[0] for key in scrape(server)}
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "cache_config_info",
                 "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
                 "prompt_tokens_total", "generation_tokens_total", "request_success_total"):
        assert f"vllm:{name}" in names, name
    for name in ("time_to_first_token_seconds", "inter_token_latency_seconds", "e2e_request_latency_seconds",
                 "request_time_per_output_token_seconds", "request_queue_time_seconds",
                 "request_prefill_time_seconds", "request_decode_time_seconds"):
        assert {f"vllm:{name}_bucket", f"vllm:{name}_sum", f"vllm:{name}_count"} <= names, name


def test_refusals_are_counted_by_error(start_server):
    server = start_server()
    assert server.complete(model="another")[0] == 404
    assert server.complete(temperature=-1)[0] == 400
    samples = scrape(server)
    assert samples[("mobius_requests_refused_total", ("code", "not_found"))] == 1
    assert samples[("mobius_requests_refused_total", ("code", "invalid_argument"))] == 1
    assert samples[("mobius_generations_total", ("outcome", "length"))] == 0


def test_metrics_take_get_alone(server):
    assert server.request("POST", "/metrics", b"{}")[0] == 405
