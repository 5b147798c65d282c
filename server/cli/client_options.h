#pragma once

#include <CLI/CLI.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "server/cli/api_client.h"

namespace mobius {

/// What every command says that talks to a server.
struct ClientOptions {
  std::string url;  ///< default: MOBIUS_URL, OPENAI_BASE_URL, or this machine's port 8000
  std::string model;
  std::string ca;
  std::int64_t silence_seconds = 0;

  /// Adds them to a command line. `this` must outlive `app`'s parsing.
  void add_to(CLI::App& app);
  /// With the key of MOBIUS_API_KEY, or else OPENAI_API_KEY: never an argument, which other users
  /// of the machine could read. Throws std::runtime_error.
  ApiOptions api() const;
};

/// An option's number must be one from `low` to `high`; CLI::Range takes "nan" for one.
CLI::Validator number_in(double low, double high);

/// Parses; an exit code where the command ends here: after --help, or with a message on standard
/// error.
std::optional<int> parse_arguments(CLI::App& app, std::span<const char* const> arguments);

/// What a server says about the model to ask.
struct ModelEntry {
  std::string id;
  bool mobius = false;  ///< the server is one of ours, and knows our extensions
};

/// The model of that name, or the server's first where `wanted` is empty. Throws std::runtime_error
/// when the server cannot be asked. A server that lists models and not this one gets to answer for
/// itself.
boost::asio::awaitable<ModelEntry> find_model(ApiClient& client, std::string wanted);

}  // namespace mobius
