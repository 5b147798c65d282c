#include "models/llama_config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "models/json_file.h"

namespace mobius {
namespace {

using nlohmann::json;

constexpr std::uintmax_t kMaxConfigBytes = 1 << 20;
constexpr std::int64_t kMaxInt = std::numeric_limits<std::int32_t>::max();

/// Typed access to the keys of one JSON object; every complaint names file and key. A key that is
/// null counts as absent, as it does for Hugging Face.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  [[noreturn]] void fail(const char* key, const std::string& expected) const {
    const json* value = find(key);
    throw std::runtime_error(where_ + ": " + key + " is " +
                             (value == nullptr ? "missing" : shown(*value)) + ", expected " +
                             expected);
  }

  const json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  std::int32_t integer(const char* key, std::int64_t low, std::int64_t high) const {
    const json* value = find(key);
    if (value == nullptr || !in_range(*value, low, high)) {
      fail(key, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
    return value->get<std::int32_t>();
  }

  std::int32_t integer(const char* key, std::int64_t low, std::int64_t high,
                       std::int32_t otherwise) const {
    return find(key) == nullptr ? otherwise : integer(key, low, high);
  }

  /// A number in [low, high].
  float number(const char* key, double low, double high) const {
    const json* value = find(key);
    const double number = value != nullptr && value->is_number() ? value->get<double>() : NAN;
    if (!(number >= low && number <= high)) {
      fail(key, "a number from " + shown(low) + " to " + shown(high));
    }
    return static_cast<float>(number);
  }

  float number(const char* key, double low, double high, float otherwise) const {
    return find(key) == nullptr ? otherwise : number(key, low, high);
  }

  bool boolean(const char* key, bool otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail(key, "true or false");
    return value->get<bool>();
  }

  std::optional<std::string> text(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_string()) fail(key, "a string");
    return value->get<std::string>();
  }

  std::optional<Fields> object(const char* key) const {
    const json* value = find(key);
    if (value == nullptr) return std::nullopt;
    if (!value->is_object()) fail(key, "an object");
    return Fields(*value, where_ + ": " + key);
  }

  /// One token id or a list of them; `otherwise` where absent.
  std::vector<std::int32_t> tokens(const char* key, std::int32_t vocab_size,
                                   std::vector<std::int32_t> otherwise) const {
    const json* value = find(key);
    if (value == nullptr) return otherwise;
    const json list = value->is_array() ? *value : json::array({*value});
    std::vector<std::int32_t> ids;
    for (const json& id : list) {
      if (!in_range(id, 0, std::int64_t{vocab_size} - 1)) {
        fail(key, "token ids from 0 to " + std::to_string(vocab_size - 1));
      }
      ids.push_back(id.get<std::int32_t>());
    }
    return ids;
  }

 private:
  static bool in_range(const json& value, std::int64_t low, std::int64_t high) {
    if (value.is_number_unsigned()) {  // may exceed the signed range
      const auto number = value.get<std::uint64_t>();
      return number <= static_cast<std::uint64_t>(high) && static_cast<std::int64_t>(number) >= low;
    }
    if (!value.is_number_integer()) return false;
    const auto number = value.get<std::int64_t>();
    return number >= low && number <= high;
  }

  const json& object_;
  std::string where_;
};

void check_architecture(const Fields& fields) {
  const std::optional<std::string> type = fields.text("model_type");
  if (type != "llama") fields.fail("model_type", "\"llama\"");
  if (const json* architectures = fields.find("architectures")) {
    if (!architectures->is_array() || std::find(architectures->begin(), architectures->end(),
                                                json("LlamaForCausalLM")) == architectures->end()) {
      fields.fail("architectures", "a list with \"LlamaForCausalLM\"");
    }
  }
  // What would change the computation, and Mobius does not do.
  if (fields.text("hidden_act").value_or("silu") != "silu") fields.fail("hidden_act", "\"silu\"");
  if (fields.boolean("attention_bias", false)) fields.fail("attention_bias", "false");
  if (fields.boolean("mlp_bias", false)) fields.fail("mlp_bias", "false");
  if (fields.find("quantization_config") != nullptr) {
    fields.fail("quantization_config", "none (weights of type bfloat16, float16 or float32)");
  }
}

/// `rope_scaling`, or the newer `rope_parameters` that also holds rope_theta.
std::optional<RopeScaling> read_rope_scaling(const Fields& fields) {
  const char* type_key = fields.find("rope_type") == nullptr && fields.find("type") != nullptr
                             ? "type"  // the name it had in older files
                             : "rope_type";
  const std::string type = fields.text(type_key).value_or("default");
  if (type == "default") return std::nullopt;
  if (type != "llama3") fields.fail(type_key, "\"llama3\" or \"default\"");
  RopeScaling scaling;
  scaling.factor = fields.number("factor", 1.0, 1e6);
  scaling.low_freq_factor = fields.number("low_freq_factor", 1e-3, 1e6);
  scaling.high_freq_factor = fields.number("high_freq_factor", 1e-3, 1e6);
  if (scaling.high_freq_factor <= scaling.low_freq_factor) {
    fields.fail("high_freq_factor", "more than low_freq_factor");
  }
  scaling.original_max_position_embeddings =
      fields.integer("original_max_position_embeddings", 1, kMaxInt);
  return scaling;
}

DType read_dtype(const Fields& fields) {
  const char* key = fields.find("torch_dtype") != nullptr ? "torch_dtype" : "dtype";
  const std::string name = fields.text(key).value_or("bfloat16");
  if (name == "bfloat16") return DType::bf16;
  if (name == "float16") return DType::f16;
  if (name == "float32") return DType::f32;
  fields.fail(key, "\"bfloat16\", \"float16\" or \"float32\"");
}

void read_attention_shape(const Fields& fields, LlamaConfig& config) {
  config.num_heads = fields.integer("num_attention_heads", 1, 1024);
  config.num_kv_heads =
      fields.integer("num_key_value_heads", 1, config.num_heads, config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    fields.fail("num_key_value_heads",
                "a divisor of num_attention_heads (" + std::to_string(config.num_heads) + ")");
  }
  if (fields.find("head_dim") == nullptr && config.hidden_size % config.num_heads != 0) {
    fields.fail("hidden_size", "a multiple of num_attention_heads (" +
                                   std::to_string(config.num_heads) + ") or an explicit head_dim");
  }
  config.head_dim = fields.integer("head_dim", 2, 1024, config.hidden_size / config.num_heads);
  if (config.head_dim % 2 != 0) {
    fields.fail(fields.find("head_dim") == nullptr ? "hidden_size" : "head_dim",
                "an even head_dim (it is " + std::to_string(config.head_dim) + ")");
  }
}

}  // namespace

LlamaConfig load_llama_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  const json document = read_json_file(path, kMaxConfigBytes);
  const Fields fields(document, path.string());
  check_architecture(fields);

  LlamaConfig config;
  config.hidden_size = fields.integer("hidden_size", 1, 1 << 17);
  config.intermediate_size = fields.integer("intermediate_size", 1, 1 << 20);
  config.num_layers = fields.integer("num_hidden_layers", 1, 1024);
  read_attention_shape(fields, config);
  config.vocab_size = fields.integer("vocab_size", 1, 1 << 24);
  config.max_position_embeddings = fields.integer("max_position_embeddings", 1, 1 << 30);
  config.rms_norm_eps = fields.number("rms_norm_eps", 1e-12, 1.0);
  config.rope_theta = fields.number("rope_theta", 1.0, 1e12, config.rope_theta);
  if (const auto scaling = fields.object("rope_scaling")) {
    config.rope_scaling = read_rope_scaling(*scaling);
  }
  if (const auto rope = fields.object("rope_parameters")) {
    config.rope_theta = rope->number("rope_theta", 1.0, 1e12, config.rope_theta);
    config.rope_scaling = read_rope_scaling(*rope);
  }
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  config.dtype = read_dtype(fields);
  config.bos_token = fields.integer("bos_token_id", 0, config.vocab_size - 1, -1);
  config.eos_tokens = fields.tokens("eos_token_id", config.vocab_size, {});

  const std::filesystem::path generation_path = folder / "generation_config.json";
  if (std::filesystem::exists(generation_path)) {
    const json generation = read_json_file(generation_path, kMaxConfigBytes);
    config.eos_tokens = Fields(generation, generation_path.string())
                            .tokens("eos_token_id", config.vocab_size, config.eos_tokens);
  }
  return config;
}

std::vector<float> rope_inverse_frequencies(const LlamaConfig& config) {
  // In float, operation by operation as transformers does it: at position 100,000 a difference in
  // the last bit of a frequency already turns the pair by a hundredth of a radian.
  constexpr float kTwoPi = 6.28318530717958647692F;
  std::vector<float> frequencies(static_cast<std::size_t>(config.head_dim / 2));
  for (std::size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.head_dim);
    const float frequency = 1.0F / std::pow(config.rope_theta, exponent);
    frequencies[i] = frequency;
    if (!config.rope_scaling) continue;
    const RopeScaling& scaling = *config.rope_scaling;
    const auto original = static_cast<float>(scaling.original_max_position_embeddings);
    const float wavelength = kTwoPi / frequency;
    if (wavelength > original / scaling.low_freq_factor) {
      frequencies[i] = frequency / scaling.factor;
    } else if (wavelength >= original / scaling.high_freq_factor) {
      const float smooth = (original / wavelength - scaling.low_freq_factor) /
                           (scaling.high_freq_factor - scaling.low_freq_factor);
      frequencies[i] = (1.0F - smooth) * frequency / scaling.factor + smooth * frequency;
    }
  }
  return frequencies;
}

}  // namespace mobius
