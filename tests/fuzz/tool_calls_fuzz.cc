// An answer that may call tools. A NUL byte stands for <|python_tag|>.
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "server/tools/tool_call_parser.h"
#include "tests/fuzz/target.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

constexpr std::string_view kTag = "<|python_tag|>";

const Tokenizer& tagged() {
  static const std::shared_ptr<const Tokenizer> tokenizer = [] {
    nlohmann::json file = small_tokenizer();
    nlohmann::json tag = file["added_tokens"].back();
    tag["id"] = tag["id"].get<int>() + 1;
    tag["content"] = kTag;
    file["added_tokens"].push_back(tag);
    return load_json(file);
  }();
  return *tokenizer;
}

struct Answer {
  std::string content;
  std::vector<std::pair<std::string, std::string>> calls;
  bool operator==(const Answer&) const = default;

  void add(const AnswerDelta& delta) {
    content += delta.content;
    for (const ToolCallDelta& call : delta.calls) {
      if (!call.name.empty()) calls.emplace_back(call.name, "");
      require(call.index + 1 == calls.size(), "calls come one after the other");
      calls.back().second += call.arguments;
    }
  }
};

Answer parse(std::string_view text, std::size_t step) {
  ToolCallParser parser({"f", "code_interpreter"}, true, tagged());
  Answer answer;
  while (!text.empty()) {
    if (text.front() == '\0') {
      answer.add(parser.push(*tagged().special(kTag), ""));
      text.remove_prefix(1);
      continue;
    }
    const std::string_view piece = text.substr(0, std::min(step, text.find('\0')));
    answer.add(parser.push('x', piece));
    text.remove_prefix(piece.size());
  }
  answer.add(parser.finish(""));
  require(parser.calls() == answer.calls.size(), "every call has a name");
  return answer;
}

}  // namespace
}  // namespace mobius

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  const std::string_view text = as_text(data, size);
  const Answer whole = parse(text, size + 1);
  require(parse(text, 1) == whole && parse(text, 3) == whole, "no cut changes what is found");
  if (whole.calls.empty()) {
    std::string shown(text);
    std::erase(shown, '\0');
    require(whole.content == shown, "what is no call is content");
  }
  return 0;
}
