#include "server/program.h"

#include <chrono>
#include <exception>
#include <iostream>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/check.h"
#include "server/cli/commands.h"
#include "server/config/command_line.h"
#include "server/config/config.h"
#include "server/config/environment.h"
#include "server/config/schema.h"
#include "server/config/sources.h"
#include "server/http/http_probe.h"

namespace mobius {
namespace {

/// A health check that takes longer says that the server is not well.
constexpr std::chrono::seconds kProbeLimit{3};

int report(const std::vector<std::string>& errors) {
  for (const std::string& error : errors) std::cerr << "mobius: " << error << '\n';
  return errors.empty() ? 0 : 1;
}

int probe(const ServerConfig& config, const std::string& path) {
  const std::string problem = probe_http(config.http, config.tls, path, kProbeLimit);
  if (!problem.empty()) std::cerr << "mobius: " << problem << '\n';
  return problem.empty() ? 0 : 1;
}

/// A client's command, or one that needs no server: these have command lines of their own.
std::optional<int> run_client(std::span<const char* const> arguments) {
  const std::string_view command = arguments.empty() ? "" : arguments.front();
  if (command == "chat") return chat_command(arguments);
  if (command == "bench") return bench_command(arguments);
  if (command == "tokenize") return tokenize_command(arguments);
  return {};
}

int run(std::span<const char* const> arguments, const WrapRunner& wrap) {
  if (const auto code = run_client(arguments)) return *code;
  const CommandLine command = parse_command_line(arguments);
  if (!command.errors.empty()) return report(command.errors);
  switch (command.action) {
    case CommandAction::help: std::cout << help_text(); return 0;
    case CommandAction::version: std::cout << "mobius " MOBIUS_VERSION "\n"; return 0;
    case CommandAction::print_config_docs: std::cout << config_docs_markdown(); return 0;
    case CommandAction::check:
    case CommandAction::probe:
    case CommandAction::serve: break;
  }
  const ConfigSources sources{
      command.config_file.empty() ? environment_config_file() : command.config_file,
      environment_overrides(), command.overrides};
  ServerConfig config;
  std::vector<std::string> errors = read_config(sources, config);
  // A probe asks a server that has a valid configuration of its own.
  if (errors.empty() && command.action != CommandAction::probe) errors = check_config(config);
  if (!errors.empty()) return report(errors);
  switch (command.action) {
    case CommandAction::check: return report(check_setup(config));
    case CommandAction::probe: return probe(config, command.probe_path);
    default: return serve(config, sources, wrap);
  }
}

}  // namespace

int run_program(int argc, char** argv, const WrapRunner& wrap) {
  try {
    const std::vector<const char*> arguments(argv + 1, argv + argc);
    return run(arguments, wrap);
  } catch (const std::exception& error) {
    std::cerr << "mobius: " << error.what() << '\n';
    return 1;
  }
}

}  // namespace mobius
