#include "server/http/generation_fields.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "server/json.h"

namespace mobius {
namespace {

using Json = nlohmann::ordered_json;

void read_policy(JsonFields& parent, std::string_view name, PolicyOverride& policy,
                 Status& status) {
  const Json* object = parent.object(name);
  if (object == nullptr) return;
  JsonFields fields(*object, parent.path(name), status);
  if (const auto mode = fields.string("mode")) {
    if (*mode == "full") {
      policy.mode = AttentionMode::full;
    } else if (*mode == "moba") {
      policy.mode = AttentionMode::moba;
    } else {
      fields.fail("mode", "is \"" + brief_text(*mode) + "\"; must be \"full\" or \"moba\"");
    }
  }
  policy.block = fields.integer("block");
  policy.top_k = fields.integer("top_k");
  fields.refuse_unread();
}

void read_extension(JsonFields& parent, GenerationOptions& options, Status& status) {
  const Json* object = parent.object("mobius");
  if (object == nullptr) return;
  JsonFields fields(*object, parent.path("mobius"), status);
  read_policy(fields, "prefill", options.attention.prefill, status);
  read_policy(fields, "decode", options.attention.decode, status);
  options.attention.full_attention_last_layers = fields.integer("full_attention_last_layers");
  options.progress = fields.boolean("progress").value_or(false);
  options.routing = fields.boolean("routing").value_or(false);
  options.priority = fields.integer("priority");
  if (const auto timeout = fields.integer("timeout_ms")) {
    constexpr std::int64_t kMaxTimeout = std::int64_t{7} * 24 * 3600 * 1000;
    if (*timeout < 1 || *timeout > kMaxTimeout) {
      fields.fail("timeout_ms", "is " + std::to_string(*timeout) + "; must be 1 to " +
                                    std::to_string(kMaxTimeout));
    } else {
      options.timeout = std::chrono::milliseconds(*timeout);
      options.deadline = std::chrono::steady_clock::now() + options.timeout;
    }
  }
  fields.refuse_unread();
}

/// The name that OpenAI wants for a schema; it reaches nobody here.
bool is_schema_name(const std::string& name) {
  return !name.empty() && name.size() <= 64 && std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '-';
  });
}

void read_stop(JsonFields& fields, GenerationOptions& options) {
  const Json* stop = fields.any("stop");
  if (stop == nullptr) return;
  if (stop->is_string()) {
    options.stop.push_back(stop->get<std::string>());
    return;
  }
  if (!stop->is_array()) {
    fields.fail_type("stop", *stop, "a string or an array of strings");
    return;
  }
  for (std::size_t i = 0; i < stop->size(); ++i) {
    const Json& item = (*stop)[i];
    if (!item.is_string()) {
      fields.fail_type("stop[" + std::to_string(i) + "]", item, "a string");
      return;
    }
    options.stop.push_back(item.get<std::string>());
  }
}

void read_stop_token_ids(JsonFields& fields, GenerationOptions& options) {
  const Json* ids = fields.array("stop_token_ids");
  if (ids == nullptr) return;
  for (std::size_t i = 0; i < ids->size(); ++i) {
    const auto id = as_int64((*ids)[i]);
    if (!id.has_value()) {
      fields.fail_type("stop_token_ids[" + std::to_string(i) + "]", (*ids)[i], "an integer");
      return;
    }
    options.stop_token_ids.push_back(*id);
  }
}

void read_logit_bias(JsonFields& fields, GenerationOptions& options) {
  const Json* bias = fields.object("logit_bias");
  if (bias == nullptr) return;
  for (const auto& [name, value] : bias->get_ref<const Json::object_t&>()) {
    const std::string field = "logit_bias." + brief_text(name);
    std::int64_t id = 0;
    const char* end = name.data() + name.size();
    const auto [rest, error] = std::from_chars(name.data(), end, id);
    if (error != std::errc() || rest != end) {
      fields.fail(field, "is no token; keys must be token ids");
      return;
    }
    if (!value.is_number()) {
      fields.fail_type(field, value, "a number");
      return;
    }
    options.logit_bias.emplace_back(id, value.get<double>());
  }
}

void read_seed(JsonFields& fields, GenerationOptions& options) {
  const Json* seed = fields.any("seed");
  if (seed == nullptr) return;
  // Negative seeds are legal in this API; their bits count.
  if (seed->is_number_unsigned()) {
    options.seed = seed->get<std::uint64_t>();
  } else if (seed->is_number_integer()) {
    options.seed = static_cast<std::uint64_t>(seed->get<std::int64_t>());
    options.seed_is_negative = true;  // what is not is unsigned to the parser
  } else {
    fields.fail_type("seed", *seed, "an integer of at most 64 bits");
  }
}

}  // namespace

void require_neutral(JsonFields& fields, std::span<const NeutralMember> members) {
  for (const NeutralMember& member : members) {
    const Json* value = fields.any(member.name);
    if (value == nullptr || *value == Json::parse(member.neutral)) continue;
    fields.fail(member.name, "is " + brief(*value) + "; this server supports only " +
                                 std::string(member.neutral));
  }
}

void read_sampling(JsonFields& fields, GenerationOptions& options, Status& status) {
  options.temperature = fields.number("temperature");
  options.top_p = fields.number("top_p");
  options.top_k = fields.integer("top_k");
  if (options.top_k == -1) options.top_k = 0;  // other servers' "all"
  options.min_p = fields.number("min_p");
  options.presence_penalty = fields.number("presence_penalty");
  options.frequency_penalty = fields.number("frequency_penalty");
  options.repetition_penalty = fields.number("repetition_penalty");
  options.ignore_eos = fields.boolean("ignore_eos").value_or(false);
  options.user = fields.string("user").value_or("");
  read_seed(fields, options);
  read_stop(fields, options);
  read_stop_token_ids(fields, options);
  read_logit_bias(fields, options);
  read_extension(fields, options, status);
}

bool read_priority(JsonFields& fields, GenerationOptions& options) {
  const auto priority = fields.integer("priority");
  if (!priority.has_value() || options.priority.has_value()) return false;
  options.priority = priority;
  return true;
}

void read_format_schema(JsonFields& fields, ResponseFormat& format) {
  const auto name = fields.string("name");
  if (!name.has_value()) {
    fields.fail("name", "is missing");
  } else if (!is_schema_name(*name)) {
    fields.fail("name", "is \"" + brief_text(*name) +
                            "\"; must be 1 to 64 letters, digits, underscores and dashes");
  }
  fields.string("description");
  fields.boolean("strict");  // a schema holds, strict or not
  if (const Json* schema = fields.any("schema")) {
    format.schema = schema->dump();
  } else {
    fields.fail("schema", "is missing");
  }
}

const Json* read_stream_options(JsonFields& fields, bool& stream) {
  stream = fields.boolean("stream").value_or(false);
  const Json* object = fields.object("stream_options");
  if (object == nullptr || stream) return object;
  fields.fail("stream_options", "is set; it is allowed only with \"stream\": true");
  return nullptr;
}

}  // namespace mobius
