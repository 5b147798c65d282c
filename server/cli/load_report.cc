#include "server/cli/load_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double value) {
  return std::round(value * 1000) / 1000;
}

/// Seconds in, milliseconds out.
Json distribution(std::vector<double> values) {
  std::ranges::sort(values);
  Json json = {{"count", values.size()}};
  if (values.empty()) return json;
  const auto ms = [](double seconds) { return rounded(seconds * 1000); };
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  json["mean"] = ms(sum / static_cast<double>(values.size()));
  constexpr std::array<std::pair<const char*, double>, 6> kShares = {
      {{"min", 0}, {"p50", 0.5}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"max", 1}}};
  for (const auto& [name, share] : kShares) json[name] = ms(percentile(values, share));
  for (int i = 0; i <= 100; ++i) json["curve"].push_back(ms(percentile(values, i / 100.0)));
  return json;
}

std::string line(const char* format, auto... values) {
  std::array<char, 160> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

}  // namespace

double percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - static_cast<double>(below));
}

Json load_report(const std::vector<RequestResult>& results, double seconds) {
  std::vector<double> ttft;
  std::vector<double> itl;
  std::vector<double> tpot;
  std::vector<double> e2e;
  std::vector<double> late;
  std::map<std::string, std::int64_t> errors;
  std::int64_t prompt_tokens = 0;
  std::int64_t cached_tokens = 0;
  std::int64_t output_tokens = 0;
  std::size_t begun = 0;
  Json rows = Json::array();
  for (const RequestResult& result : results) {
    if (!result.began) continue;
    ++begun;
    late.push_back(result.late);
    Json row = {{"at_s", rounded(result.at)},
                {"prompt_tokens", result.prompt_tokens},
                {"output_tokens", result.output_tokens}};
    if (result.first_token > 0) row["ttft_ms"] = rounded(result.first_token * 1000);
    row["e2e_ms"] = rounded(result.end_to_end * 1000);
    if (!result.error.empty()) row["error"] = result.error;
    rows.push_back(std::move(row));
    if (!result.error.empty()) {
      ++errors[result.error];
      continue;
    }
    prompt_tokens += result.prompt_tokens;
    cached_tokens += result.cached_tokens;
    output_tokens += result.output_tokens;
    e2e.push_back(result.end_to_end);
    if (result.first_token > 0) {
      ttft.push_back(result.first_token);
      if (result.output_tokens > 1) {
        tpot.push_back((result.end_to_end - result.first_token) /
                       static_cast<double>(result.output_tokens - 1));
      }
    }
    itl.insert(itl.end(), result.gaps.begin(), result.gaps.end());
  }
  const auto per_second = [&](double count) {
    return seconds > 0 ? rounded(count / seconds) : 0.0;
  };
  Json report;
  report["seconds"] = rounded(seconds);
  report["requests"] = {{"planned", results.size()},
                        {"sent", begun},
                        {"succeeded", e2e.size()},
                        {"failed", begun - e2e.size()}};
  report["errors"] = Json::object();
  for (const auto& [message, count] : errors) report["errors"][message] = count;
  report["tokens"] = {
      {"prompt", prompt_tokens}, {"prompt_cached", cached_tokens}, {"output", output_tokens}};
  report["throughput"] = {{"requests_per_s", per_second(static_cast<double>(e2e.size()))},
                          {"prompt_tokens_per_s", per_second(static_cast<double>(prompt_tokens))},
                          {"output_tokens_per_s", per_second(static_cast<double>(output_tokens))}};
  report["ttft_ms"] = distribution(std::move(ttft));
  report["itl_ms"] = distribution(std::move(itl));
  report["tpot_ms"] = distribution(std::move(tpot));
  report["e2e_ms"] = distribution(std::move(e2e));
  report["sent_late_ms"] = distribution(std::move(late));
  report["sent_late_ms"].erase("curve");
  report["per_request"] = std::move(rows);
  return report;
}

std::string report_text(const Json& report) {
  const Json& requests = report["requests"];
  const auto count = [](const Json& value) { return value.get<long long>(); };
  std::string text =
      line("%lld of %lld requests succeeded in %.1f s\n", count(requests["succeeded"]),
           count(requests["planned"]), report["seconds"].get<double>());
  for (const auto& [message, number] : report["errors"].items()) {
    text += line("  %6lld x ", count(number)) + message + '\n';
  }
  const Json& rate = report["throughput"];
  text += line("%.2f requests/s, %.1f prompt tokens/s, %.1f output tokens/s\n",
               rate["requests_per_s"].get<double>(), rate["prompt_tokens_per_s"].get<double>(),
               rate["output_tokens_per_s"].get<double>());
  text += line("%-8s%10s%10s%10s%10s%10s%10s\n", "ms", "mean", "p50", "p90", "p95", "p99", "max");
  for (const auto& [name, label] :
       {std::pair("ttft_ms", "TTFT"), {"itl_ms", "ITL"}, {"tpot_ms", "TPOT"}, {"e2e_ms", "E2E"}}) {
    const Json& row = report[name];
    if (!row.contains("mean")) continue;
    text += line("%-8s", label);
    for (const char* column : {"mean", "p50", "p90", "p95", "p99", "max"}) {
      text += line("%10.1f", row[column].get<double>());
    }
    text += '\n';
  }
  return text;
}

}  // namespace mobius
