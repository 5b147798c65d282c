#include "models/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

SafetensorsEntries parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "some.safetensors");
}

std::string padded(std::string header) {
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return header;
}

/// What a file with this header over `data_bytes` zero bytes is refused with.
std::string refusal(const std::string& header, std::size_t data_bytes) {
  const std::string message =
      message_of([&] { parse(safetensors_bytes(header, std::string(data_bytes, '\0'))); });
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  return message;
}

TEST(Safetensors, ReadsNamesTypesShapesAndOffsets) {
  const std::string header = padded(R"({"__metadata__":{"format":"pt"},)"
                                    R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},)"
                                    R"("a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                                    R"("e":{"dtype":"F16","shape":[0,7],"data_offsets":[20,20]}})");
  const std::string bytes = safetensors_bytes(header, std::string(20, '\0'));
  const SafetensorsEntries entries = parse(bytes);
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries.at("a").dtype, DType::bf16);
  EXPECT_EQ(entries.at("a").shape, (std::vector<std::int64_t>{2, 3}));
  EXPECT_EQ(entries.at("a").offset, 8 + header.size());
  EXPECT_EQ(entries.at("a").bytes, 12U);
  EXPECT_EQ(entries.at("b").dtype, DType::f32);
  EXPECT_EQ(entries.at("b").offset, 8 + header.size() + 12);
  EXPECT_EQ(entries.at("e").bytes, 0U);
}

TEST(Safetensors, RefusesBrokenLengths) {
  EXPECT_THAT(message_of([] { parse("1234567"); }),
              AllOf(StartsWith("some.safetensors: "), HasSubstr("has 7 bytes")));
  EXPECT_THAT(message_of([] { parse(std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10)); }),
              HasSubstr("header length is 18446744073709551615, expected at most 100000000"));
  EXPECT_THAT(message_of([] { parse(std::string("\x40\0\0\0\0\0\0\0{}", 10)); }),
              HasSubstr("header length is 64, but only 2 bytes follow (truncated?)"));
  EXPECT_THAT(message_of([] { parse(std::string("\0\0\0\0\0\0\0\0", 8)); }),
              HasSubstr("does not begin with '{'"));
}

TEST(Safetensors, RefusesWhatIsNoJsonObject) {
  EXPECT_THAT(refusal("[1, 2]", 0), HasSubstr("does not begin with '{'"));
  EXPECT_THAT(refusal("{\"a\": ", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal("{\"a\": 1e999}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal("{\"\xff\": 1}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal("{} {}", 0), HasSubstr("not valid JSON at byte"));
  EXPECT_THAT(refusal("{\"a\":" + std::string(5000, '[') + std::string(5000, ']') + "}", 0),
              HasSubstr("nested deeper"));
  EXPECT_THAT(refusal(R"({"a":3})", 0), HasSubstr("tensor \"a\": found 3, expected an object"));
  EXPECT_THAT(refusal(R"({"__metadata__":3})", 0), HasSubstr("__metadata__ is 3"));
}

TEST(Safetensors, RefusesDuplicateNames) {
  const std::string entry = R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  EXPECT_THAT(refusal("{\"a\":" + entry + ",\"a\":" + entry + "}", 4),
              HasSubstr("key \"a\" appears twice"));
}

TEST(Safetensors, RefusesMissingAndMistypedFields) {
  const auto with = [](const char* fields) {
    return refusal(std::string(R"({"t":{)") + fields + "}}", 4);
  };
  EXPECT_THAT(with(R"("shape":[1],"data_offsets":[0,4])"), HasSubstr("\"dtype\" is missing"));
  EXPECT_THAT(with(R"("dtype":"F32","data_offsets":[0,4])"), HasSubstr("\"shape\" is missing"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1])"), HasSubstr("\"data_offsets\" is missing"));
  EXPECT_THAT(with(R"("dtype":"I64","shape":[1],"data_offsets":[0,4])"),
              HasSubstr("tensor \"t\": dtype is \"I64\", expected BF16, F16 or F32"));
  EXPECT_THAT(with(R"("dtype":7,"shape":[1],"data_offsets":[0,4])"), HasSubstr("dtype is 7"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":1,"data_offsets":[0,4])"), HasSubstr("shape is 1"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), HasSubstr("[-1]"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1.5],"data_offsets":[0,4])"), HasSubstr("[1.5]"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4])"),
              HasSubstr("at most 8 sizes"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1],"data_offsets":[0])"),
              HasSubstr("data_offsets is [0], expected [begin, end]"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), HasSubstr("[-4,0]"));
  EXPECT_THAT(with(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), HasSubstr("begin <= end"));
}

TEST(Safetensors, RefusesSizesThatDoNotFit) {
  const auto with = [](const char* shape, const char* offsets, std::size_t data) {
    return refusal(std::string(R"({"t":{"dtype":"F32","shape":)") + shape + R"(,"data_offsets":)" +
                       offsets + "}}",
                   data);
  };
  EXPECT_THAT(with("[2,2]", "[0,12]", 12),
              HasSubstr("has 12 bytes, expected 16 for shape [2,2] of \"F32\""));
  EXPECT_THAT(with("[4]", "[0,16]", 12),
              HasSubstr("ends at byte 16 of the data, but the file has only 12 bytes of data"));
  EXPECT_THAT(with("[4]", "[0,18446744073709551615]", 12), HasSubstr("has only 12 bytes"));
  EXPECT_THAT(with("[4294967296,4294967296]", "[0,4]", 4),
              HasSubstr("more bytes than a file can have"));
  // The product wraps to the right number of bytes.
  EXPECT_THAT(with("[4611686018427387905]", "[0,4]", 4),
              HasSubstr("more bytes than a file can have"));
  EXPECT_THAT(with("[9223372036854775808]", "[0,4]", 4), HasSubstr("list of at most 8 sizes"));
}

TEST(Safetensors, RefusesOverlapHolesAndRest) {
  const auto two = [](const char* first, const char* second, std::size_t data) {
    return refusal(
        padded(std::string(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":)") + first +
               R"(},"b":{"dtype":"F32","shape":[2],"data_offsets":)" + second + "}}"),
        data);
  };
  EXPECT_THAT(two("[0,8]", "[4,12]", 12),
              HasSubstr("tensor \"b\": data begins at 4, expected 8 (overlap"));
  EXPECT_THAT(two("[0,8]", "[0,8]", 8), HasSubstr("overlap"));
  EXPECT_THAT(two("[0,8]", "[12,20]", 20),
              HasSubstr("tensor \"b\": data begins at 12, expected 8 (hole"));
  EXPECT_THAT(two("[4,12]", "[12,20]", 20),
              HasSubstr("tensor \"a\": data begins at 4, expected 0 (hole"));
  EXPECT_THAT(two("[0,8]", "[8,16]", 19), HasSubstr("has 3 bytes after the last tensor"));
}

TEST(Safetensors, RefusesUnalignedData) {
  EXPECT_THAT(refusal(R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}} )", 4),
              HasSubstr("expected a multiple of its element size"));
}

TEST(Safetensors, HostileNamesStayOnOneLine) {
  EXPECT_THAT(refusal("{\"a\\nb\\u0000" + std::string(100'000, 'x') + "\":3}", 0).size(),
              testing::Lt(400U));
}

TEST(Safetensors, DamageIsRefusedOrHarmless) {
  const std::string valid =
      safetensors_bytes(padded(R"({"a":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                               R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]}})"),
                        std::string(20, '\0'));
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string bytes = valid;
    for (auto edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % bytes.size();
      switch (random() % 4) {
        case 0: bytes[at] = static_cast<char>(random()); break;
        case 1: bytes[at] = "0123456789[]{}\",:-"[random() % 18]; break;
        case 2: bytes.erase(at, 1 + random() % 4); break;
        default: bytes.insert(at, 1, "0123456789[]{}\",:-"[random() % 18]);
      }
      if (bytes.empty()) bytes = "x";
    }
    try {
      for (const auto& [name, entry] : parse(bytes)) {
        ASSERT_LE(entry.offset, bytes.size());
        ASSERT_LE(entry.bytes, bytes.size() - entry.offset);
      }
    } catch (const std::runtime_error& error) {
      ++refused;
      ASSERT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(refused, 10'000);
}

TEST(SafetensorsFile, MapsTheData) {
  const ScratchFolder folder;
  const std::string header = R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  )";
  const float values[] = {1.5F, -2.0F};
  const auto path = folder.write(
      "x.safetensors",
      safetensors_bytes(header, {reinterpret_cast<const char*>(values), sizeof values}));
  const SafetensorsFile file(path);
  file.file().prefault();
  EXPECT_EQ(std::memcmp(file.data(file.entries().at("t")), values, sizeof values), 0);
}

TEST(SafetensorsFile, SaysWhyItCannotMap) {
  const ScratchFolder folder;
  const auto missing = folder.path() / "missing.safetensors";
  EXPECT_THAT(message_of([&] { SafetensorsFile file(missing); }),
              AllOf(StartsWith(missing.string()), HasSubstr("cannot open: No such file")));
  const auto empty = folder.write("empty.safetensors", "");
  EXPECT_THAT(message_of([&] { SafetensorsFile file(empty); }), HasSubstr("is empty"));
  EXPECT_THAT(message_of([&] { SafetensorsFile file(folder.path()); }),
              HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace mobius
