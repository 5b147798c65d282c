#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "server/security/file_watch.h"
#include "server/security/request_id.h"
#include "server/security/trace_context.h"
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

constexpr const char* kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr const char* kParent = "00f067aa0ba902b7";

std::string parent(const std::string& version = "00", const std::string& trace = kTrace,
                   const std::string& span = kParent, const std::string& flags = "01") {
  return version + '-' + trace + '-' + span + '-' + flags;
}

TEST(Trace, TakesAValidParentAndMakesASpan) {
  const TraceContext trace = trace_context(parent());
  EXPECT_EQ(trace.trace_id, kTrace);
  EXPECT_EQ(trace.parent_id, kParent);
  EXPECT_THAT(trace.span_id, MatchesRegex("[0-9a-f]{16}"));
  EXPECT_NE(trace.span_id, trace.parent_id);
  EXPECT_NE(trace.span_id, trace_context(parent()).span_id);
  EXPECT_EQ(trace.response(), parent("00", kTrace, trace.span_id, "01"));
}

TEST(Trace, OfTheFlagsOnlySampledIsKnown) {
  EXPECT_EQ(trace_context(parent("00", kTrace, kParent, "00")).flags, "00");
  EXPECT_EQ(trace_context(parent("00", kTrace, kParent, "ff")).flags, "01");
  EXPECT_EQ(trace_context(parent("00", kTrace, kParent, "0a")).flags, "00");
  EXPECT_EQ(trace_context(parent("00", kTrace, kParent, "0b")).flags, "01");
}

TEST(Trace, LaterVersionsMayBeLonger) {
  EXPECT_EQ(trace_context(parent("01")).trace_id, kTrace);
  EXPECT_EQ(trace_context(parent("cc") + "-what-comes").trace_id, kTrace);
  EXPECT_TRUE(trace_context(parent("cc") + "what-comes").empty());
}

TEST(Trace, WhatIsNotValidIsNoTrace) {
  const std::string zeros(32, '0');
  std::string indented(1, ' ');
  indented += parent();
  std::string underlined = parent();
  underlined[2] = '_';
  for (const std::string& text :
       {std::string(), parent("ff"), parent("0g"), parent("00", zeros),
        parent("00", kTrace, zeros.substr(0, 16)), parent("00", "4BF92F3577B34DA6A3CE929D0E0E4736"),
        parent("00", kTrace, kParent, "x1"), parent() + "-more", parent() + "0", indented,
        parent().substr(0, 54), underlined, parent("00", kTrace, "00f067aa0ba902b")}) {
    EXPECT_TRUE(trace_context(text).empty()) << text;
    EXPECT_EQ(trace_context(text).response(), "") << text;
  }
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
