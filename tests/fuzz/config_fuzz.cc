// The server's configuration file.
#include "server/config/config.h"
#include "server/config/schema.h"
#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  ServerConfig config;
  const auto errors = apply_config_json(config, as_text(data, size), "c.json");
  for (const std::string& error : errors) require_one_line(error);
  if (!errors.empty()) return 0;
  for (const std::string& error : check_config(config)) require_one_line(error);
  // Every value that was taken is one that its key allows.
  for (const ConfigKey& key : config_schema()) {
    if (key.field.index() != 1) continue;
    const std::int64_t value = std::get<1>(key.field)(config);
    require(value >= key.min && value <= key.max, "a value is in its range");
  }
  return 0;
}
