#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "server/chat_template.h"
#include "server/cli/client_options.h"
#include "server/cli/commands.h"
#include "server/cli/text_file.h"

namespace mobius {
namespace {

/// A token's bytes as a JSON string; what is no UTF-8 of its own is shown as U+FFFD.
std::string quoted(std::string_view bytes) {
  return nlohmann::json(bytes).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<std::int32_t> read_ids(const std::string& text, std::int32_t vocab_size) {
  std::vector<std::int32_t> ids;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) {
    std::int32_t id = -1;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), id);
    if (error != std::errc() || end != word.data() + word.size() || id < 0 || id >= vocab_size) {
      throw std::runtime_error("\"" + word + "\" is no token; ids go from 0 to " +
                               std::to_string(vocab_size - 1));
    }
    ids.push_back(id);
  }
  return ids;
}

std::vector<std::int32_t> as_chat(const Tokenizer& tokenizer, std::string text) {
  ChatMessage message;
  message.content = std::move(text);
  auto tokens = render_chat(tokenizer, {&message, 1}, {}, {});
  if (!tokens.ok()) throw std::runtime_error(tokens.status().message());
  return std::move(tokens).value();
}

}  // namespace

int tokenize_command(std::span<const char* const> arguments) {
  CLI::App app("Counts the tokens of a text with a model's tokenizer. No server is needed.");
  app.name("mobius tokenize");
  std::string folder;
  std::string file;
  bool ids = false;
  bool pieces = false;
  bool chat = false;
  bool decode = false;
  app.add_option("FOLDER", folder, "Folder with tokenizer.json, or tokenizer.model")->required();
  app.add_option("FILE", file, "The text; default, or -: standard input");
  auto* const print_ids =
      app.add_flag("--ids", ids, "Print the tokens' ids instead of their number");
  app.add_flag("--pieces", pieces, "Print a line for each token: its id, a tab, its text")
      ->excludes(print_ids);
  auto* const render = app.add_flag("--chat", chat,
                                    "The text is a user's message to a Llama 3.1: "
                                    "take the prompt that it becomes");
  app.add_flag("--decode", decode, "The other way: ids, between blanks, to text")
      ->excludes(print_ids)
      ->excludes(render);
  if (const auto code = parse_arguments(app, arguments)) return *code;

  const auto tokenizer = Tokenizer::load(folder);
  std::string text = read_text(file);
  if (decode) {
    std::cout << tokenizer->decode(read_ids(text, tokenizer->vocab_size()), true);
    return 0;
  }
  std::vector<std::int32_t> tokens;
  if (chat) {
    tokens = as_chat(*tokenizer, std::move(text));
  } else {
    tokenizer->encode(text, tokens);
  }
  if (ids) {
    for (std::size_t i = 0; i < tokens.size(); ++i) std::cout << (i > 0 ? " " : "") << tokens[i];
    std::cout << '\n';
  } else if (pieces) {
    for (const std::int32_t token : tokens) {
      std::cout << token << '\t' << quoted(tokenizer->bytes(token)) << '\n';
    }
  } else {
    std::cout << tokens.size() << '\n';
  }
  return 0;
}

}  // namespace mobius
