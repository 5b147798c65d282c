// A checkpoint's config.json.
#include <cmath>
#include <stdexcept>

#include "models/llama_config.h"
#include "tests/fuzz/target.h"
#include "tests/scratch_folder.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  static const ScratchFolder folder;
  folder.write("config.json", as_text(data, size));
  try {
    const LlamaConfig config = load_llama_config(folder.path());
    require(config.num_layers > 0 && config.num_heads > 0 && config.num_kv_heads > 0,
            "counts are positive");
    require(config.num_heads % config.num_kv_heads == 0, "query heads are shared out evenly");
    require(config.head_dim > 0 && config.head_dim % 2 == 0, "RoPE needs pairs");
    for (const float frequency : rope_inverse_frequencies(config)) {
      require(std::isfinite(frequency), "frequencies are finite");
    }
  } catch (const std::runtime_error& error) {
    require_one_line(error.what());
  }
  return 0;
}
