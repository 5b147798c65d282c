#include "server/cli/load_plan.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <system_error>

namespace mobius {
namespace {

constexpr std::int64_t kTraceBlockTokens = 512;
constexpr std::int64_t kMostTokens = 1 << 30;

std::int64_t scaled(std::int64_t tokens, double scale) {
  return std::max<std::int64_t>(1, std::llround(static_cast<double>(tokens) * scale));
}

PlannedRequest read_line(const std::string& line, const TraceOptions& options) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) throw std::runtime_error("is not a JSON object");
  const auto number = [&](const char* name) {
    const auto found = json.find(name);
    if (found == json.end() || !found->is_number() || found->get<double>() < 0 ||
        found->get<double>() > 1e15) {
      throw std::runtime_error(std::string("has no ") + name);
    }
    return found->get<double>();
  };
  const auto tokens = [&](const char* name) {
    const double value = number(name);
    if (value > static_cast<double>(kMostTokens)) {
      throw std::runtime_error(std::string(name) + " is too large");
    }
    return static_cast<std::int64_t>(value);
  };
  PlannedRequest request;
  request.at = number("timestamp") / 1000 / options.speed;
  const std::int64_t input = tokens("input_length");
  request.prompt_tokens = scaled(input, options.length_scale);
  request.output_tokens = scaled(tokens("output_length"), options.length_scale);
  request.block_tokens = scaled(kTraceBlockTokens, options.length_scale);
  const auto ids = json.find("hash_ids");
  const bool listed = ids != json.end() && ids->is_array() &&
                      std::ranges::all_of(*ids, [](const auto& id) { return id.is_number(); });
  if (!listed) throw std::runtime_error("has no hash_ids");
  for (const auto& id : *ids) request.blocks.push_back(id.get<std::uint64_t>());
  if (std::ssize(request.blocks) * kTraceBlockTokens < input) {
    throw std::runtime_error("has too few hash_ids for its input_length");
  }
  return request;
}

}  // namespace

LengthRange parse_length_range(std::string_view option, const std::string& text) {
  const auto number = [&](std::string_view part) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc() || end != part.data() + part.size() || value < 1 ||
        value > kMostTokens) {
      throw std::runtime_error(std::string(option) + ": \"" + text +
                               "\" must be N or N:M, from 1 to " + std::to_string(kMostTokens) +
                               " tokens");
    }
    return value;
  };
  const std::string_view all = text;
  const std::size_t colon = all.find(':');
  LengthRange range;
  range.least = number(all.substr(0, colon));
  range.most = colon == std::string_view::npos ? range.least : number(all.substr(colon + 1));
  if (range.most < range.least) {
    throw std::runtime_error(std::string(option) + ": \"" + text + "\" ends before it begins");
  }
  return range;
}

std::vector<PlannedRequest> plan_requests(std::size_t count, LengthRange prompt, LengthRange output,
                                          double rate, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  const auto between = [&](LengthRange range) {
    // The standard's distributions differ between libraries; a plan should not.
    const auto span = static_cast<std::uint64_t>(range.most - range.least) + 1;
    return range.least + static_cast<std::int64_t>(random() % span);
  };
  std::vector<PlannedRequest> plan(count);
  double now = 0;
  for (PlannedRequest& request : plan) {
    request.prompt_tokens = between(prompt);
    request.output_tokens = between(output);
    request.blocks = {random()};
    request.block_tokens = request.prompt_tokens;
    if (rate <= 0) continue;
    request.at = now;
    const double uniform = static_cast<double>((random() >> 11U) + 1) * 0x1p-53;  // (0, 1]
    now += -std::log(uniform) / rate;
  }
  return plan;
}

std::vector<PlannedRequest> read_trace_plan(const std::string& path, const TraceOptions& options) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    throw std::runtime_error(path + ": cannot be read: is a directory");
  }
  std::ifstream file(path);
  if (!file) {
    throw std::runtime_error(path + ": cannot be read: " + std::generic_category().message(errno));
  }
  std::vector<PlannedRequest> plan;
  std::size_t number = 0;
  for (std::string line; std::getline(file, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (options.most > 0 && plan.size() == options.most) break;
    try {
      PlannedRequest request = read_line(line, options);
      const std::int64_t total = request.prompt_tokens + request.output_tokens;
      if (options.skip_longer == 0 || total <= options.skip_longer) {
        plan.push_back(std::move(request));
      }
    } catch (const std::runtime_error& error) {
      throw std::runtime_error(path + ", line " + std::to_string(number) + ": " + error.what());
    }
  }
  if (plan.empty()) throw std::runtime_error(path + ": no request is left of it");
  std::ranges::stable_sort(plan, {}, &PlannedRequest::at);
  const double first = plan.front().at;
  for (PlannedRequest& request : plan) request.at -= first;
  return plan;
}

}  // namespace mobius
