#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/attention.h"
#include "kernels/sampling.h"
#include "kernels/tensor.h"

namespace mobius {

/// Memory that a backend gave out; freed on destruction. The backend must outlive it.
struct Buffer {
  std::shared_ptr<void> data;
  std::size_t bytes = 0;

  Tensor view(DType dtype, std::int64_t rows, std::int64_t cols) const {
    return {data.get(), dtype, rows, cols};
  }
};

/// A weight matrix of shape [rows, cols], ready for the backend: y = x * W^T. It consists of one or
/// more blocks of rows (q, k and v of a fused projection) that act as one matrix. Where they are
/// e4m3, element [n, k] is code * row_scales[n] (fp8.h); the order of codes is the backend's.
struct Weight {
  std::vector<HostTensor>
      row_blocks;                 ///< addresses are the backend's; the CPU's point into the file
  std::shared_ptr<void> storage;  ///< keeps copies alive; empty where the mapping is used in place
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  const float* row_scales = nullptr;  ///< [rows], an address of the backend's; e4m3 alone
};

/// Bytes of a weight [rows, cols] once it is converted to `dtype`, scales included.
constexpr std::size_t weight_bytes(DType dtype, std::int64_t rows, std::int64_t cols) {
  const auto scales = static_cast<std::size_t>(dtype == DType::e4m3 ? rows : 0) * sizeof(float);
  return static_cast<std::size_t>(rows * cols) * size_of(dtype) + scales;
}

/// Keys, values, page sums and centroids of all layers. Opaque; made and used by one backend.
class KvPool {
 public:
  virtual ~KvPool() = default;
  const KvShape& shape() const { return shape_; }

 protected:
  explicit KvPool(const KvShape& shape) : shape_(shape) {}

 private:
  KvShape shape_;
};

/// The largest step that will ever be asked for; workspace is taken for it at start.
struct StepLimits {
  std::int32_t max_rows = 0;       ///< tokens in a step
  std::int32_t max_sequences = 0;  ///< slices in a step
  std::int32_t max_context = 0;    ///< tokens of one sequence
};

/// What a forward step works on: rows of several sequences packed without padding, in slice order.
/// Host memory, borrowed until `wait` returns.
struct StepView {
  std::span<const std::int32_t> tokens;      ///< [rows]
  std::span<const SequenceSlice> slices;     ///< say each row's sequence and position
  std::span<const std::int32_t> logit_rows;  ///< rows whose logits are wanted
};

struct BackendInfo {
  std::string name;              ///< e.g. "cpu (avx512_bf16, 2 threads)"
  std::size_t memory_bytes = 0;  ///< available for weights, workspace and KV cache
  std::int32_t threads = 0;
  /// Weights of the type asked for stay in the given memory; else they are copied to the device.
  bool weights_in_place = true;
  /// Attention can tell which blocks a row attends (SequenceSlice::attended).
  bool tells_blocks = false;
  /// What to compute in where nobody chose; empty: the type that the model is stored in.
  std::optional<DType> default_compute{};
  /// Whether weights of products may be e4m3.
  bool fp8_weights = false;
  /// Operations return before they are computed.
  bool asynchronous = false;
};

/// What workspace depends on. `activation` is where activations are rounded: the type of matmul
/// inputs.
struct ModelShape {
  std::int32_t hidden = 0;
  std::int32_t heads = 0;
  std::int32_t kv_heads = 0;
  std::int32_t head_dim = 0;
  std::int32_t intermediate = 0;
  std::int32_t vocab = 0;
  DType activation = DType::bf16;  ///< bf16 or f32; weights of another type are converted on load
  bool fp8_weights = false;        ///< weights of products are e4m3; not the embedding
};

/// The operations that a model is written in, for one device.
///
/// Order: operations run in the order of the calls; a call may return before its work is done, and
/// `wait` is the only one that waits. Between `begin_step` and `wait` no call takes host memory
/// that changes from step to step, but for the step itself and the rows to sample: the calls
/// between can be recorded once and replayed. Not thread-safe: one thread owns a backend.
///
/// Determinism: every row's result is bit-identical whatever other rows share the step and however
/// a prompt is cut into steps. That is what makes "alone or in a batch" the same tokens, and
/// chunked prefill select the same blocks (moba.md, rule 10). One exception, of the CUDA backend: a
/// row that is its slice's only one is computed in another order of sums than the same row in a
/// longer slice (kernels/cuda/README.md).
///
/// Errors: set-up calls (allocate, load, create, reserve) throw std::runtime_error with one line
/// for the user. Step calls do not fail on valid arguments; shapes that do not fit are a bug and
/// throw std::invalid_argument before anything is written.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual BackendInfo info() const = 0;

  // ---- set-up -------------------------------------------------------------------------------

  virtual Buffer allocate(std::size_t bytes, std::string_view purpose) = 0;

  /// Makes a weight from row blocks of equal `cols`. Where `dtype` is the blocks' own type, the CPU
  /// uses the given memory in place, so the mapping must outlive the weight; else it converts a
  /// copy. e4m3: quantised, where `BackendInfo::fp8_weights` says so; a row with a value that is
  /// not finite becomes NaN.
  virtual Weight load_weight(std::span<const HostTensor> row_blocks, DType dtype) = 0;

  virtual std::size_t kv_bytes(const KvShape& shape) const = 0;
  virtual std::unique_ptr<KvPool> create_kv_pool(const KvShape& shape) = 0;

  /// Bytes of scratch memory that steps within `limits` need, and the call that takes them, after
  /// all weights are loaded and before the first step. Afterwards no step allocates device memory,
  /// but for what the driver keeps of a recorded step.
  virtual std::size_t workspace_bytes(const ModelShape& model, const KvShape& kv,
                                      const StepLimits& limits) const = 0;
  virtual void reserve_workspace(const ModelShape& model, const KvShape& kv,
                                 const StepLimits& limits) = 0;

  // ---- one step -----------------------------------------------------------------------------
  // R: rows of the step. H: hidden. Q, G: query heads, KV heads. D: head_dim. F: intermediate.

  /// Names the rows that the operations up to the next `begin_step` work on.
  virtual void begin_step(const StepView& step) = 0;

  /// out[R, H] (f32) = table[token of the row].
  virtual void embed(Tensor out, const Weight& table) = 0;

  /// out[R, H] = in / sqrt(mean(in^2) + eps) * weight[1, H], in f32; `in` is f32, `out` f32 or
  /// bf16.
  virtual void rms_norm(Tensor out, Tensor in, const Weight& weight, float eps) = 0;

  /// out[R, N] (f32 or bf16) = in[R, K] * weight[N, K]^T, or += where `accumulate` (f32 only). `in`
  /// has the weight's type, or bf16 where that is e4m3. Products are accumulated in f32. R is the
  /// tensors' own, not the step's.
  virtual void matmul(Tensor out, Tensor in, const Weight& weight, bool accumulate) = 0;

  /// qkv[R, (Q + 2G) * D] (f32): rotates q and k by the row's position, writes q to q_out[R, Q * D]
  /// (the activation type), appends k and v to the row's page in the KV type and adds k, as stored,
  /// to the page's fp32 sum (a page's first slot starts the sum anew). Completes centroids.
  /// `inverse_frequencies` is [1, D / 2] f32; the pairs are (i, i + D / 2) as in Hugging Face's
  /// Llama.
  virtual void rope_append(Tensor q_out, Tensor qkv, KvPool& kv, std::int32_t layer,
                           const Weight& inverse_frequencies) = 0;

  /// out[R, Q * D] (the activation type, like q): softmax(q k^T / sqrt(D)) v over the keys that
  /// each slice's policy at `layer` chooses. Reads what `rope_append` wrote in this and earlier
  /// steps.
  virtual void attention(Tensor out, Tensor q, const KvPool& kv, std::int32_t layer) = 0;

  /// gate_up[R, 2F] (f32): out[R, F] = silu(gate) * up, gate being the first F columns.
  virtual void silu_mul(Tensor out, Tensor gate_up) = 0;

  /// out[n, H] = in[logit_rows[n], H], same type, n being the step's number of logit rows.
  virtual void gather_rows(Tensor out, Tensor in) = 0;

  /// Draws one token from each row of logits[n, vocab] (f32, may be overwritten). `out` is filled
  /// by the time `wait` returns; it and `rows` are borrowed until then.
  virtual void sample(std::span<SampledToken> out, Tensor logits,
                      std::span<const SampleRow> rows) = 0;

  /// Ends the step: waits for all operations since `begin_step`.
  virtual void wait() = 0;

  /// Copies to host memory, waiting for all earlier operations. For tests and tools.
  virtual void download(void* host, Tensor tensor) = 0;
};

/// The CPU backend. threads = 0 uses every core this process may run on.
std::unique_ptr<Backend> make_cpu_backend(std::int32_t threads);

/// Whether this build has the CUDA backend.
bool has_cuda_backend();

/// The CUDA backend on one Hopper GPU. Throws std::runtime_error with one line where the build has
/// none, or there is no such device.
std::unique_ptr<Backend> make_cuda_backend(std::int32_t device);

}  // namespace mobius
