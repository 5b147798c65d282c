#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "server/security/file_watch.h"
#include "server/security/request_id.h"
#include "tests/scratch_folder.h"

namespace mobius {
namespace {

using ::testing::MatchesRegex;

TEST(RequestId, TakesWhatCanStandInALog) {
  for (const std::string& id :
       {std::string("a"), std::string("3f9c-AB_c.d:e/f+g="), std::string(128, 'x')}) {
    EXPECT_EQ(request_id(id), id);
  }
}

TEST(RequestId, ReplacesWhatCannot) {
  for (const std::string& id :
       {std::string(), std::string(129, 'x'), std::string("a b"), std::string("a\r\nb"),
        std::string("a\"b"), std::string("a\0b", 3), std::string("\xc3\xbc")}) {
    EXPECT_THAT(request_id(id), MatchesRegex("req-[0-9a-f]{32}"));
  }
}

TEST(RequestId, IsNew) {
  std::set<std::string> ids;
  for (int i = 0; i < 1000; ++i) ids.insert(request_id(""));
  EXPECT_EQ(ids.size(), 1000U);
}

void wait_until(const std::atomic<int>& count, int wanted) {
  while (count.load() < wanted) std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

TEST(FileWatch, TellsOfEveryKindOfChange) {
  const ScratchFolder folder;
  const auto file = folder.path() / "file";
  const auto other = folder.path() / "other";
  std::ofstream(file) << "one";
  std::ofstream(other) << "one";
  std::atomic<int> changes = 0;
  std::atomic<int> other_changes = 0;
  FileWatch watch(
      {{{file.string()}, [&] { ++changes; }}, {{"", other.string()}, [&] { ++other_changes; }}});
  std::ofstream(file) << "longer";
  wait_until(changes, 1);
  std::filesystem::remove(file);
  wait_until(changes, 2);
  std::filesystem::create_symlink(other, file);
  wait_until(changes, 3);
  EXPECT_EQ(other_changes.load(), 0);
  watch.force();
  wait_until(changes, 4);
  wait_until(other_changes, 1);
}

}  // namespace
}  // namespace mobius
