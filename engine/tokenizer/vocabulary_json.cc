#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "engine/tokenizer/utf8.h"
#include "engine/tokenizer/vocabulary.h"

namespace mobius {
namespace {

using nlohmann::json;
using Ids = std::unordered_map<std::string, std::int32_t>;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what);
}

/// At most this much of a token goes into a message.
std::string in_quotes(std::string_view text) {
  constexpr std::size_t kMost = 60;
  std::string out = "\"";
  for (const char c : text.substr(0, kMost)) {
    const auto byte = static_cast<unsigned char>(c);
    out += byte < 0x20 || byte == 0x7F ? '?' : c;
  }
  return out + (text.size() > kMost ? "...\"" : "\"");
}

const json& member(const json& object, const char* name, const std::string& where) {
  const auto found = object.find(name);
  if (found == object.end()) fail(where + " has no \"" + name + "\"");
  return *found;
}

/// True if absent, null, false, 0 or "": an option that is off.
bool is_off(const json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_number()) return found->get<double>() == 0.0;
  return found->is_string() && found->get_ref<const std::string&>().empty();
}

/// The byte that each of the 256 characters of byte-level BPE stands for: printable Latin-1
/// characters for themselves, U+0100 on for the other bytes in order.
struct ByteAlphabet {
  std::array<std::int16_t, 0x180> byte_of{};
  ByteAlphabet() {
    byte_of.fill(-1);
    std::size_t next = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
      byte_of[printable ? static_cast<std::size_t>(byte) : next++] =
          static_cast<std::int16_t>(byte);
    }
  }
};

std::string bytes_of(std::string_view token) {
  static const ByteAlphabet alphabet;
  std::string out;
  for (std::size_t at = 0; at < token.size();) {
    const Utf8Step step = utf8_step(token.substr(at));  // nlohmann has checked the UTF-8
    const int byte =
        step.code_point < alphabet.byte_of.size() ? alphabet.byte_of[step.code_point] : -1;
    if (byte < 0) fail("token " + in_quotes(token) + " is not byte-level");
    out += static_cast<char>(byte);
    at += step.length;
  }
  return out;
}

std::int32_t id_of(const json& value, std::string_view token, std::size_t count) {
  if (!value.is_number_integer())
    fail("the id of token " + in_quotes(token) + " is not an integer");
  const bool fits = value.is_number_unsigned() && value.get<std::uint64_t>() < count;
  if (!fits) {
    fail("token " + in_quotes(token) + " has id " + value.dump() + ", but " +
         std::to_string(count) + " tokens must have the ids from 0 to " +
         std::to_string(count - 1));
  }
  return value.get<std::int32_t>();
}

void check_model(const json& model) {
  if (!model.is_object()) fail("\"model\" is not an object");
  const auto type = model.find("type");
  // Files of 2020 lack the type; their shape tells.
  if (type != model.end() && *type != "BPE") {
    fail("model type is " + type->dump() + ", only \"BPE\" is supported");
  }
  for (const char* name : {"dropout", "unk_token", "continuing_subword_prefix",
                           "end_of_word_suffix", "byte_fallback"}) {
    if (!is_off(model, name)) fail(std::string("model option \"") + name + "\" is not supported");
  }
}

/// The regex of a Split step followed by a ByteLevel step, which is what byte-level BPE is.
std::string split_regex_of(const json& root) {
  if (!is_off(root, "normalizer")) fail("a normalizer is not supported");
  const json& pre = member(root, "pre_tokenizer", "the file");
  const std::string expected =
      "pre_tokenizer is not a Sequence of Split (a Regex, Isolated) and ByteLevel (no regex, no "
      "prefix space)";
  if (!pre.is_object() || pre.value("type", json()) != "Sequence") fail(expected);
  const json steps = pre.value("pretokenizers", json());
  if (!steps.is_array() || steps.size() != 2 || !steps[0].is_object() || !steps[1].is_object()) {
    fail(expected);
  }
  const json& split = steps[0];
  const json& bytes = steps[1];
  const json pattern = split.value("pattern", json());
  const bool split_fits =
      split.value("type", json()) == "Split" && split.value("behavior", json()) == "Isolated" &&
      is_off(split, "invert") && pattern.is_object() && pattern.value("Regex", json()).is_string();
  // Both options of ByteLevel are on where they are absent.
  const bool bytes_fits = bytes.value("type", json()) == "ByteLevel" &&
                          bytes.value("use_regex", json(true)) == false &&
                          bytes.value("add_prefix_space", json(true)) == false;
  if (!split_fits || !bytes_fits) fail(expected);
  return pattern["Regex"].get<std::string>();
}

void read_added_tokens(const json& list, std::size_t count, Vocabulary& out,
                       std::vector<bool>& taken) {
  std::unordered_set<std::string> names;
  for (const json& entry : list) {
    if (!entry.is_object()) fail("added_tokens: an entry is not an object");
    const json& content = member(entry, "content", "added_tokens: an entry");
    if (!content.is_string()) fail("added_tokens: content is not a string");
    const auto& name = content.get_ref<const std::string&>();
    if (!names.insert(name).second) fail("added token " + in_quotes(name) + " stands twice");
    const std::int32_t id =
        id_of(member(entry, "id", "added token " + in_quotes(name)), name, count);
    if (taken[id] && out.tokens[id] != name) {
      fail("added token " + in_quotes(name) + " has the id of " + in_quotes(out.tokens[id]) + ", " +
           std::to_string(id));
    }
    taken[id] = true;
    out.tokens[id] = name;
    out.added.push_back(id);
    out.special[id] = !is_off(entry, "special");
  }
}

void read_merges(const json& merges, const Ids& ids, Vocabulary& out) {
  if (!merges.is_array()) fail("\"merges\" is not an array");
  std::unordered_set<std::uint64_t> pairs;
  pairs.reserve(merges.size());
  out.merges.reserve(merges.size());
  std::string result;
  std::int32_t rank = -1;
  for (const json& merge : merges) {
    ++rank;
    const auto where = [&] { return "merge " + std::to_string(rank) + " (" + merge.dump() + ")"; };
    std::string left;
    std::string right;
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    if (left.empty() || right.empty()) fail(where() + " is not a pair of tokens");
    const auto id = [&](const std::string& token) {
      const auto found = ids.find(token);
      if (found == ids.end()) fail(where() + ": the vocabulary has no token " + in_quotes(token));
      return found->second;
    };
    result.assign(left).append(right);
    const BpeMerge entry{id(left), id(right), rank, id(result)};
    const std::uint64_t pair =
        (static_cast<std::uint64_t>(entry.left) << 32) | static_cast<std::uint32_t>(entry.right);
    if (!pairs.insert(pair).second) fail(where() + " stands twice");
    // Text must never become a control token, even one that merges could make.
    if (!out.special[entry.result]) out.merges.push_back(entry);
  }
}

Vocabulary parse(const json& root) {
  if (!root.is_object()) fail("not a JSON object");
  const json& model = member(root, "model", "the file");
  check_model(model);
  const json& vocab = member(model, "vocab", "model");
  if (!vocab.is_object()) fail("\"vocab\" is not an object");
  const json added = root.value("added_tokens", json::array());
  if (!added.is_array()) fail("\"added_tokens\" is not an array");

  // An added token may stand in the vocabulary too.
  std::size_t count = vocab.size();
  for (const json& entry : added) {
    const bool known = entry.is_object() && entry.contains("content") &&
                       entry["content"].is_string() &&
                       vocab.contains(entry["content"].get_ref<const std::string&>());
    if (!known) ++count;
  }
  if (count == 0) fail("the vocabulary is empty");

  Vocabulary out;
  out.split_regex = split_regex_of(root);
  out.whole_pieces = !is_off(model, "ignore_merges");
  out.tokens.resize(count);
  out.special.resize(count);
  std::vector<bool> taken(count);
  Ids ids;
  ids.reserve(vocab.size());
  for (const auto& [token, value] : vocab.items()) {
    const std::int32_t id = id_of(value, token, count);
    if (token.empty()) fail("token " + std::to_string(id) + " is empty");
    if (taken[id])
      fail("token " + in_quotes(token) + " has an id that stands twice, " + value.dump());
    taken[id] = true;
    out.tokens[id] = bytes_of(token);
    ids.emplace(token, id);
  }
  find_byte_tokens(out);
  read_added_tokens(added, count, out, taken);
  for (std::size_t id = 0; id < count; ++id) {
    if (!taken[id]) fail("no token has id " + std::to_string(id));
  }
  read_merges(member(model, "merges", "model"), ids, out);
  return out;
}

}  // namespace

Vocabulary read_tokenizer_json(const std::filesystem::path& file) {
  try {
    return parse(json::parse(read_tokenizer_file(file)));
  } catch (const json::exception& error) {
    fail(error.what());
  }
}

}  // namespace mobius
