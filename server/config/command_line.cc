#include "server/config/command_line.h"

#include <optional>

#include "server/config/schema.h"
#include "server/json.h"

namespace mobius {
namespace {

bool is_boolean_key(std::string_view name) {
  const ConfigKey* key = find_config_key(name);
  return key != nullptr && key->field.index() == 0;
}

}  // namespace

CommandLine parse_command_line(std::span<const char* const> arguments) {
  CommandLine result;
  const std::string_view command = arguments.empty() ? "" : arguments.front();
  const bool named = command == "serve" || command == "check";
  if (command == "check") result.action = CommandAction::check;
  for (std::size_t i = named ? 1 : 0; i < arguments.size(); ++i) {
    const std::string_view argument = arguments[i];
    if (named && i == 1 && !argument.empty() && !argument.starts_with('-')) {
      result.overrides.push_back({"model.path", std::string(argument), {}});
      continue;
    }
    if (argument == "-h" || argument == "--help") {
      result.action = CommandAction::help;
      continue;
    }
    if (argument == "--version") {
      result.action = CommandAction::version;
      continue;
    }
    if (argument == "--check") {
      result.action = CommandAction::check;
      continue;
    }
    if (argument == "--print-config-docs") {
      result.action = CommandAction::print_config_docs;
      continue;
    }
    if (!argument.starts_with("--") || argument.size() == 2) {
      result.errors.push_back(
          brief_text(argument) +
          ": unexpected argument; a command comes first, options are --config FILE and "
          "--KEY VALUE, see --help");
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string_view name =
        argument.substr(2, equals == std::string_view::npos ? std::string_view::npos : equals - 2);
    std::optional<std::string> value;
    if (equals != std::string_view::npos) {
      value = argument.substr(equals + 1);
    } else if (i + 1 < arguments.size() &&
               !(is_boolean_key(name) && std::string_view(arguments[i + 1]).starts_with("--"))) {
      value = arguments[++i];
    } else if (is_boolean_key(name)) {
      value = "true";
    }
    if (!value.has_value()) {
      result.errors.push_back(std::string(argument) + ": has no value");
    } else if (name == "config") {
      result.config_file = *std::move(value);
    } else if (name == "probe") {
      result.action = CommandAction::probe;
      result.probe_path = *std::move(value);
    } else {
      result.overrides.push_back({std::string(name), *std::move(value), {}});
    }
  }
  return result;
}

std::string help_text() {
  return "Mobius: a long-context inference server.\n"
         "\n"
         "usage: mobius [serve] [MODEL] [--config FILE] [--KEY VALUE]...\n"
         "       mobius check [MODEL] [--config FILE] [--KEY VALUE]...\n"
         "       mobius chat|bench|tokenize ...\n"
         "\n"
         "  serve                answer HTTP and gRPC; what is done without a command\n"
         "  check                say what is wrong with configuration and model, or print the\n"
         "                       memory plan; exit with 0 or 1\n"
         "  chat                 talk to a server in the terminal\n"
         "  bench                put a load on a server, measure latency and throughput\n"
         "  tokenize             count the tokens of a text\n"
         "\n"
         "MODEL is a checkpoint's folder, the same as --model.path. chat, bench and tokenize have\n"
         "a --help of their own; chat and bench take any server of OpenAI's API.\n"
         "\n"
         "  --config FILE        JSON configuration; see configs/\n"
         "  --probe PATH         ask the running server of this configuration, e.g. for /ready;\n"
         "                       exit with 0 if it answers 200, else 1\n"
         "  --check              the same as the command check\n"
         "  --print-config-docs  the table of keys as Markdown\n"
         "  --version            print the version\n"
         "  -h, --help           this text\n"
         "\n"
         "Every key of the file is an option too, and an environment variable: MOBIUS_HTTP_PORT\n"
         "for --http.port, MOBIUS_CONFIG for --config. An option wins over the variable, and that\n"
         "over the file. Empty variables count as not set, unknown ones are ignored.\n"
         "\n" +
         config_docs_terminal();
}

}  // namespace mobius
