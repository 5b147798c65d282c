#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>
#include <set>

#include "tests/fuzz/target.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

/// Every kept input goes through once more: a finding that was mended stays mended.
TEST(Replay, EveryInputOfTheCorpus) {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(MOBIUS_CORPUS)) {
    if (entry.is_regular_file()) files.insert(entry.path());
  }
  ASSERT_FALSE(files.empty()) << MOBIUS_CORPUS;
  for (const auto& file : files) {
    // Seen when the target ends the process.
    std::cout << file.filename().string() << std::endl;
    const std::string input = read_file(file);
    EXPECT_EQ(
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size()),
        0);
  }
}

}  // namespace
}  // namespace mobius
