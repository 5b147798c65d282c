#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "server/metrics/exposition.h"

namespace mobius {
namespace {

using testing::HasSubstr;
using testing::Not;

Finish ended(FinishReason reason, std::int32_t completion_tokens) {
  Finish finish;
  finish.reason = reason;
  finish.usage = {
      .prompt_tokens = 100, .cached_tokens = 40, .completion_tokens = completion_tokens};
  finish.timing = {.queued = std::chrono::milliseconds(2),
                   .first_token = std::chrono::milliseconds(200),
                   .total = std::chrono::milliseconds(1200)};
  finish.prefill_reads = {.read = 30, .total = 120};
  finish.decode_reads = {.read = 7, .total = 8};
  return finish;
}

std::string page(const GenerationMetrics& metrics, const std::string& model = "m") {
  EngineStats engine;
  engine.running = 3;
  engine.pages_total = 8;
  engine.pages_used = 2;
  engine.token_gaps.observe(std::chrono::milliseconds(20));
  engine.token_gaps.observe(std::chrono::milliseconds(30));
  RunnerInfo info;
  info.page_tokens = 128;
  return render_metrics(metrics, engine, info, model, true);
}

TEST(Histogram, CountsEveryValueInTheBucketsAboveIt) {
  Histogram histogram;
  histogram.observe(0.001);  // on a bound: inside
  histogram.observe(0.3);
  histogram.observe(5000);
  std::string text;
  render_histogram(text, "h", "a=\"b\"", histogram.counts());
  EXPECT_THAT(text, HasSubstr("h_bucket{a=\"b\",le=\"0.001\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("h_bucket{a=\"b\",le=\"0.25\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("h_bucket{a=\"b\",le=\"0.5\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("h_bucket{a=\"b\",le=\"1280\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("h_bucket{a=\"b\",le=\"+Inf\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("h_sum{a=\"b\"} 5000.301\n"));
  EXPECT_THAT(text, HasSubstr("h_count{a=\"b\"} 3\n"));
}

TEST(Histogram, LosesNothingBetweenThreads) {
  Histogram histogram;
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 1000; ++j) histogram.observe(0.5);
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::string text;
  render_histogram(text, "h", "a=\"b\"", histogram.counts());
  EXPECT_THAT(text, HasSubstr("h_count{a=\"b\"} 4000\n"));
  EXPECT_THAT(text, HasSubstr("h_sum{a=\"b\"} 2000\n"));
}

TEST(Metrics, CountGenerationsUnderOurNamesAndVllms) {
  GenerationMetrics metrics;
  metrics.finished(ended(FinishReason::stop, 11));
  metrics.finished(ended(FinishReason::length, 11));
  const std::string text = page(metrics);
  EXPECT_THAT(text, HasSubstr("mobius_generations_total{model=\"m\",outcome=\"stop\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mobius_generations_total{model=\"m\",outcome=\"length\"} 1\n"));
  EXPECT_THAT(
      text, HasSubstr("vllm:request_success_total{model_name=\"m\",finished_reason=\"stop\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mobius_requests_running{model=\"m\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"m\"} 3\n"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{model_name=\"m\"} 0.25\n"));
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info{model_name=\"m\",block_size=\"128\","
                              "num_gpu_blocks=\"8\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("vllm:prefix_cache_queries_total{model_name=\"m\"} 200\n"));
  EXPECT_THAT(text, HasSubstr("mobius_prefix_cache_hit_tokens_total{model=\"m\"} 80\n"));
  EXPECT_THAT(text, HasSubstr("mobius_moba_blocks_read_total{model=\"m\",phase=\"prefill\"} 60\n"));
  EXPECT_THAT(text, HasSubstr("mobius_moba_blocks_total{model=\"m\",phase=\"decode\"} 16\n"));
}

TEST(Metrics, TimesAreSeconds) {
  GenerationMetrics metrics;
  metrics.finished(ended(FinishReason::stop, 11));
  const std::string text = page(metrics);
  EXPECT_THAT(text, HasSubstr("vllm:time_to_first_token_seconds_sum{model_name=\"m\"} 0.2\n"));
  EXPECT_THAT(text, HasSubstr("mobius_time_per_output_token_seconds_sum{model=\"m\"} 0.1\n"));
  EXPECT_THAT(text, HasSubstr("mobius_generation_seconds_sum{model=\"m\"} 1.2\n"));
  EXPECT_THAT(text, HasSubstr("mobius_queue_seconds_sum{model=\"m\"} 0.002\n"));
  EXPECT_THAT(text, HasSubstr("mobius_prefill_seconds_sum{model=\"m\"} 0.198\n"));
  EXPECT_THAT(text, HasSubstr("vllm:request_decode_time_seconds_sum{model_name=\"m\"} 1\n"));
  for (const std::string name :
       {"mobius_inter_token_latency_seconds", "vllm:inter_token_latency_seconds"}) {
    const std::string label = name.starts_with("vllm:") ? "model_name" : "model";
    EXPECT_THAT(text, HasSubstr(name + "_bucket{" + label + "=\"m\",le=\"0.025\"} 1\n"));
    EXPECT_THAT(text, HasSubstr(name + "_sum{" + label + "=\"m\"} 0.05\n"));
    EXPECT_THAT(text, HasSubstr(name + "_count{" + label + "=\"m\"} 2\n"));
  }
}

TEST(Metrics, AFailureIsNotASuccessAndAnEmptyAnswerHasNoFirstToken) {
  GenerationMetrics metrics;
  Finish failed = ended(FinishReason::error, 0);
  failed.status = Status(StatusCode::deadline_exceeded, "too late");
  metrics.finished(failed);
  metrics.finished(ended(FinishReason::stop, 1));  // one token: nothing between tokens
  metrics.refused(StatusCode::invalid_argument);
  const std::string text = page(metrics);
  EXPECT_THAT(text, HasSubstr("outcome=\"deadline_exceeded\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("finished_reason=\"stop\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mobius_time_to_first_token_seconds_count{model=\"m\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("mobius_time_per_output_token_seconds_count{model=\"m\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("mobius_generation_seconds_count{model=\"m\"} 1\n"));
  EXPECT_THAT(
      text, HasSubstr("mobius_requests_refused_total{model=\"m\",code=\"invalid_argument\"} 1\n"));
}

TEST(Metrics, EscapesTheModelsName) {
  const std::string text = page(GenerationMetrics(), "a\"b\\c\nd");
  EXPECT_THAT(text, HasSubstr("mobius_requests_running{model=\"a\\\"b\\\\c\\nd\"} 3\n"));
  EXPECT_THAT(text, Not(HasSubstr("c\nd")));
}

}  // namespace
}  // namespace mobius
