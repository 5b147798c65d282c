#include "server/config/environment.h"

#include <cstdlib>

#include "server/config/schema.h"

namespace mobius {
namespace {

std::string variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? std::string() : std::string(value);
}

}  // namespace

std::string environment_name(std::string_view key) {
  std::string name = "MOBIUS_";
  for (const char c : key) {
    const bool is_lower = c >= 'a' && c <= 'z';
    name += c == '.' ? '_' : is_lower ? static_cast<char>(c - 'a' + 'A') : c;
  }
  return name;
}

std::string environment_config_file() {
  return variable(environment_name("config"));
}

std::vector<ConfigOverride> environment_overrides() {
  std::vector<ConfigOverride> overrides;
  for (const ConfigKey& key : config_schema()) {
    const std::string name = environment_name(key.key);
    std::string value = variable(name);
    if (!value.empty()) overrides.push_back({std::string(key.key), std::move(value), name});
  }
  return overrides;
}

}  // namespace mobius
