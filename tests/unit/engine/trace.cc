#include "tests/unit/engine/trace.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_set>

namespace mobius {

std::optional<std::filesystem::path> mooncake_trace() {
  const char* data = std::getenv("MOBIUS_TEST_DATA");
  const std::filesystem::path folder =
      data != nullptr ? std::filesystem::path(data)
                      : std::filesystem::path(MOBIUS_SOURCE_DIR) / ".." / "shared" / "data";
  std::filesystem::path path = folder / "traces" / "mooncake-conversation.jsonl";
  if (!std::filesystem::exists(path)) return {};
  return path;
}

std::vector<TraceRequest> read_trace(const std::filesystem::path& path, std::size_t count) {
  std::vector<TraceRequest> trace;
  std::ifstream file(path);
  for (std::string text; trace.size() < count && std::getline(file, text);) {
    TraceRequest request;
    long long arrival = 0;
    int read = 0;
    const int fields = std::sscanf(
        text.c_str(),
        R"({"timestamp": %lld, "input_length": %d, "output_length": %d, "hash_ids": [%n)", &arrival,
        &request.input, &request.output, &read);
    if (fields != 3 || read == 0) {
      throw std::runtime_error("unexpected line of a trace: " + text.substr(0, 100));
    }
    request.arrival_ms = arrival;
    std::istringstream ids(text.substr(static_cast<std::size_t>(read)));
    for (std::int32_t id = 0; ids >> id; ids.ignore(1)) request.blocks.push_back(id);
    const auto blocks = (request.input + kTraceBlock - 1) / kTraceBlock;
    if (std::ssize(request.blocks) < blocks) {
      throw std::runtime_error("a trace's prompt has too few blocks: " + text.substr(0, 100));
    }
    trace.push_back(std::move(request));
  }
  return trace;
}

std::vector<TraceRequest> make_trace(std::uint32_t seed, std::size_t count) {
  std::mt19937 random(seed);
  const auto upto = [&](std::uint32_t most) {
    return 1 + static_cast<std::int32_t>(random() % most);
  };
  std::int32_t next_block = 0;
  std::vector<std::vector<std::int32_t>> documents(8);
  for (auto& document : documents) {
    for (std::int32_t i = upto(60); i > 0; --i) document.push_back(next_block++);
  }
  // What each conversation has said so far, in whole blocks.
  std::vector<std::vector<std::int32_t>> conversations;
  std::vector<TraceRequest> trace;
  std::int64_t time = 0;
  while (trace.size() < count) {
    time += upto(900);
    if (conversations.empty() || random() % 3 == 0) {
      conversations.emplace_back();
      if (random() % 2 == 0) conversations.back() = documents[random() % documents.size()];
    }
    auto& said = conversations[random() % conversations.size()];
    for (std::int32_t i = random() % 5 == 0 ? upto(40) : upto(4); i > 0; --i) {
      said.push_back(next_block++);
    }
    TraceRequest request;
    request.arrival_ms = time;
    request.blocks = said;
    request.input = static_cast<std::int32_t>(said.size()) * kTraceBlock - upto(kTraceBlock) + 1;
    request.output = upto(600);
    trace.push_back(std::move(request));
    if (said.size() > 200) said.clear();
  }
  return trace;
}

std::vector<std::int32_t> trace_prompt(const TraceRequest& request, std::int32_t block_tokens,
                                       std::int32_t count) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  std::uint64_t state = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const std::size_t block = i / static_cast<std::size_t>(block_tokens);
    if (i % static_cast<std::size_t>(block_tokens) == 0) {
      state = (static_cast<std::uint64_t>(request.blocks.at(block)) + 1) * 0x9e3779b97f4a7c15ULL;
    }
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    tokens[i] = static_cast<std::int32_t>(state >> 56U);
  }
  return tokens;
}

std::vector<std::int32_t> ideal_hits(const std::vector<TraceRequest>& trace,
                                     std::int32_t page_tokens) {
  std::unordered_set<std::int64_t> seen;  // pages: an id says all that is before its block
  std::vector<std::int32_t> hits;
  for (const TraceRequest& request : trace) {
    const std::int32_t pages = request.input / page_tokens;
    const auto name = [&](std::int32_t page) {
      const std::int32_t first = page * page_tokens;
      return std::int64_t{request.blocks[static_cast<std::size_t>(first / kTraceBlock)]} *
                 kTraceBlock +
             first % kTraceBlock;
    };
    std::int32_t hit = 0;
    while (hit < (request.input - 1) / page_tokens && seen.contains(name(hit))) ++hit;
    for (std::int32_t page = hit; page < pages; ++page) seen.insert(name(page));
    hits.push_back(hit * page_tokens);
  }
  return hits;
}

}  // namespace mobius
