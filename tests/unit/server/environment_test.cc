#include "server/config/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "server/config/schema.h"

namespace mobius {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

/// Sets a variable for one test.
class Variable {
 public:
  Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Variable() { unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

 private:
  const char* name_;
};

TEST(Environment, EveryKeyHasAVariableOfItsOwn) {
  EXPECT_EQ(environment_name("http.max_body_bytes"), "MOBIUS_HTTP_MAX_BODY_BYTES");
  std::set<std::string> names = {environment_name("config")};
  for (const ConfigKey& key : config_schema()) {
    EXPECT_TRUE(names.insert(environment_name(key.key)).second) << key.key;
  }
}

TEST(Environment, SetsKeysAndNamesTheVariableInErrors) {
  EXPECT_THAT(environment_overrides(), IsEmpty());
  EXPECT_EQ(environment_config_file(), "");
  const Variable file("MOBIUS_CONFIG", "a.json");
  const Variable port("MOBIUS_HTTP_PORT", "81");
  const Variable mode("MOBIUS_ATTENTION_PREFILL_MODE", "moba");
  const Variable bad("MOBIUS_GRPC_PORT", "x");
  const Variable empty("MOBIUS_LOG_LEVEL", "");
  // What Kubernetes sets for a service named "mobius".
  const Variable foreign("MOBIUS_PORT", "tcp://10.0.0.1:8000");
  EXPECT_EQ(environment_config_file(), "a.json");
  ServerConfig config;
  EXPECT_THAT(apply_overrides(config, environment_overrides()),
              ElementsAre("MOBIUS_GRPC_PORT: is \"x\"; must be an integer, 0 to 65535"));
  EXPECT_EQ(config.http.port, 81);
  EXPECT_EQ(config.attention.prefill.mode, "moba");
  EXPECT_EQ(config.log.level, "info");
}

}  // namespace
}  // namespace mobius
