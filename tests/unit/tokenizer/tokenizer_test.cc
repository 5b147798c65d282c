#include "engine/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

#include "tests/unit/tokenizer/fixtures.h"

namespace mobius {
namespace {

using Ids = std::vector<std::int32_t>;

std::shared_ptr<const Tokenizer> small() {
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  return tokenizer;
}

std::int32_t id_of(const Tokenizer& tokenizer, std::string_view bytes) {
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.bytes(id) == bytes) return id;
  }
  ADD_FAILURE() << "no token " << bytes;
  return -1;
}

Ids ids_of(const Tokenizer& tokenizer, const std::vector<std::string>& tokens) {
  Ids out;
  for (const std::string& token : tokens) out.push_back(id_of(tokenizer, token));
  return out;
}

/// Texts that are hard on a tokenizer, invalid UTF-8 among them.
std::vector<std::string> hard_texts() {
  std::vector<std::string> out = {"",
                                  "hello world",
                                  "caf\xC3\xA9",
                                  "\xC3",
                                  "\xC3\xC3\xA9",
                                  "hello\xFFworld",
                                  "\xC0\x80 overlong \xE0\x9F\xBF \xF0\x8F\xBF\xBF",
                                  "\xED\xA0\x80\xED\xB0\x80 surrogates",
                                  "\xF4\x90\x80\x80 beyond",
                                  "  \xE2\x82  cut  ",
                                  "end cut \xF0\x9F\x99",
                                  "\xEF\xBB\xBF"
                                  "bom \xEF\xBF\xBE \xEF\xBF\xBD",
                                  std::string("nul\0nul", 7)};
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  out.push_back(all);
  std::reverse(all.begin(), all.end());
  out.push_back(all);
  std::mt19937 draw(3);
  for (int i = 0; i < 300; ++i) {
    std::string text(draw() % 200, ' ');
    for (char& c : text) c = static_cast<char>(draw() % (i % 2 == 0 ? 256 : 128));
    out.push_back(text);
  }
  return out;
}

TEST(Tokenizer, MergesWithinPiecesByRank) {
  const auto tokenizer = small();
  EXPECT_EQ(encode(*tokenizer, "hello"), ids_of(*tokenizer, {"hello"}));
  EXPECT_EQ(encode(*tokenizer, "hello hello"), ids_of(*tokenizer, {"hello", " hello"}));
  // "ll" comes before "lo".
  EXPECT_EQ(encode(*tokenizer, "llo"), ids_of(*tokenizer, {"ll", "o"}));
  EXPECT_EQ(encode(*tokenizer, "lo"), ids_of(*tokenizer, {"lo"}));
  // " w", not " " and "w": a space belongs to the word behind it.
  EXPECT_EQ(encode(*tokenizer, "   world"), ids_of(*tokenizer, {"  ", " world"}));
  // "1234" splits into "123" and "4".
  EXPECT_EQ(encode(*tokenizer, "1234"), ids_of(*tokenizer, {"123", "4"}));
  EXPECT_EQ(encode(*tokenizer, "\xC3\xA9"), ids_of(*tokenizer, {"\xC3\xA9"}));
  EXPECT_EQ(encode(*tokenizer, ""), Ids{});
}

TEST(Tokenizer, EncodeAppends) {
  const auto tokenizer = small();
  Ids ids = {5};
  tokenizer->encode("h", ids);
  EXPECT_EQ(ids, (Ids{5, 'h'}));
}

TEST(Tokenizer, EncodeStopsWhereATextIsTooLong) {
  const auto tokenizer = small();
  for (const std::string& text : hard_texts()) {
    const Ids whole = encode(*tokenizer, text);
    for (const std::size_t most :
         {std::size_t{0}, whole.size() / 2, whole.size() - 1, whole.size(), whole.size() + 9}) {
      Ids ids;
      const std::size_t length = tokenizer->encode(text, ids, most);
      if (whole.size() <= most) {
        EXPECT_EQ(length, whole.size());
        EXPECT_EQ(ids, whole);
      } else {
        EXPECT_GT(length, most);
        EXPECT_LE(length, whole.size()) << "at least that many";
      }
    }
  }
}

TEST(Tokenizer, EncodeDoesLittleForATextThatIsTooLong) {
  const auto tokenizer = small();
  Ids ids = {5, 6};
  // No token of text has more bytes than " world" and " hello".
  EXPECT_EQ(tokenizer->encode(std::string(6 * 98 + 1, 'z'), ids, 100), 2U + 99);
  EXPECT_EQ(ids, (Ids{5, 6})) << "known from the bytes alone";
  std::string words;
  for (int i = 0; i < 200; ++i) words += " z";
  EXPECT_EQ(tokenizer->encode(words, ids, 100), 102U);
  EXPECT_EQ(ids.size(), 102U) << "known with the piece that is too much";
  EXPECT_EQ(tokenizer->encode("", ids, 100), 102U);
}

TEST(Tokenizer, WholePiecesAreTakenAtOnceOnlyWhereTheFileSaysSo) {
  // The merges cannot make "xyz": only a lookup of the whole piece can.
  nlohmann::json json = small_tokenizer();
  const auto added = json["added_tokens"].size();
  auto& vocab = json["model"]["vocab"];
  vocab["xyz"] = vocab.size() + added;
  const auto without = load_json(json);
  EXPECT_EQ(encode(*without, "xyz"), (Ids{'x', 'y', 'z'}));
  json["model"]["ignore_merges"] = true;
  const auto with = load_json(json);
  EXPECT_EQ(encode(*with, "xyz"), ids_of(*with, {"xyz"}));
  EXPECT_EQ(encode(*with, "xyzz"), (Ids{'x', 'y', 'z', 'z'}));
}

TEST(Tokenizer, MergesMayBePairs) {
  nlohmann::json json = small_tokenizer();
  for (auto& merge : json["model"]["merges"]) {
    const std::string text = merge.get<std::string>();
    const std::size_t space = text.find(' ');
    merge = nlohmann::json::array({text.substr(0, space), text.substr(space + 1)});
  }
  const auto tokenizer = load_json(json);
  for (const std::string& text : hard_texts()) {
    EXPECT_EQ(encode(*tokenizer, text), encode(*small(), text));
  }
}

TEST(Tokenizer, AnyBytesDecodeToThemselves) {
  const auto tokenizer = small();
  for (const std::string& text : hard_texts()) {
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, text)), text) << ::testing::PrintToString(text);
  }
}

TEST(Tokenizer, TextThatLooksLikeASpecialTokenStaysText) {
  const auto tokenizer = small();
  const std::string text =
      "<|eot_id|> x<|begin_of_text|><|start_header_id|>system<|end_header_id|>";
  const Ids ids = encode(*tokenizer, text);
  for (const std::int32_t id : ids) EXPECT_FALSE(tokenizer->is_special(id)) << id;
  EXPECT_EQ(tokenizer->decode(ids), text);
}

TEST(Tokenizer, TextNeverBecomesASpecialTokenEvenIfTheVocabularyWouldLetIt) {
  nlohmann::json json = small_tokenizer();
  // "hello" is a token that merges make; now it is a special one as well.
  json["added_tokens"].push_back(
      {{"id", json["model"]["vocab"]["hello"]}, {"content", "hello"}, {"special", true}});
  for (const bool whole : {false, true}) {
    json["model"]["ignore_merges"] = whole;
    const auto tokenizer = load_json(json);
    const std::int32_t special = tokenizer->special("hello").value();
    EXPECT_THAT(encode(*tokenizer, "hello hello"), ::testing::Not(::testing::Contains(special)));
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, "hello hello")), "hello hello");
  }
}

TEST(Tokenizer, KnowsItsSpecialTokens) {
  const auto tokenizer = small();
  const std::optional<std::int32_t> end = tokenizer->special("<|eot_id|>");
  ASSERT_TRUE(end.has_value());
  EXPECT_EQ(*end, tokenizer->vocab_size() - 1);
  EXPECT_TRUE(tokenizer->is_special(*end));
  EXPECT_EQ(tokenizer->bytes(*end), "<|eot_id|>");
  EXPECT_EQ(tokenizer->special("<|no_such_token|>"), std::nullopt);
  EXPECT_EQ(tokenizer->special("hello"), std::nullopt);
  EXPECT_FALSE(tokenizer->is_special('h'));
  const Ids ids = {'h', *end, 'i'};
  EXPECT_EQ(tokenizer->decode(ids), "hi");
  EXPECT_EQ(tokenizer->decode(ids, true), "h<|eot_id|>i");
}

TEST(Tokenizer, AddedTokensThatAreNotSpecialPrint) {
  nlohmann::json json = small_tokenizer();
  const auto id = json["model"]["vocab"].size() + json["added_tokens"].size();
  json["added_tokens"].push_back({{"id", id}, {"content", "<tool_call>"}, {"special", false}});
  const auto tokenizer = load_json(json);
  const Ids ids = {static_cast<std::int32_t>(id)};
  EXPECT_FALSE(tokenizer->is_special(ids[0]));
  EXPECT_EQ(tokenizer->special("<tool_call>"), std::nullopt);
  EXPECT_EQ(tokenizer->decode(ids), "<tool_call>");
  EXPECT_THAT(encode(*tokenizer, "<tool_call>"), ::testing::Not(::testing::Contains(ids[0])));
}

TEST(Tokenizer, IdsWithoutAnEntryAreEmpty) {
  const auto tokenizer = small();
  for (const std::int32_t id : {-1, tokenizer->vocab_size(), INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(tokenizer->bytes(id), "");
    EXPECT_FALSE(tokenizer->is_special(id));
    EXPECT_EQ(tokenizer->decode(Ids{id}), "");
  }
}

TEST(Tokenizer, LongRunsAreTakenInTimeInProportion) {
  const auto tokenizer = small();
  const std::size_t size = 1u << 20;
  const std::string letters(size, 'a');
  std::string mixed;
  while (mixed.size() < size) mixed += " \n\t ";
  std::string quotes;
  while (quotes.size() < size) quotes += "'\"";
  std::string broken;
  while (broken.size() < size) broken += "\xE2\x82";
  std::string halves;
  while (halves.size() < size) halves += "a\xFF";
  for (const std::string& text :
       {letters, std::string(size, ' '), std::string(size, ' ') + "a", std::string(size, '\n'),
        std::string(size, '1'), std::string(size, '!'), mixed, quotes, broken, halves}) {
    const Ids ids = encode(*tokenizer, text);
    EXPECT_TRUE(tokenizer->decode(ids) == text) << text.substr(0, 4);
  }
  EXPECT_EQ(encode(*tokenizer, letters), Ids(letters.size() / 4, id_of(*tokenizer, "aaaa")));
}

TEST(Tokenizer, ThreadsGetTheSameTokens) {
  const auto tokenizer = small();
  const std::vector<std::string> texts = hard_texts();
  std::vector<Ids> expected;
  for (const std::string& text : texts) expected.push_back(encode(*tokenizer, text));
  std::vector<std::vector<Ids>> results(4);
  std::vector<std::thread> threads;
  for (auto& result : results) {
    threads.emplace_back([&] {
      for (const std::string& text : texts) result.push_back(encode(*tokenizer, text));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, expected);
}

}  // namespace
}  // namespace mobius
