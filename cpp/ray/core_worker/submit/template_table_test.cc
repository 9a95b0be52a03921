#include "ray/core_worker/submit/template_table.h"

#include <gtest/gtest.h>

namespace ray::core {
namespace {

TaskTemplate Named(const std::string& name) {
  TaskTemplate tmpl;
  tmpl.name = name;
  tmpl.strategy.selectors = {{{"zone", "a"}, {"disk", "ssd"}, {"arch", "arm"}}};
  return tmpl;
}

TEST(TemplateTableTest, EqualContentsShareAHandle) {
  TemplateTable table;
  const uint64_t first = table.Acquire(Named("a"));
  TaskTemplate same = Named("a");
  same.key = 77;  // no part of what it says
  EXPECT_EQ(table.Acquire(same), first);
  const uint64_t other = table.Acquire(Named("b"));
  EXPECT_NE(other, first);
  EXPECT_EQ(table.Find(first)->tmpl->name, "a");
  EXPECT_EQ(table.Find(other)->tmpl->key, other);
  EXPECT_EQ(table.Find(99), nullptr);
  table.SetClass(first, 5, 2);
  EXPECT_EQ(table.Find(first)->cls, 5u);
  EXPECT_EQ(table.Find(first)->depth, 2);
}

TEST(TemplateTableTest, UnusedOnesStayForAWhile) {
  TemplateTable table(2);
  std::vector<uint64_t> handles;
  for (const char* name : {"a", "b", "c"}) {
    handles.push_back(table.Acquire(Named(name)));
    table.Release(handles.back());
  }
  EXPECT_EQ(table.size(), 2u);
  EXPECT_EQ(table.Find(handles[0]), nullptr);
  EXPECT_EQ(table.Acquire(Named("b")), handles[1]) << "still there";
  EXPECT_GT(table.Acquire(Named("a")), handles[2]) << "made anew, and not under a handle that was in use";
  for (int i = 0; i < 3; ++i) table.Release(table.Acquire(Named("x" + std::to_string(i))));
  EXPECT_NE(table.Find(handles[1]), nullptr) << "in use";
  EXPECT_EQ(table.Find(handles[2]), nullptr);
}

TEST(TemplateTableTest, OneUserOfSeveralLeaves) {
  TemplateTable table(0);
  const uint64_t handle = table.Acquire(Named("a"));
  table.Acquire(Named("a"));
  table.Release(handle);
  EXPECT_NE(table.Find(handle), nullptr);
  table.Release(handle);
  EXPECT_EQ(table.Find(handle), nullptr);
}

}  // namespace
}  // namespace ray::core
