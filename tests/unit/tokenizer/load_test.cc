#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

/// The message of the exception that loading the folder ends in.
std::string error_of(const std::filesystem::path& folder) {
  try {
    Tokenizer::load(folder);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "(loaded)";
}

void expect_error(const std::string& file, const std::string& content, const std::string& message) {
  const ScratchFolder folder;
  folder.write(file, content);
  EXPECT_THAT(error_of(folder.path()), AllOf(HasSubstr((folder.path() / file).string() + ": "),
                                             HasSubstr(message), Not(HasSubstr("\n"))));
}

TEST(LoadTokenizer, MalformedJsonIsRefusedInOneLine) {
  struct Case {
    std::string message;
    std::function<void(json&)> spoil;
  };
  const auto model = [](const char* name, json value) {
    return [=](json& j) { j["model"][name] = value; };
  };
  const std::string pre = "pre_tokenizer is not a Sequence of Split";
  const std::vector<Case> cases = {
      {"not a JSON object", [](json& j) { j = json::array(); }},
      {"the file has no \"model\"", [](json& j) { j.erase("model"); }},
      {"\"model\" is not an object", [](json& j) { j["model"] = 3; }},
      {"model type is \"Unigram\"", model("type", "Unigram")},
      {"model type is null", model("type", nullptr)},
      {"\"byte_fallback\" is not supported", model("byte_fallback", true)},
      {"\"unk_token\" is not supported", model("unk_token", "<unk>")},
      {"\"dropout\" is not supported", model("dropout", 0.1)},
      {"\"continuing_subword_prefix\"", model("continuing_subword_prefix", "##")},
      {"\"end_of_word_suffix\"", model("end_of_word_suffix", "</w>")},
      {"model has no \"vocab\"", [](json& j) { j["model"].erase("vocab"); }},
      {"\"vocab\" is not an object", model("vocab", json::array({"a"}))},
      {"the vocabulary is empty",
       [](json& j) {
         j["model"]["vocab"] = json::object();
         j["added_tokens"] = json::array();
       }},
      {"model has no \"merges\"", [](json& j) { j["model"].erase("merges"); }},
      {"\"merges\" is not an array", model("merges", "h e")},
      {"merge 1 (\"he\") is not a pair", model("merges", {"h e", "he"})},
      {"merge 0 (\"h e l\") is not a pair", model("merges", {"h e l"})},
      {"merge 0 (\" h\") is not a pair", model("merges", {" h"})},
      {"merge 0 (7) is not a pair", model("merges", {7})},
      {"is not a pair", model("merges", json::array({json::array({"h", "e", "l"})}))},
      {"is not a pair", model("merges", json::array({json::array({"h", 1})}))},
      {"merge 0 (\"h q\"): the vocabulary has no token \"hq\"", model("merges", {"h q"})},
      {"merge 0 (\"nope e\"): the vocabulary has no token \"nope\"", model("merges", {"nope e"})},
      {"merge 1 (\"h e\") stands twice", model("merges", {"h e", "h e"})},
      {"a normalizer is not supported",
       [](json& j) {
         j["normalizer"] = {{"type", "NFC"}};
       }},
      {"the file has no \"pre_tokenizer\"", [](json& j) { j.erase("pre_tokenizer"); }},
      {pre, [](json& j) { j["pre_tokenizer"] = nullptr; }},
      {pre,
       [](json& j) {
         j["pre_tokenizer"] = {{"type", "Whitespace"}};
       }},
      {pre, [](json& j) { j["pre_tokenizer"]["pretokenizers"].erase(1); }},
      {pre, [](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = true; }},
      {pre, [](json& j) { j["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = true; }},
      {pre, [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"; }},
      {pre, [](json& j) { j["pre_tokenizer"]["pretokenizers"][0]["invert"] = true; }},
      {pre,
       [](json& j) {
         j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"String", " "}};
       }},
      {"split pattern: ",
       [](json& j) {
         j["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {{"Regex", "(a"}};
       }},
      {"the id of token \"h\" is not an integer", [](json& j) { j["model"]["vocab"]["h"] = "1"; }},
      {"the id of token \"h\" is not an integer", [](json& j) { j["model"]["vocab"]["h"] = 1.5; }},
      {"token \"h\" has id -1", [](json& j) { j["model"]["vocab"]["h"] = -1; }},
      {"token \"h\" has id 4294967400", [](json& j) { j["model"]["vocab"]["h"] = 4294967400; }},
      {"token \"h\" has id 5000, but 280 tokens must have the ids from 0 to 279",
       [](json& j) { j["model"]["vocab"]["h"] = 5000; }},
      {"has an id that stands twice, 101", [](json& j) { j["model"]["vocab"]["h"] = 101; }},
      {"is not byte-level",
       [](json& j) {
         j["model"]["vocab"].erase("hello");
         j["model"]["vocab"]["\u2581hello"] = 259;
       }},
      {"the vocabulary has no token for byte 104",
       [](json& j) {
         j["model"]["vocab"].erase("h");
         j["model"]["vocab"]["hh"] = 104;
       }},
      {"\"added_tokens\" is not an array", [](json& j) { j["added_tokens"] = 1; }},
      {"an entry is not an object", [](json& j) { j["added_tokens"][0] = "x"; }},
      {"has no \"content\"", [](json& j) { j["added_tokens"][0].erase("content"); }},
      {"content is not a string", [](json& j) { j["added_tokens"][0]["content"] = 1; }},
      {"added token \"<|eot_id|>\" has no \"id\"",
       [](json& j) { j["added_tokens"][4].erase("id"); }},
      {"added token \"<|eot_id|>\" has the id of \"e\", 101",
       [](json& j) { j["added_tokens"][4]["id"] = 101; }},
      {"stands twice", [](json& j) { j["added_tokens"].push_back(j["added_tokens"][4]); }},
  };
  EXPECT_NE(load_json(small_tokenizer()), nullptr);
  for (const Case& entry : cases) {
    SCOPED_TRACE(entry.message);
    json spoilt = small_tokenizer();
    entry.spoil(spoilt);
    expect_error("tokenizer.json", spoilt.dump(), entry.message);
  }
}

TEST(LoadTokenizer, TextThatIsNotJsonIsRefused) {
  const std::string whole = small_tokenizer().dump();
  for (const std::string& text : {std::string(), std::string("{"), std::string("\xFF\xFE"),
                                  whole.substr(0, whole.size() / 2), whole + "}"}) {
    expect_error("tokenizer.json", text, "parse error");
  }
}

/// Lines of tiktoken's format: a token for each byte, then the others.
std::string ranks(const std::vector<std::string>& others) {
  constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) tokens.emplace_back(1, static_cast<char>(byte));
  tokens.insert(tokens.end(), others.begin(), others.end());
  std::string out;
  for (std::size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string& token = tokens[rank];
    for (std::size_t i = 0; i < token.size(); i += 3) {
      std::uint32_t bits = 0;
      for (std::size_t k = 0; k < 3; ++k) {
        bits = (bits << 8) | (i + k < token.size() ? static_cast<unsigned char>(token[i + k]) : 0u);
      }
      for (std::size_t k = 0; k < 4; ++k) {
        out += i + k > token.size() ? '=' : kDigits[(bits >> (18 - 6 * k)) & 63u];
      }
    }
    out += ' ';
    out += std::to_string(rank);
    out += '\n';
  }
  return out;
}

TEST(LoadTokenizer, ReadsTiktokenRanks) {
  const ScratchFolder folder;
  folder.write("tokenizer.model", ranks({"he", "ll", "hell", "hello", "\xC3\xA9"}));
  const auto tokenizer = Tokenizer::load(folder.path());
  EXPECT_EQ(tokenizer->vocab_size(), 261 + 256);
  EXPECT_EQ(encode(*tokenizer, "hello"), (std::vector<std::int32_t>{259}));
  EXPECT_EQ(encode(*tokenizer, "hellhe"), (std::vector<std::int32_t>{258, 256}));
  EXPECT_EQ(encode(*tokenizer, "\xC3\xA9"), (std::vector<std::int32_t>{260}));
  EXPECT_EQ(tokenizer->special("<|begin_of_text|>"), 261);
  EXPECT_EQ(tokenizer->special("<|eot_id|>"), 261 + 9);
  EXPECT_EQ(tokenizer->special("<|reserved_special_token_247|>"), 261 + 255);
  EXPECT_EQ(tokenizer->special("<|reserved_special_token_248|>"), std::nullopt);
}

TEST(LoadTokenizer, MalformedRanksAreRefusedInOneLine) {
  const std::string good = ranks({"he"});
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "the file has no tokens"},
      {"\n\n", "the file has no tokens"},
      {good + "aGVs\n", "line 258 is not a token in base64 and its rank"},
      {good + "a!Vs 257\n", "line 258: the token is not base64"},
      {good + "aGV 257\n", "line 258: the token is not base64"},
      {good + "aG=s 257\n", "line 258: the token is not base64"},
      {good + "aGX= 257\n", "line 258: the token is not base64"},
      {good + "==== 257\n", "line 258: the token is not base64"},
      {good + " 257\n", "line 258: the token is not base64"},
      {good + "aGVs x\n", "line 258: the rank is not a number"},
      {good + "aGVs -1\n", "line 258: the rank is not a number"},
      {good + "aGVs 257 1\n", "line 258: the rank is not a number"},
      {good + "aGVs 99999999999999999999999\n", "line 258: the rank is not a number"},
      {good + "aGVs 258\n", "rank 258 leaves a gap: there are 258 tokens"},
      {good + "aGVs 256\n", "rank 256 stands twice"},
      {good + "aGU= 257\n", "the tokens of ranks 256 and 257 are the same"},
      {"aGVs 0\n", "the vocabulary has no token for byte 0"},
      {std::string("\n\x0E\n\x05<unk>\x15\0\0\0\0", 15), "only tiktoken's format is supported"},
  };
  for (const auto& [content, message] : cases) {
    SCOPED_TRACE(message);
    expect_error("tokenizer.model", content, message);
  }
}

TEST(LoadTokenizer, PrefersTheJsonAndNamesTheFolderThatHasNeither) {
  const ScratchFolder folder;
  EXPECT_EQ(error_of(folder.path()),
            folder.path().string() + ": has neither tokenizer.json nor tokenizer.model");
  folder.write("tokenizer.model", ranks({}));
  EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 512);
  folder.write("tokenizer.json", small_tokenizer().dump());
  EXPECT_EQ(Tokenizer::load(folder.path())->vocab_size(), 280);
}

}  // namespace
}  // namespace mobius
