#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/cuda/device.h"

namespace mobius {

/// Runs a step's operations, or replays a recording of them. A decode step is hundreds of short
/// kernels; launched one by one they would wait for the processor. So operations of a step that may
/// be replayed are only noted at first; when their results are wanted, a graph recorded from the
/// same operations runs, or is recorded.
class OperationLog {
 public:
  /// `key` names what launches follow from besides their own arguments. Steps of equal key and
  /// operations must launch the same kernels with the same arguments.
  using Key = std::uint64_t;

  explicit OperationLog(const CudaStream& stream) : stream_(stream) {}

  /// Starts a step whose operations run at once.
  void begin_immediate();
  /// Starts a step whose operations run at `flush`.
  void begin_replayable(Key key);
  bool replayable() const { return deferred_; }

  /// `signature` names the operation with all its arguments.
  template <class Run>
  void add(std::initializer_list<std::uint64_t> signature, Run&& run) {
    if (!deferred_) {
      run();
      return;
    }
    signature_.insert(signature_.end(), signature);
    operations_.emplace_back(std::forward<Run>(run));
  }

  /// Enqueues what has been noted. Operations after it run at once.
  void flush();

 private:
  using Graph = std::shared_ptr<std::remove_pointer_t<cudaGraphExec_t>>;
  struct Recording {
    std::vector<std::uint64_t> signature;
    Graph graph;
  };
  Graph record();

  const CudaStream& stream_;
  bool deferred_ = false;
  Key key_ = 0;
  std::vector<std::uint64_t> signature_;
  std::vector<std::function<void()>> operations_;
  std::map<Key, Recording> recordings_;
};

}  // namespace mobius
