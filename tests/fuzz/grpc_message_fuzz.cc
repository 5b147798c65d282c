// A message of mobius.v1 or of vLLM's engine service, in protobuf's encoding. The first byte says
// which.
#include <string>

#include "engine/validate.h"
#include "server/grpc/grpc_convert.h"
#include "server/grpc/vllm_convert.h"
#include "tests/fuzz/target.h"

namespace mobius {
namespace {

RunnerInfo small_model() {
  RunnerInfo info;
  info.num_layers = 4;
  info.num_heads = 8;
  info.num_kv_heads = 4;
  info.vocab_size = 300;
  info.page_tokens = 128;
  info.num_pages = 64;
  info.limits = {.max_rows = 512, .max_sequences = 64, .max_context = 8192};
  return info;
}

void check_refusal(const Status& status) {
  require(
      status.code() == StatusCode::invalid_argument || status.code() == StatusCode::unimplemented,
      "a message that is refused is the client's fault");
  require_one_line(status.message());
  require(status.message().size() < 4096, "a message is short");
  require(to_grpc(status).error_code() != grpc::StatusCode::OK, "a refusal stays one");
}

/// The options go on as the service's do, down to what the engine would take.
void check_options(const GenerationOptions& options) {
  static const RunnerInfo model = small_model();
  GenerationRequest request;
  if (const Status status = resolve_options(options, {}, model, request); !status.ok()) {
    return check_refusal(with_grpc_names(status, "text"));
  }
  request.prompt = {1, 2, 3};
  const Status status = validate(request, model, model.limits.max_context);
  if (!status.ok()) return check_refusal(with_grpc_names(status, "text"));
  require(request.sampling.temperature >= 0, "a temperature that is taken is one");
  for (const auto& [token, bias] : request.sampling.logit_bias) {
    require(token >= 0 && token < model.vocab_size, "a biased token is in the vocabulary");
  }
}

template <typename Message>
void read(const std::uint8_t* data, std::size_t size) {
  Message message;
  if (!message.ParseFromArray(data, static_cast<int>(size))) return;
  const auto input = to_input(message);
  if (!input.ok()) return check_refusal(input.status());
  check_options(input.value().options);
}

}  // namespace
}  // namespace mobius

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace mobius;
  if (size == 0 || size > (1U << 20U)) return 0;
  switch (data[0] % 4) {
    case 0: read<v1::GenerateRequest>(data + 1, size - 1); break;
    case 1: read<v1::ChatRequest>(data + 1, size - 1); break;
    case 2: read<v1::ChatPrompt>(data + 1, size - 1); break;
    default: read<vllm_api::GenerateRequest>(data + 1, size - 1);
  }
  return 0;
}
