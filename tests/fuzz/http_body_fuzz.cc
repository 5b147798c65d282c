// A body of /v1/chat/completions, of /v1/completions and of /v1/responses.
#include "server/http/openai_request.h"
#include "tests/fuzz/target.h"

namespace {

void check(const mobius::StatusOr<mobius::OpenAiRequest>& request) {
  using namespace mobius;
  if (request.ok()) return;
  require(request.status().code() == StatusCode::invalid_argument ||
              request.status().code() == StatusCode::unimplemented,
          "a body that is refused is the client's fault");
  require_one_line(request.status().message());
  require(request.status().message().size() < 4096, "a message is short");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view body = mobius::as_text(data, size);
  check(mobius::parse_chat_request(body));
  check(mobius::parse_completion_request(body));
  check(mobius::parse_responses_request(body));
  return 0;
}
