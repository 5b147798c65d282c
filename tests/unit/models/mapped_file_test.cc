#include "models/mapped_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "tests/scratch_folder.h"

namespace mobius {
namespace {

std::size_t page_bytes() {
  return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

/// Sums what is read, so that nothing of it is left out.
std::size_t sum_of(std::span<const std::byte> bytes) {
  std::size_t sum = 0;
  for (const std::byte byte : bytes) sum += std::to_integer<std::size_t>(byte);
  return sum;
}

TEST(MappedFile, HasTheFilesBytes) {
  const ScratchFolder folder;
  folder.write("f", "some text");
  const MappedFile file(folder.path() / "f");
  ASSERT_EQ(file.bytes().size(), 9U);
  EXPECT_EQ(std::to_integer<char>(file.bytes()[8]), 't');
  file.prefault();
  file.release();
  EXPECT_EQ(std::to_integer<char>(file.bytes()[0]), 's');
  EXPECT_FALSE(file.lost());
}

TEST(MappedFile, WhatTheFileNoLongerHasReadsAsZerosAndIsTold) {
  const ScratchFolder folder;
  const std::size_t page = page_bytes();
  folder.write("short", std::string(5 * page, '\1'));
  folder.write("whole", std::string(5 * page, '\1'));
  const MappedFile cut(folder.path() / "short");
  const MappedFile whole(folder.path() / "whole");
  EXPECT_EQ(sum_of(cut.bytes()), 5 * page);
  std::filesystem::resize_file(folder.path() / "short", 2 * page);
  EXPECT_FALSE(cut.lost()) << "nobody has missed anything yet";
  std::vector<std::size_t> sums(4);
  std::vector<std::thread> readers;
  for (std::size_t& sum : sums) {
    readers.emplace_back([&] { sum = sum_of(cut.bytes()); });
  }
  for (std::thread& reader : readers) reader.join();
  for (const std::size_t sum : sums) EXPECT_EQ(sum, 2 * page);
  EXPECT_TRUE(cut.lost());
  EXPECT_EQ(sum_of(whole.bytes()), 5 * page);
  EXPECT_FALSE(whole.lost());
}

TEST(MappedFile, APlaceThatIsFreeAgainBeginsAnew) {
  const ScratchFolder folder;
  const std::size_t page = page_bytes();
  for (int i = 0; i < 2000; ++i) {
    folder.write("f", std::string(2 * page, '\1'));
    const MappedFile file(folder.path() / "f");
    ASSERT_FALSE(file.lost());
    if (i % 1000 != 0) continue;
    std::filesystem::resize_file(folder.path() / "f", page);
    EXPECT_EQ(sum_of(file.bytes()), page);
    EXPECT_TRUE(file.lost());
  }
}

TEST(MappedFileDeathTest, FaultsOfOthersAreTheirs) {
  const ScratchFolder folder;
  const std::size_t page = page_bytes();
  folder.write("f", std::string(2 * page, '\1'));
  const MappedFile file(folder.path() / "f");
  const auto read_missing = [&] {
    const int descriptor = ::open((folder.path() / "f").c_str(), O_RDONLY | O_CLOEXEC);
    void* const other = ::mmap(nullptr, 2 * page, PROT_READ, MAP_SHARED, descriptor, 0);
    std::filesystem::resize_file(folder.path() / "f", page);
    std::exit(static_cast<int>(sum_of({static_cast<const std::byte*>(other), 2 * page})) != 0 ? 0
                                                                                              : 1);
  };
  EXPECT_DEATH(read_missing(), "");
}

}  // namespace
}  // namespace mobius
