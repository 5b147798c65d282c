#include "server/cli/client_options.h"

#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace mobius {
namespace {

std::string environment(std::initializer_list<const char*> names) {
  for (const char* name : names) {
    const char* value = std::getenv(name);
    if (value != nullptr && *value != '\0') return value;
  }
  return {};
}

}  // namespace

void ClientOptions::add_to(CLI::App& app) {
  url = environment({"MOBIUS_URL", "OPENAI_BASE_URL"});
  if (url.empty()) url = "http://127.0.0.1:8000";
  app.add_option("--url", url, "The server; also MOBIUS_URL or OPENAI_BASE_URL")
      ->capture_default_str();
  app.add_option("--model", model, "Name of the model; default: the server's first");
  app.add_option("--ca", ca, "PEM file of authorities to trust beside the system's");
  app.add_option("--timeout", silence_seconds,
                 "Seconds of silence after which a request fails; 0: none")
      ->check(CLI::Range(0, 86400))
      ->capture_default_str();
  app.footer("An API key is read from MOBIUS_API_KEY, or else OPENAI_API_KEY.");
}

ApiOptions ClientOptions::api() const {
  return {parse_server_url(url), environment({"MOBIUS_API_KEY", "OPENAI_API_KEY"}), ca,
          std::chrono::seconds(silence_seconds)};
}

CLI::Validator number_in(double low, double high) {
  const CLI::Range range(low, high);
  const auto check = [range](std::string& text) {
    if (std::isnan(std::strtod(text.c_str(), nullptr))) return text + " is not a number";
    return range(text);
  };
  return {check, range.get_description(), "NUMBER"};
}

std::optional<int> parse_arguments(CLI::App& app, std::span<const char* const> arguments) {
  try {
    app.parse(static_cast<int>(arguments.size()), arguments.data());
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 1;
  }
  return {};
}

boost::asio::awaitable<ModelEntry> find_model(ApiClient& client, std::string wanted) {
  const ApiReply reply = co_await client.send("/v1/models", {});
  if (!reply.error.empty()) throw std::runtime_error(reply.error);
  const auto json = nlohmann::json::parse(reply.body, nullptr, false);
  const auto models = json.is_object() ? json.find("data") : json.end();
  if (!json.is_object() || models == json.end() || !models->is_array()) {
    throw std::runtime_error("/v1/models is not answered as OpenAI's API does");
  }
  ModelEntry found;
  found.id = wanted;
  for (const auto& model : *models) {
    if (!model.is_object() || !model.contains("id") || !model["id"].is_string()) continue;
    const auto id = model["id"].get<std::string>();
    if (!wanted.empty() && id != wanted) continue;
    found.id = id;
    found.mobius = model.contains("owned_by") && model["owned_by"] == "mobius";
    break;
  }
  if (found.id.empty()) throw std::runtime_error("the server lists no model; name one: --model");
  co_return found;
}

}  // namespace mobius
