// Tests against Llama 3.1's own files and against what other programs make of them.

#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>

#include "engine/tokenizer/detokenizer.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using Ids = std::vector<std::int32_t>;

class LlamaTokenizer : public ::testing::Test {
 protected:
  static std::shared_ptr<const Tokenizer> load_only(const char* file) {
    const ScratchFolder folder;
    std::filesystem::create_symlink(std::filesystem::absolute(test_data() / "llama3.1" / file),
                                    folder.path() / file);
    return Tokenizer::load(folder.path());
  }

  /// From tokenizer.json and from tokenizer.model.
  static const std::array<std::shared_ptr<const Tokenizer>, 2>& both() {
    static const std::array<std::shared_ptr<const Tokenizer>, 2> tokenizers = {
        load_only("tokenizer.json"), load_only("tokenizer.model")};
    return tokenizers;
  }

  void SetUp() override {
    for (const char* file : {"llama3.1/tokenizer.json", "llama3.1/tokenizer.model"}) {
      if (!std::filesystem::exists(test_data() / file)) {
        GTEST_SKIP() << "no " << (test_data() / file) << "; set MOBIUS_TEST_DATA";
      }
    }
  }
};

TEST_F(LlamaTokenizer, GivesTheVectorsOfLlamaCpp) {
  const std::filesystem::path stem = test_data() / "tokenizer";
  const std::string inputs = read_file(stem / "ggml-vocab-llama-bpe.gguf.inp");
  std::istringstream outputs(read_file(stem / "ggml-vocab-llama-bpe.gguf.out"));
  const std::string separator = "\n__ggml_vocab_test__\n";
  int count = 0;
  for (std::size_t begin = 0; begin < inputs.size(); ++count) {
    const std::size_t end = inputs.find(separator, begin);
    ASSERT_NE(end, std::string::npos);
    const std::string text = inputs.substr(begin, end - begin);
    begin = end + separator.size();

    std::string line;
    ASSERT_TRUE(std::getline(outputs, line));
    std::istringstream numbers(line);
    Ids expected;
    for (std::int32_t id = 0; numbers >> id;) expected.push_back(id);
    for (const auto& tokenizer : both()) {
      EXPECT_EQ(encode(*tokenizer, text), expected) << text;
      EXPECT_EQ(tokenizer->decode(expected), text);
    }
  }
  EXPECT_EQ(count, 46);
}

TEST_F(LlamaTokenizer, GivesWhatHuggingFaceGives) {
  const auto cases = nlohmann::json::parse(
      read_file(std::filesystem::path(MOBIUS_SOURCE_DIR) / "tests/golden/llama3_tokenizer.json"));
  ASSERT_GT(cases.size(), 200u);
  for (const auto& entry : cases) {
    const auto text = entry["text"].get<std::string>();
    const auto expected = entry["ids"].get<Ids>();
    for (const auto& tokenizer : both()) {
      EXPECT_EQ(encode(*tokenizer, text), expected) << text;
      EXPECT_EQ(tokenizer->decode(expected), text);
    }
  }
}

TEST_F(LlamaTokenizer, BothFilesHaveTheSameTokens) {
  const auto& [json, model] = both();
  ASSERT_EQ(json->vocab_size(), 128256);
  ASSERT_EQ(model->vocab_size(), 128256);
  for (std::int32_t id = 0; id < json->vocab_size(); ++id) {
    ASSERT_EQ(json->bytes(id), model->bytes(id)) << id;
    ASSERT_EQ(json->is_special(id), id >= 128000) << id;
    ASSERT_EQ(model->is_special(id), id >= 128000) << id;
  }
  EXPECT_EQ(json->special("<|begin_of_text|>"), 128000);
  EXPECT_EQ(model->special("<|begin_of_text|>"), 128000);
  EXPECT_EQ(json->special("<|eot_id|>"), 128009);
  EXPECT_EQ(model->special("<|eot_id|>"), 128009);
}

TEST_F(LlamaTokenizer, BothFilesGiveTheSameIdsForABook) {
  const std::string book = read_file(test_data() / "text/war-and-peace.txt");
  const auto& [json, model] = both();
  const Ids ids = encode(*json, book);
  EXPECT_EQ(ids.size(), 779151u);  // as Hugging Face's tokenizers 0.23 counts
  EXPECT_TRUE(ids == encode(*model, book));
  EXPECT_TRUE(json->decode(ids) == book);
  EXPECT_TRUE(model->decode(ids) == book);

  Detokenizer detokenizer(*json);
  std::string streamed;
  for (const std::int32_t id : ids) streamed += detokenizer.push(id);
  EXPECT_TRUE(streamed + detokenizer.finish() == book);
}

TEST_F(LlamaTokenizer, TextThatLooksLikeASpecialTokenStaysText) {
  for (const auto& tokenizer : both()) {
    for (std::int32_t id = 128000; id < tokenizer->vocab_size(); ++id) {
      const std::string name(tokenizer->bytes(id));
      const Ids ids = encode(*tokenizer, name);
      for (const std::int32_t got : ids) EXPECT_LT(got, 128000) << name;
      EXPECT_EQ(tokenizer->decode(ids), name);
    }
  }
}

TEST_F(LlamaTokenizer, LongRunsOfOneCharacter) {
  for (const auto& tokenizer : both()) {
    for (const char* part : {"a", " ", "\n", "=", "\xC3\xA9", "\xFF", "ab", " \t"}) {
      std::string text;
      while (text.size() < (1u << 20)) text += part;
      EXPECT_TRUE(tokenizer->decode(encode(*tokenizer, text)) == text) << part;
    }
  }
}

}  // namespace
}  // namespace mobius
