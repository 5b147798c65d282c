#include "engine/kv_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>
#include <vector>

namespace mobius {
namespace {

using testing::ElementsAreArray;

std::string check(const KvPages& pages, const std::vector<PageList>& lists) {
  std::vector<const PageList*> pointers;
  for (const PageList& list : lists) pointers.push_back(&list);
  return pages.check_invariants(pointers);
}

TEST(KvPages, GivesEachPageToOneListAndTakesItBack) {
  KvPages pages(8);
  EXPECT_EQ(pages.total(), 8);
  EXPECT_EQ(pages.available(), 8);
  {
    PageList a(pages);
    PageList b(pages);
    ASSERT_TRUE(a.grow_to(3));
    ASSERT_TRUE(b.grow_to(4));
    std::set<PageId> ids(a.ids().begin(), a.ids().end());
    ids.insert(b.ids().begin(), b.ids().end());
    EXPECT_EQ(ids.size(), 7U);
    EXPECT_EQ(pages.used(), 7);
    for (const PageId page : ids) EXPECT_EQ(pages.count(page), 1);
  }
  EXPECT_EQ(pages.used(), 0);
}

TEST(KvPages, ExhaustionChangesNothing) {
  KvPages pages(4);
  PageList a(pages);
  PageList b(pages);
  ASSERT_TRUE(a.grow_to(3));
  const std::vector<PageId> before(a.ids().begin(), a.ids().end());
  EXPECT_FALSE(b.grow_to(2));
  EXPECT_EQ(b.size(), 0);
  EXPECT_EQ(pages.available(), 1);
  EXPECT_FALSE(a.grow_to(5));
  EXPECT_THAT(a.ids(), ElementsAreArray(before));
  EXPECT_TRUE(a.grow_to(4));
  EXPECT_TRUE(a.grow_to(2)) << "growing to fewer keeps what there is";
  EXPECT_EQ(a.size(), 4);
}

TEST(KvPages, SharedPageIsFreedWithItsLastHolder) {
  KvPages pages(4);
  PageList a(pages);
  ASSERT_TRUE(a.grow_to(2));
  const PageId first = a.ids()[0];
  PageList b(pages);
  b.share(first);
  ASSERT_TRUE(b.grow_to(2));
  EXPECT_EQ(pages.count(first), 2);
  EXPECT_EQ(pages.used(), 3);
  a.clear();
  EXPECT_EQ(pages.count(first), 1);
  EXPECT_EQ(pages.used(), 2);
  EXPECT_EQ(b.ids()[0], first);
  b.clear();
  EXPECT_EQ(pages.used(), 0);
}

TEST(KvPages, MovedListHoldsThePages) {
  KvPages pages(4);
  PageList a(pages);
  ASSERT_TRUE(a.grow_to(2));
  PageList b(std::move(a));
  EXPECT_EQ(b.size(), 2);
  EXPECT_EQ(pages.used(), 2);
  PageList c(pages);
  ASSERT_TRUE(c.grow_to(1));
  c = std::move(b);
  EXPECT_EQ(c.size(), 2);
  EXPECT_EQ(pages.used(), 2);
}

TEST(KvPages, CheckSeesAHolderThatIsNotListed) {
  KvPages pages(4);
  std::vector<PageList> lists;
  lists.emplace_back(pages);
  PageList hidden(pages);
  ASSERT_TRUE(hidden.grow_to(1));
  EXPECT_EQ(check(pages, lists), "page 0 has count 1 but 0 holders");
}

TEST(KvPages, RandomUseKeepsCounts) {
  std::mt19937 random(7);
  KvPages pages(50);
  std::vector<PageList> lists;
  for (int i = 0; i < 12; ++i) lists.emplace_back(pages);
  for (int i = 0; i < 5000; ++i) {
    PageList& list = lists[random() % lists.size()];
    const PageList& other = lists[random() % lists.size()];
    switch (random() % 4) {
      case 0: list.clear(); break;
      case 1:
        if (&other != &list && other.size() > 0) {
          list.share(other.ids()[random() % other.ids().size()]);
        }
        break;
      default: {
        const std::int32_t more = static_cast<std::int32_t>(random() % 10);
        const bool fits = more <= pages.available();
        EXPECT_EQ(list.grow_to(list.size() + more), fits);
      }
    }
    ASSERT_EQ(check(pages, lists), "");
  }
  lists.clear();
  EXPECT_EQ(pages.used(), 0);
}

}  // namespace
}  // namespace mobius
