#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "server/config/config.h"

namespace mobius {

enum class CommandAction { serve, check, probe, help, version, print_config_docs };

/// What the command line asks for.
struct CommandLine {
  CommandAction action = CommandAction::serve;
  std::string config_file;                ///< empty: none was named
  std::string probe_path;                 ///< what to ask a running server for
  std::vector<ConfigOverride> overrides;  ///< every `--section.key value`, in order
  std::vector<std::string> errors;        ///< one line each
};

/// Parses the arguments after the program's name: at first, if any, the command `serve` or `check`
/// and behind it, if any, the model's folder, an override of model.path. Both `--key value` and
/// `--key=value` are taken; a boolean key may stand alone. Keys are checked by apply_overrides, not
/// here.
CommandLine parse_command_line(std::span<const char* const> arguments);

/// The text of --help.
std::string help_text();

}  // namespace mobius
