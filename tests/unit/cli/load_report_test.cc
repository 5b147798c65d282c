#include "server/cli/load_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace mobius {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Percentile, LiesBetweenValuesAsInNumPy) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_EQ(percentile(values, 0), 1);
  EXPECT_EQ(percentile(values, 1), 4);
  EXPECT_DOUBLE_EQ(percentile(values, 0.5), 2.5);
  EXPECT_DOUBLE_EQ(percentile(values, 0.9), 3.7);
  EXPECT_EQ(percentile({7}, 0.99), 7);
  EXPECT_EQ(percentile({}, 0.5), 0);
}

RequestResult good(double first_token, std::vector<double> gaps) {
  RequestResult result;
  result.began = true;
  result.first_token = first_token;
  result.end_to_end = first_token;
  for (const double gap : gaps) result.end_to_end += gap;
  result.output_tokens = std::ssize(gaps) + 1;
  result.gaps = std::move(gaps);
  result.prompt_tokens = 100;
  result.cached_tokens = 50;
  return result;
}

TEST(LoadReport, CountsWhatSucceededAndWhatDidNot) {
  std::vector<RequestResult> results = {good(0.1, {0.01, 0.03}), good(0.3, {0.02, 0.02})};
  for (const char* error : {"HTTP 429: slow down", "HTTP 429: slow down", "the answer broke off"}) {
    RequestResult failed = good(9, {9});
    failed.error = error;
    results.push_back(failed);
  }
  results.emplace_back();  // never sent
  const auto report = load_report(results, 2);
  EXPECT_EQ(report["requests"]["planned"], 6);
  EXPECT_EQ(report["requests"]["sent"], 5);
  EXPECT_EQ(report["requests"]["succeeded"], 2);
  EXPECT_EQ(report["requests"]["failed"], 3);
  EXPECT_EQ(report["errors"]["HTTP 429: slow down"], 2);
  EXPECT_EQ(report["tokens"]["prompt"], 200);
  EXPECT_EQ(report["tokens"]["prompt_cached"], 100);
  EXPECT_EQ(report["tokens"]["output"], 6);
  EXPECT_EQ(report["throughput"]["requests_per_s"], 1);
  EXPECT_EQ(report["throughput"]["output_tokens_per_s"], 3);
  // Failed requests are in no latency.
  EXPECT_EQ(report["ttft_ms"]["count"], 2);
  EXPECT_EQ(report["ttft_ms"]["p50"], 200);
  EXPECT_EQ(report["ttft_ms"]["max"], 300);
  EXPECT_EQ(report["itl_ms"]["count"], 4);
  EXPECT_EQ(report["itl_ms"]["mean"], 20);
  EXPECT_EQ(report["tpot_ms"]["p50"], 20);
  EXPECT_EQ(report["e2e_ms"]["min"], 140);
  EXPECT_EQ(report["e2e_ms"]["curve"].size(), 101U);
  EXPECT_EQ(report["per_request"].size(), 5U);
  const std::string text = report_text(report);
  EXPECT_THAT(text, HasSubstr("2 of 6 requests succeeded"));
  EXPECT_THAT(text, HasSubstr("2 x HTTP 429: slow down"));
  EXPECT_THAT(text, HasSubstr("TTFT"));
}

TEST(LoadReport, NothingSucceeded) {
  std::vector<RequestResult> results(1);
  results[0].began = true;
  results[0].error = "refused";
  const auto report = load_report(results, 0);
  EXPECT_EQ(report["throughput"]["requests_per_s"], 0);
  EXPECT_EQ(report["ttft_ms"]["count"], 0);
  EXPECT_THAT(report_text(report), Not(HasSubstr("TTFT")));
}

}  // namespace
}  // namespace mobius
