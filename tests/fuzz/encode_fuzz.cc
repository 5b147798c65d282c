// Text for a tokenizer with Llama 3's split pattern.
#include "tests/fuzz/target.h"
#include "tests/unit/tokenizer/fixtures.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  static const std::shared_ptr<const Tokenizer> tokenizer = load_json(small_tokenizer());
  const std::string_view text = as_text(data, size);
  const std::vector<std::int32_t> tokens = encode(*tokenizer, text);
  for (const std::int32_t token : tokens) {
    require(!tokenizer->is_special(token), "text never becomes a special token");
  }
  require(tokenizer->decode(tokens) == text, "what was encoded decodes to itself");
  // With a limit: the same where it fits, a number above the limit where it does not.
  std::vector<std::int32_t> limited;
  const std::size_t most = size / 2;
  const std::size_t count = tokenizer->encode(text, limited, most);
  require((count > most) == (tokens.size() > most), "the limit is told");
  if (count <= most) require(limited == tokens, "a limit that is kept changes nothing");
  return 0;
}
