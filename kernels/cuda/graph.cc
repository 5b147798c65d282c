#include "kernels/cuda/graph.h"

#include "kernels/cuda/check.h"

namespace mobius {

void OperationLog::begin_immediate() {
  deferred_ = false;
  signature_.clear();
  operations_.clear();
}

void OperationLog::begin_replayable(Key key) {
  begin_immediate();
  deferred_ = true;
  key_ = key;
}

void OperationLog::flush() {
  if (!deferred_) return;
  deferred_ = false;
  if (operations_.empty()) return;
  Recording& recording = recordings_[key_];
  if (recording.graph == nullptr || recording.signature != signature_) {
    recording.graph = nullptr;  // given back before the new one is made
    recording.graph = record();
    recording.signature = signature_;
  }
  MOBIUS_CUDA(cudaGraphLaunch(recording.graph.get(), stream_.get()));
}

OperationLog::Graph OperationLog::record() {
  cudaGraph_t captured = nullptr;
  MOBIUS_CUDA(cudaStreamBeginCapture(stream_.get(), cudaStreamCaptureModeThreadLocal));
  try {
    for (const std::function<void()>& operation : operations_) operation();
  } catch (...) {
    cudaStreamEndCapture(stream_.get(), &captured);
    if (captured != nullptr) cudaGraphDestroy(captured);
    throw;
  }
  MOBIUS_CUDA(cudaStreamEndCapture(stream_.get(), &captured));
  const std::shared_ptr<std::remove_pointer_t<cudaGraph_t>> guard(
      captured, [](cudaGraph_t g) { cudaGraphDestroy(g); });
  cudaGraphExec_t graph = nullptr;
  MOBIUS_CUDA(cudaGraphInstantiate(&graph, captured, 0));
  return {graph, [](cudaGraphExec_t g) { cudaGraphExecDestroy(g); }};
}

}  // namespace mobius
