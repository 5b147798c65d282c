#include <algorithm>
#include <cstddef>
#include <memory>
#include <utility>

#include "server/grpc/call_access.h"
#include "server/grpc/vllm_calls.h"

namespace mobius {
namespace {

/// Sends the archive, a chunk at a time. Deletes itself when the call is over.
class TokenizerReactor final : public grpc::ServerWriteReactor<smg_api::GetTokenizerChunk> {
 public:
  TokenizerReactor(grpc::CallbackServerContext& context, CallContext& shared)
      : access_(context, "VllmEngine.GetTokenizer"), shared_(shared) {}

  void start() {
    Status status = access_.admit(shared_.keys, /*counted=*/true);
    if (status.ok() && !shared_.token_work.post([this] { read(); })) {
      status = Status(StatusCode::resource_exhausted, "too many requests wait for a tokenizer");
    }
    if (!status.ok()) end(status);
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      send();
    } else {
      end(Status(StatusCode::cancelled, "the client is gone"));
    }
  }

  void OnDone() override { delete this; }

 private:
  void read() {
    auto archive = shared_.tokenizers.get(shared_.service.model_path());
    if (!archive.ok()) {
      end(archive.status());
      return;
    }
    archive_ = std::move(archive).value();
    send();
  }

  void send() {
    constexpr std::size_t kChunkBytes = std::size_t{64} << 10U;
    const std::string& zip = archive_->zip;
    if (sent_ == zip.size()) {
      end({});
      return;
    }
    const std::size_t bytes = std::min(kChunkBytes, zip.size() - sent_);
    chunk_.set_data(zip.substr(sent_, bytes));
    sent_ += bytes;
    if (sent_ == zip.size()) chunk_.set_sha256(archive_->sha256);
    StartWrite(&chunk_);
  }

  /// Last: the reactor may be gone when it returns.
  void end(const Status& status) {
    if (!status.ok()) shared_.service.refused(status.code());
    Finish(access_.end(status));
  }

  CallAccess access_;
  CallContext& shared_;
  std::shared_ptr<const TokenizerArchive> archive_;
  std::size_t sent_ = 0;
  smg_api::GetTokenizerChunk chunk_;
};

}  // namespace

grpc::ServerWriteReactor<smg_api::GetTokenizerChunk>* vllm_tokenizer_call(
    grpc::CallbackServerContext& context, CallContext& shared) {
  auto* const reactor = new TokenizerReactor(context, shared);
  reactor->start();
  return reactor;
}

}  // namespace mobius
