#include "server/config/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace mobius {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Sources : public testing::Test {
 protected:
  Sources() {
    sources_.file = file_.string();
    write(R"({"model": {"path": "m"}})");
  }
  ~Sources() override { std::filesystem::remove(file_); }

  void write(const std::string& text) const { std::ofstream(file_) << text; }

  ServerConfig running() const {
    ServerConfig config;
    EXPECT_THAT(read_config(sources_, config), IsEmpty());
    return config;
  }

  const std::filesystem::path file_ =
      std::filesystem::path(testing::TempDir()) /
      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".json");
  ConfigSources sources_;
};

TEST_F(Sources, TheCommandLineWinsOverTheEnvironmentAndThatOverTheFile) {
  write(R"({"model": {"path": "m", "name": "file"}, "http": {"port": 1}, "grpc": {"port": 2}})");
  sources_.environment = {{"http.port", "3", "MOBIUS_HTTP_PORT"},
                          {"grpc.port", "4", "MOBIUS_GRPC_PORT"}};
  sources_.command_line = {{"grpc.port", "5"}};
  const ServerConfig config = running();
  EXPECT_EQ(config.model.name, "file");
  EXPECT_EQ(config.http.port, 3);
  EXPECT_EQ(config.grpc.port, 5);
}

TEST_F(Sources, ErrorsOfAllSourcesAreReported) {
  write(R"({"http": {"port": -1}})");
  sources_.environment = {{"grpc.port", "x", "MOBIUS_GRPC_PORT"}};
  sources_.command_line = {{"no.such", "5"}};
  ServerConfig config;
  EXPECT_THAT(
      read_config(sources_, config),
      ElementsAre(HasSubstr("http.port"), HasSubstr("MOBIUS_GRPC_PORT"), HasSubstr("no.such")));
}

TEST_F(Sources, AReloadTakesWhatMayChangeAndNamesTheRest) {
  const ServerConfig before = running();
  write(R"({"model": {"path": "other"}, "log": {"level": "warn"}, "http": {"port": 1},
            "security": {"requests_per_minute": 7}, "server": {"drain_seconds": 3}})");
  const ConfigReload reload = reload_config(before, sources_);
  EXPECT_THAT(reload.errors, IsEmpty());
  EXPECT_THAT(reload.changed,
              ElementsAre("security.requests_per_minute", "log.level", "server.drain_seconds"));
  EXPECT_THAT(reload.kept, ElementsAre("model.path", "http.port"));
  EXPECT_EQ(reload.config.log.level, "warn");
  EXPECT_EQ(reload.config.security.requests_per_minute, 7);
  EXPECT_EQ(reload.config.model.path, "m");
  EXPECT_EQ(reload.config.http.port, before.http.port);
}

TEST_F(Sources, NothingChangesWhereNothingDid) {
  const ConfigReload reload = reload_config(running(), sources_);
  EXPECT_THAT(reload.errors, IsEmpty());
  EXPECT_THAT(reload.changed, IsEmpty());
  EXPECT_THAT(reload.kept, IsEmpty());
}

TEST_F(Sources, AKeyThatLeavesTheFileHasItsDefaultAgain) {
  write(R"({"model": {"path": "m"}, "log": {"level": "error"}})");
  const ServerConfig before = running();
  write(R"({"model": {"path": "m"}})");
  const ConfigReload reload = reload_config(before, sources_);
  EXPECT_THAT(reload.changed, ElementsAre("log.level"));
  EXPECT_EQ(reload.config.log.level, "info");
}

TEST_F(Sources, AfterAnErrorEverythingStays) {
  const ServerConfig before = running();
  for (const char* text :
       {"{", R"({"model": {"path": "m"}, "log": {"level": "warn", "format": "xml"}})",
        R"({"log": {"level": "warn"}})"}) {
    write(text);
    const ConfigReload reload = reload_config(before, sources_);
    EXPECT_EQ(reload.errors.size(), 1U) << text;
    EXPECT_THAT(reload.changed, IsEmpty());
    EXPECT_EQ(reload.config.log.level, "info");
  }
  std::filesystem::remove(file_);
  EXPECT_THAT(reload_config(before, sources_).errors, ElementsAre(HasSubstr("cannot be read")));
}

TEST_F(Sources, ALinkToItselfIsAnError) {
  const ServerConfig before = running();
  std::filesystem::remove(file_);
  std::filesystem::create_symlink(file_, file_);
  EXPECT_THAT(reload_config(before, sources_).errors,
              ElementsAre(file_.string() + ": cannot be read: Too many levels of symbolic links"));
}

TEST_F(Sources, APipeInTheFilesPlaceIsNotWaitedFor) {
  const ServerConfig before = running();
  std::filesystem::remove(file_);
  ASSERT_EQ(mkfifo(file_.c_str(), 0600), 0);
  EXPECT_THAT(reload_config(before, sources_).errors,
              ElementsAre(file_.string() + ": cannot be read again: is not a regular file"));
}

TEST_F(Sources, TheCommandLineStillWins) {
  sources_.command_line = {{"log.level", "debug"}};
  const ServerConfig before = running();
  write(R"({"model": {"path": "m"}, "log": {"level": "warn"}})");
  const ConfigReload reload = reload_config(before, sources_);
  EXPECT_THAT(reload.changed, IsEmpty());
  EXPECT_EQ(reload.config.log.level, "debug");
}

}  // namespace
}  // namespace mobius
