#include "ray/util/logging.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <regex>
#include <sstream>
#include <thread>
#include <vector>

#include "ray/util/log_rotation.h"

namespace ray {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class LoggingTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "logging_test_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    file_ = dir_ + "/x.log";
  }
  void TearDown() override {
    ASSERT_TRUE(StartLogging({}).ok());
    for (const char* name : {"x.log", "x.log.1", "x.log.2", "x.log.3"}) ::unlink((dir_ + "/" + name).c_str());
    ::rmdir(dir_.c_str());
  }
  std::string dir_, file_;
};

TEST_F(LoggingTest, WritesTheLineFormat) {
  ASSERT_TRUE(StartLogging({.file = file_}).ok());
  RAY_LOG(WARNING) << "hello " << 42;
  std::regex format(R"(\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} W \d+ \d+\] logging_test\.cc:\d+: hello 42\n)");
  EXPECT_TRUE(std::regex_match(ReadAll(file_), format)) << ReadAll(file_);
}

TEST_F(LoggingTest, EvaluatesNothingBelowTheLevel) {
  ASSERT_TRUE(StartLogging({.file = file_, .level = LogLevel::kError}).ok());
  int evaluated = 0;
  RAY_LOG(INFO) << ++evaluated;
  if (evaluated == 0)  // no braces, on purpose
    RAY_LOG(ERROR) << "kept";
  else
    RAY_LOG(ERROR) << "the macro stole an else";
  EXPECT_EQ(evaluated, 0);
  EXPECT_NE(ReadAll(file_).find("kept"), std::string::npos);
}

TEST_F(LoggingTest, RotatesAndKeepsTheBackups) {
  ASSERT_TRUE(StartLogging({.file = file_, .max_bytes = 100, .backups = 2}).ok());
  for (int i = 0; i < 5; ++i) RAY_LOG(INFO) << "line " << i << std::string(60, 'x');
  EXPECT_NE(ReadAll(file_).find("line 4"), std::string::npos);
  EXPECT_NE(ReadAll(file_ + ".1").find("line 3"), std::string::npos);
  EXPECT_NE(ReadAll(file_ + ".2").find("line 2"), std::string::npos);
  EXPECT_EQ(::access((file_ + ".3").c_str(), F_OK), -1);
}

TEST_F(LoggingTest, LimitsComeFromTheEnvironment) {
  setenv("RAY_ROTATION_MAX_BYTES", "4096", 1);
  setenv("RAY_ROTATION_BACKUP_COUNT", "many", 1);
  LogOptions options;
  ReadRotationLimits(&options);
  unsetenv("RAY_ROTATION_MAX_BYTES");
  unsetenv("RAY_ROTATION_BACKUP_COUNT");
  EXPECT_EQ(options.max_bytes, 4096U);
  EXPECT_EQ(options.backups, 5);
}

TEST_F(LoggingTest, LinesOfThreadsDoNotMix) {
  ASSERT_TRUE(StartLogging({.file = file_}).ok());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 200; ++i) RAY_LOG(INFO) << std::string(50, static_cast<char>('a' + t)) << "|";
    });
  }
  for (auto& thread : threads) thread.join();
  std::istringstream lines(ReadAll(file_));
  int count = 0;
  for (std::string line; std::getline(lines, line); ++count) {
    ASSERT_EQ(line.back(), '|');
    ASSERT_EQ(line.find_first_not_of(line[line.size() - 2], line.size() - 51), line.size() - 1) << line;
  }
  EXPECT_EQ(count, 800);
}

TEST_F(LoggingTest, BadFileLeavesTheLogAsItWas) {
  ASSERT_TRUE(StartLogging({.file = file_}).ok());
  EXPECT_EQ(StartLogging({.file = dir_ + "/none/x.log"}).code(), StatusCode::kNotFound);
  RAY_LOG(INFO) << "still here";
  EXPECT_NE(ReadAll(file_).find("still here"), std::string::npos);
}

TEST(LogLevelTest, Parses) {
  EXPECT_EQ(ParseLogLevel("Warning").value(), LogLevel::kWarning);
  EXPECT_EQ(ParseLogLevel("loud").status().code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace ray
