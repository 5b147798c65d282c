#include "server/grpc/mobius_calls.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/grpc/generation_reactor.h"
#include "server/grpc/grpc_convert.h"
#include "server/tools/tool_call_parser.h"

namespace mobius {
namespace {

class MobiusWriter final : public EventWriter<v1::GenerateResponse> {
 public:
  /// `prompt`: what stands for the prompt in the request.
  MobiusWriter(const Tokenizer& tokenizer, const v1::GenerationOptions& options, std::string prompt)
      : tokenizer_(tokenizer),
        with_logprobs_(options.has_top_logprobs()),
        prompt_(std::move(prompt)) {}

  void begin(const Generation& generation) override {
    id_ = generation.id;
    for (const Choice& choice : generation.choices) seeds_.push_back(choice.seed);
    calls_.resize(generation.choices.size());
    if (generation.tool_names.empty()) return;
    for (auto& calls : calls_) {
      calls.emplace(generation.tool_names, generation.parallel_tool_calls, tokenizer_);
    }
  }

  bool write(std::size_t choice, const Event& event, v1::GenerateResponse& message) override {
    auto& calls = calls_[choice];
    const EventForm form = {.id = id_,
                            .choice = choice,
                            .seed = seeds_[choice],
                            .calls = calls.has_value() ? &*calls : nullptr,
                            .with_logprobs = with_logprobs_,
                            .tokenizer = tokenizer_};
    message = to_message(event, form);
    return true;
  }

  Status named(const Status& status) const override { return with_grpc_names(status, prompt_); }

 private:
  const Tokenizer& tokenizer_;
  bool with_logprobs_;
  std::string prompt_;
  std::string id_;
  std::vector<std::uint64_t> seeds_;
  std::vector<std::optional<ToolCallParser>> calls_;  // where answers may call tools
};

template <typename Request>
grpc::ServerWriteReactor<v1::GenerateResponse>* start(grpc::CallbackServerContext& context,
                                                      CallContext& shared, const char* method,
                                                      const Request& request, std::string prompt) {
  auto writer = std::make_unique<MobiusWriter>(shared.service.tokenizer(), request.options(),
                                               std::move(prompt));
  const auto reactor =
      GenerationReactor<v1::GenerateResponse>::make(context, shared, method, std::move(writer));
  reactor->start([&] { return to_input(request); });
  return reactor.get();
}

}  // namespace

grpc::ServerWriteReactor<v1::GenerateResponse>* generate_call(grpc::CallbackServerContext& context,
                                                              CallContext& shared,
                                                              const v1::GenerateRequest& request) {
  const char* const prompt = request.has_tokens() ? "tokens.ids" : "text";
  return start(context, shared, "Generate", request,
               request.prompt_case() == v1::GenerateRequest::PROMPT_NOT_SET ? "prompt" : prompt);
}

grpc::ServerWriteReactor<v1::GenerateResponse>* chat_call(grpc::CallbackServerContext& context,
                                                          CallContext& shared,
                                                          const v1::ChatRequest& request) {
  return start(context, shared, "Chat", request, "messages");
}

}  // namespace mobius
