// What structured output costs on one core: a vocabulary, a schema, and the mask of each token of
// an answer, with Llama 3.1's vocabulary (if MOBIUS_TEST_DATA has it) and with the small one of
// models/mobius-tiny.

#include <benchmark/benchmark.h>
#include <time.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/grammar/grammar.h"
#include "engine/tokenizer/tokenizer.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

/// A token takes at least as long: one stream of Llama 3.1 8B on an H100 (results/step_h100.json).
constexpr double kDecodeStepMicroseconds = 5920;

/// Of this thread alone, so that what else the machine does says little.
double processor_microseconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

std::shared_ptr<const Tokenizer> load(const std::filesystem::path& folder) {
  try {
    return Tokenizer::load(folder);
  } catch (const std::exception&) {
    return nullptr;
  }
}

struct Model {
  const char* name;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const GrammarVocabulary> vocabulary;
};

const std::vector<Model>& models() {
  static const std::vector<Model> all = [] {
    const std::filesystem::path source(MOBIUS_SOURCE_DIR);
    const char* data = std::getenv("MOBIUS_TEST_DATA");
    const auto shared = data != nullptr ? std::filesystem::path(data) : source / "../shared/data";
    std::vector<Model> out = {{"llama3.1", load(shared / "llama3.1"), nullptr},
                              {"mobius-tiny", load(source / "models/mobius-tiny"), nullptr}};
    std::erase_if(out, [](const Model& model) { return model.tokenizer == nullptr; });
    for (Model& model : out) model.vocabulary = GrammarVocabulary::make(*model.tokenizer);
    return out;
  }();
  return all;
}

struct Answer {
  const char* name;
  const char* schema;  // empty: any object
  const char* text;
};

constexpr Answer kAnswers[] = {
    {"object", "", R"({"city": "Paris", "country": "France", "population": 2102650, "sights":
 ["Louvre", "Notre-Dame", "Tour Eiffel"], "mayor": {"name": "Anne Hidalgo", "since": 2014}})"},
    {"person", R"({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type":
 "integer", "minimum": 0, "maximum": 150}, "email": {"type": "string", "format": "email"}, "tags":
 {"type": "array", "items": {"enum": ["reader", "writer", "admin"]}}, "bio": {"type": "string"}},
 "required": ["name", "age", "email", "tags", "bio"], "additionalProperties": false})",
     R"({"name": "Ada Lovelace", "age": 36, "email": "ada.lovelace@example.org", "tags": ["reader",
 "writer"], "bio": "Ada wrote what is often called the first program, for a machine that was never built."})"},
    {"recursive", R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties":
 {"title": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
 "required": ["title", "children"], "additionalProperties": false}}})",
     R"({"title": "Book", "children": [{"title": "Part one", "children": [{"title": "Loomings",
 "children": []}, {"title": "The Carpet-Bag", "children": []}]}, {"title": "Part two", "children": []}]})"},
    {"lengths", R"({"type": "object", "properties": {"code": {"type": "string", "pattern":
 "^[A-Z]{2}-\\d{4,8}$"}, "summary": {"type": "string", "maxLength": 120}}, "required": ["code",
 "summary"], "additionalProperties": false})",
     R"({"code": "AB-123456", "summary": "A summary that is as long as they are, with a comma and more words."})"},
};

/// The answer's line breaks stand in strings of this file only.
std::string on_one_line(std::string text) {
  std::erase(text, '\n');
  return text;
}

std::shared_ptr<const Grammar> compile(const Model& model, const Answer& answer) {
  if (std::string(answer.schema).empty()) return Grammar::json_object(model.vocabulary);
  return Grammar::json_schema(Json::parse(on_one_line(answer.schema)), model.vocabulary).value();
}

void make_vocabulary(benchmark::State& state, const Model* model) {
  for (auto _ : state) benchmark::DoNotOptimize(GrammarVocabulary::make(*model->tokenizer));
}

void compile_schema(benchmark::State& state, const Model* model, const Answer* answer) {
  for (auto _ : state) benchmark::DoNotOptimize(compile(*model, *answer));
}

/// One iteration is one answer, each token of which has a mask. `fresh`: of a schema that nobody
/// used before.
void masks(benchmark::State& state, const Model* model, const Answer* answer, bool fresh) {
  const std::string text = on_one_line(answer->text);
  std::vector<std::int32_t> tokens;
  model->tokenizer->encode(text, tokens);
  std::vector<std::uint32_t> mask((static_cast<std::size_t>(model->tokenizer->vocab_size()) + 31) /
                                  32);
  std::vector<double> times;  // microseconds
  auto grammar = compile(*model, *answer);
  for (auto _ : state) {
    if (fresh) {
      state.PauseTiming();
      grammar = compile(*model, *answer);
      state.ResumeTiming();
    }
    GrammarMatcher matcher(grammar);
    for (const std::int32_t token : tokens) {
      const double begin = processor_microseconds();
      matcher.fill_mask(mask);
      const bool taken = matcher.accept(token);
      times.push_back(processor_microseconds() - begin);
      if (!taken) {
        state.SkipWithError("the answer is not in the schema's language");
        return;
      }
    }
    if (!matcher.can_end()) state.SkipWithError("the answer is not whole");
  }
  std::ranges::sort(times);
  double sum = 0;
  for (const double time : times) sum += time;
  const auto at = [&](double share) {
    return times[std::min(times.size() - 1,
                          static_cast<std::size_t>(share * static_cast<double>(times.size())))];
  };
  state.counters["tokens"] = static_cast<double>(tokens.size());
  state.counters["mean_us"] = sum / static_cast<double>(times.size());
  state.counters["median_us"] = at(0.5);
  state.counters["p99_us"] = at(0.99);
  state.counters["max_us"] = times.back();
  state.counters["percent_of_step"] = 100 * state.counters["mean_us"] / kDecodeStepMicroseconds;
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  using mobius::kAnswers;
  for (const mobius::Model& model : mobius::models()) {
    const std::string name = model.name;
    benchmark::RegisterBenchmark((name + "/vocabulary").c_str(), mobius::make_vocabulary, &model)
        ->Unit(benchmark::kMillisecond);
    for (const mobius::Answer& answer : kAnswers) {
      const std::string of = name + "/" + answer.name;
      benchmark::RegisterBenchmark((of + "/compile").c_str(), mobius::compile_schema, &model,
                                   &answer)
          ->Unit(benchmark::kMillisecond);
      for (const bool fresh : {true, false}) {
        benchmark::RegisterBenchmark((of + (fresh ? "/masks_first" : "/masks_again")).c_str(),
                                     mobius::masks, &model, &answer, fresh)
            ->Unit(benchmark::kMillisecond);
      }
    }
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
}
