// A tokenizer.json; what comes after its first NUL byte is a text to encode with it.
#include <stdexcept>

#include "engine/tokenizer/tokenizer.h"
#include "tests/fuzz/target.h"
#include "tests/scratch_folder.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  static const ScratchFolder folder;
  const std::string_view input = as_text(data, size);
  const std::size_t nul = input.find('\0');
  folder.write("tokenizer.json", input.substr(0, nul));
  std::shared_ptr<const Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::load(folder.path());
  } catch (const std::runtime_error& error) {
    require_one_line(error.what());
    return 0;
  }
  const std::string_view text = nul == std::string_view::npos ? "Hello" : input.substr(nul + 1);
  std::vector<std::int32_t> tokens;
  require(tokenizer->encode(text, tokens) == tokens.size(), "encode returns the length");
  for (const std::int32_t token : tokens) {
    require(token >= 0 && token < tokenizer->vocab_size(), "a token is in the vocabulary");
    require(!tokenizer->is_special(token), "text never becomes a special token");
  }
  require(tokenizer->decode(tokens) == text, "what was encoded decodes to itself");
  return 0;
}
