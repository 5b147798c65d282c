#include "models/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/models/scratch.h"

namespace mobius {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

/// One f32 tensor [rows, cols] of zeros.
std::string one_tensor(const std::string& name, int rows, int cols) {
  const int bytes = rows * cols * 4;
  std::string header = "{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(rows) +
                       "," + std::to_string(cols) + "],\"data_offsets\":[0," +
                       std::to_string(bytes) + "]}}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  return safetensors_bytes(header, std::string(static_cast<std::size_t>(bytes), '\0'));
}

std::string open_error(const ScratchFolder& folder) {
  return message_of([&] { Checkpoint checkpoint(folder.path()); });
}

TEST(Checkpoint, FindsTensorsInASingleFile) {
  const ScratchFolder folder;
  folder.write("model.safetensors", one_tensor("w", 2, 3));
  const Checkpoint checkpoint(folder.path());
  const HostTensor tensor = checkpoint.matrix("w", 2, 3);
  EXPECT_EQ(tensor.rows, 2);
  EXPECT_EQ(tensor.cols, 3);
  EXPECT_EQ(tensor.dtype, DType::f32);
  EXPECT_NE(tensor.data, nullptr);
  EXPECT_TRUE(checkpoint.has("w"));
  EXPECT_FALSE(checkpoint.has("v"));
}

TEST(Checkpoint, FindsTensorsInShards) {
  const ScratchFolder folder;
  folder.write("one.safetensors", one_tensor("a", 1, 2));
  folder.write("two.safetensors", one_tensor("b", 3, 4));
  folder.write("model.safetensors.index.json",
               R"({"metadata":{},"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(checkpoint.files().size(), 2U);
  EXPECT_EQ(checkpoint.matrix("b", 3, 4).cols, 4);
}

TEST(Checkpoint, ErrorsNameFileTensorFoundAndExpected) {
  const ScratchFolder folder;
  const auto path = folder.write("model.safetensors", one_tensor("w", 2, 3));
  const Checkpoint checkpoint(folder.path());
  EXPECT_EQ(message_of([&] { checkpoint.matrix("w", 3, 2); }),
            path.string() + ": tensor \"w\": shape is [2, 3], expected [3, 2]");
  EXPECT_EQ(message_of([&] { checkpoint.vector("w", 6); }),
            path.string() + ": tensor \"w\": shape is [2, 3], expected [6]");
  EXPECT_EQ(message_of([&] { checkpoint.matrix("x", 3, 2); }),
            path.string() + ": tensor \"x\": missing, expected shape [3, 2]");
}

TEST(Checkpoint, RefusesFoldersWithoutWeights) {
  const ScratchFolder folder;
  EXPECT_THAT(open_error(folder),
              HasSubstr("has neither model.safetensors nor model.safetensors.index.json"));
  EXPECT_THAT(message_of([&] { Checkpoint checkpoint(folder.path() / "nowhere"); }),
              HasSubstr("no such folder"));
}

TEST(Checkpoint, RefusesBrokenIndexes) {
  const ScratchFolder folder;
  folder.write("one.safetensors", one_tensor("a", 1, 2));
  const auto with = [&](const std::string& index) {
    folder.write("model.safetensors.index.json", index);
    return open_error(folder);
  };
  EXPECT_THAT(with("{"), HasSubstr("not valid JSON"));
  EXPECT_THAT(with("[]"), HasSubstr("expected a JSON object"));
  EXPECT_THAT(with("{}"), HasSubstr("weight_map is missing"));
  EXPECT_THAT(with(R"({"weight_map":{"a":7}})"), HasSubstr("tensor \"a\": found 7"));
  EXPECT_THAT(with(R"({"weight_map":{"a":"../one.safetensors"}})"),
              HasSubstr("expected the name of a file in the same folder"));
  EXPECT_THAT(with(R"({"weight_map":{"a":".."}})"), HasSubstr("in the same folder"));
  EXPECT_THAT(with(R"({"weight_map":{"a":"gone.safetensors"}})"),
              HasSubstr("gone.safetensors: cannot open"));
  EXPECT_THAT(with(R"({"weight_map":{"b":"one.safetensors"}})"),
              AllOf(HasSubstr("one.safetensors: tensor \"b\": missing"),
                    HasSubstr("index.json lists it here")));
  EXPECT_THAT(with(R"({"weight_map":{"a":"one.safetensors","a":"one.safetensors"}})"),
              HasSubstr("key \"a\" appears twice"));
}

TEST(Checkpoint, RefusesTruncatedShards) {
  const ScratchFolder folder;
  const std::string whole = one_tensor("a", 4, 4);
  const auto path = folder.write("model.safetensors", whole.substr(0, whole.size() - 1));
  EXPECT_THAT(open_error(folder),
              AllOf(StartsWith(path.string()), HasSubstr("tensor \"a\""), HasSubstr("truncated?")));
}

}  // namespace
}  // namespace mobius
