#include "server/check.h"

#include <exception>
#include <filesystem>
#include <functional>
#include <iostream>
#include <optional>
#include <stdexcept>

#include "engine/tokenizer/tokenizer.h"
#include "server/chat_template.h"
#include "server/model_setup.h"
#include "server/security/certificates.h"
#include "server/security/key_store.h"

namespace mobius {
namespace {

/// The tokenizer alone, and that it and the model speak of the same tokens.
void check_tokenizer(const std::filesystem::path& folder) {
  const auto tokenizer = Tokenizer::load(folder);
  ChatMessage message;
  message.content = "Hello";
  const auto chat = render_chat(*tokenizer, {&message, 1}, {}, {});
  if (!chat.ok()) {
    throw std::runtime_error(folder.string() + ": no chat is possible: " + chat.status().message());
  }
  const LlamaConfig model = load_llama_config(folder);
  if (tokenizer->vocab_size() > model.vocab_size) {
    throw std::runtime_error(folder.string() + ": the tokenizer has " +
                             std::to_string(tokenizer->vocab_size()) + " tokens, the model only " +
                             std::to_string(model.vocab_size) + " (vocab_size)");
  }
}

}  // namespace

std::vector<std::string> check_setup(const ServerConfig& config) {
  std::vector<std::string> errors;
  const auto attempt = [&](const std::function<void()>& part) {
    try {
      part();
    } catch (const std::exception& error) {
      // Two parts may stumble over the same file.
      if (errors.empty() || errors.back() != error.what()) errors.emplace_back(error.what());
    }
  };
  attempt([&] { const KeyStore keys(config.security); });
  attempt([&] { const Certificates certificates(config.tls); });
  std::optional<MemoryPlan> plan;
  attempt([&] { plan = plan_llama(model_options(config), load_events()); });
  if (plan) {
    const Status attention = check_attention(config, *plan);
    if (!attention.ok()) errors.push_back(attention.message());
    std::cout << render(*plan);
  }
  // Where there is no folder, that has been said.
  if (std::filesystem::is_directory(config.model.path)) {
    attempt([&] { check_tokenizer(config.model.path); });
  }
  if (errors.empty()) std::cout << "The configuration is valid.\n";
  return errors;
}

}  // namespace mobius
