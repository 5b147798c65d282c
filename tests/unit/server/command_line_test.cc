#include "server/config/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace mobius {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

CommandLine parse(std::vector<const char*> arguments) {
  return parse_command_line(arguments);
}

TEST(CommandLine, TakesBothSpellings) {
  const CommandLine command = parse({"--config", "a.json", "--http.port", "1", "--model.name=x=y"});
  EXPECT_THAT(command.errors, IsEmpty());
  EXPECT_EQ(command.action, CommandAction::serve);
  EXPECT_EQ(command.config_file, "a.json");
  ASSERT_EQ(command.overrides.size(), 2U);
  EXPECT_EQ(command.overrides[0].key, "http.port");
  EXPECT_EQ(command.overrides[0].value, "1");
  EXPECT_EQ(command.overrides[1].value, "x=y");
}

TEST(CommandLine, NegativeAndEmptyValuesAreValues) {
  const CommandLine command = parse({"--http.port", "-1", "--log.file="});
  EXPECT_THAT(command.errors, IsEmpty());
  EXPECT_EQ(command.overrides[0].value, "-1");
  EXPECT_EQ(command.overrides[1].value, "");
}

TEST(CommandLine, BooleanMayStandAlone) {
  const CommandLine command =
      parse({"--server.allow_insecure_remote", "--check", "--server.allow_insecure_remote", "false",
             "--server.allow_insecure_remote"});
  EXPECT_THAT(command.errors, IsEmpty());
  EXPECT_EQ(command.action, CommandAction::check);
  ASSERT_EQ(command.overrides.size(), 3U);
  EXPECT_EQ(command.overrides[0].value, "true");
  EXPECT_EQ(command.overrides[1].value, "false");
  EXPECT_EQ(command.overrides[2].value, "true");
}

TEST(CommandLine, Actions) {
  EXPECT_EQ(parse({"--help"}).action, CommandAction::help);
  EXPECT_EQ(parse({"-h"}).action, CommandAction::help);
  EXPECT_EQ(parse({"--version"}).action, CommandAction::version);
  EXPECT_EQ(parse({"--print-config-docs"}).action, CommandAction::print_config_docs);
}

TEST(CommandLine, CommandAndModelComeFirst) {
  const CommandLine serve = parse({"serve", "--config", "a.json"});
  EXPECT_THAT(serve.errors, IsEmpty());
  EXPECT_EQ(serve.action, CommandAction::serve);
  EXPECT_EQ(serve.config_file, "a.json");
  EXPECT_THAT(serve.overrides, IsEmpty());
  const CommandLine check = parse({"check", "models/tiny", "--http.port", "1"});
  EXPECT_THAT(check.errors, IsEmpty());
  EXPECT_EQ(check.action, CommandAction::check);
  ASSERT_EQ(check.overrides.size(), 2U);
  EXPECT_EQ(check.overrides[0].key, "model.path");
  EXPECT_EQ(check.overrides[0].value, "models/tiny");
}

TEST(CommandLine, Errors) {
  EXPECT_THAT(parse({"--http.port"}).errors, ElementsAre("--http.port: has no value"));
  EXPECT_THAT(parse({"--config"}).errors, ElementsAre("--config: has no value"));
  EXPECT_THAT(parse({"sevre"}).errors, ElementsAre(StartsWith("sevre: unexpected argument")));
  EXPECT_THAT(parse({"--http.port", "1", "serve"}).errors,
              ElementsAre(StartsWith("serve: unexpected argument")));
  EXPECT_THAT(parse({"serve", "a", "b"}).errors, ElementsAre(StartsWith("b: unexpected argument")));
  EXPECT_THAT(parse({"--"}).errors, ElementsAre(StartsWith("--: unexpected argument")));
  EXPECT_THAT(parse({"-x"}).errors, ElementsAre(StartsWith("-x: unexpected argument")));
}

}  // namespace
}  // namespace mobius
