// Times kernels/cuda/hopper on this machine's GPU. One JSON line per case on standard output.
//   attention_times prefill TOKENS HEADS KV_HEADS DIM BLOCK TOP_K [CHUNK]   block 0: full attention
//   attention_times decode BATCH TOKENS HEADS KV_HEADS DIM BLOCK TOP_K [SEQUENCES]   of own pages:
//                   microseconds of one call in a graph, and of one of eight in a row
//   attention_times copy                                                  device memory's rate

#include <cstring>
#include <string>

#include "tests/gpu/hopper/fixture.cuh"

namespace mobius::hopper {
namespace {

/// Median milliseconds of `run`, over at least `kRuns` runs or as many as fit two seconds.
template <typename Run>
double median_ms(const Run& run, int runs) {
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  run();
  check(cudaDeviceSynchronize(), "warm-up");
  std::vector<double> times;
  double total = 0.0;
  for (int i = 0; i < runs && (i < 3 || total < 2000.0); ++i) {
    check(cudaEventRecord(begin), "record");
    run();
    check(cudaEventRecord(end), "record");
    check(cudaEventSynchronize(end), "run");
    float ms = 0.0f;
    check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    times.push_back(ms);
    total += ms;
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

int prefill(int tokens, const Geometry& g, int block, int top_k, int chunk) {
  const int rows = chunk > 0 ? chunk : tokens;
  const Scenario s(g, {{tokens - rows, rows, block, top_k}}, Data::normal, 3);
  const std::size_t bytes = prefill_workspace_bytes(s.limits);
  const DeviceArray<std::uint8_t> workspace(bytes);
  const DeviceArray<__nv_bfloat16> out(s.out_size());
  const Rows call = s.call(out.get());
  const double ms = median_ms(
      [&] { check(prefill_attention(s.kv, call, s.limits, workspace.get(), nullptr), "prefill"); },
      20);
  const double keys = block == 0 ? tokens / 2.0 : (top_k - 0.5) * block;
  std::printf(
      "{\"kind\": \"prefill\", \"tokens\": %d, \"rows\": %d, \"heads\": %d, \"kv_heads\": %d, "
      "\"dim\": %d, \"block\": %d, \"top_k\": %d, \"ms\": %.4f, \"tflops\": %.1f, "
      "\"workspace_mb\": %.0f}\n",
      tokens, rows, g.q_heads, g.kv_heads, g.dim, block, top_k, ms,
      4.0 * keys * rows * g.q_heads * g.dim / ms * 1e-9, static_cast<double>(bytes) / 1e6);
  return 0;
}

__global__ void read_kernel(const uint4* data, std::size_t count, unsigned* sink) {
  unsigned x = 0;
  for (std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<std::size_t>(gridDim.x) * blockDim.x) {
    const uint4 v = __ldg(data + i);
    x ^= v.x ^ v.y ^ v.z ^ v.w;
  }
  if (x == 0x12345679u) *sink = x;
}

int decode(int batch, int tokens, const Geometry& g, int block, int top_k, int sequences) {
  // A row of calls as a model's layers make them: each with queries and centroids of its own. Keys
  // and values are the same, but other blocks are chosen.
  constexpr int kCalls = 8;
  const auto all = static_cast<std::size_t>(batch * kCalls);
  Scenario s(g, std::vector<Part>(all, Part{tokens - 1, 1, block, top_k}), Data::normal, 3,
             static_cast<std::size_t>(sequences));
  Limits limits = s.decode_limits;
  limits.num_slices = batch;
  const DeviceArray<std::uint8_t> workspace(decode_workspace_bytes(limits));
  const DeviceArray<__nv_bfloat16> out(s.out_size());
  const DeviceArray<std::uint8_t> other(256u << 20);
  const DeviceArray<unsigned> sink(1);
  cudaStream_t stream;
  check(cudaStreamCreate(&stream), "stream");
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  const auto median_of = [&](int calls) {
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
    for (int i = 0; i < calls; ++i) {
      KvPages kv = s.kv;
      // Stored centroids of random content, which decode's time does not hang on: some of the keys.
      kv.centroids = s.keys.get() + static_cast<std::size_t>(i) * s.sums.size();
      kv.centroid_block = block;
      Rows call = s.call(out.get());
      call.slices += static_cast<std::ptrdiff_t>(i) * batch;
      call.num_slices = batch;
      call.early_centroids = true;
      check(decode_attention(kv, call, limits, workspace.get(), stream), "decode");
    }
    check(cudaStreamEndCapture(stream, &graph), "capture");
    check(cudaGraphInstantiate(&replay, graph, 0), "instantiate");
    std::vector<double> times;
    for (int i = 0; i < 30; ++i) {
      // As in a model, where weights are read: other data has passed through the cache.
      read_kernel<<<132 * 16, 512, 0, stream>>>(reinterpret_cast<const uint4*>(other.get()),
                                                other.size() / 16, sink.get());
      check(cudaEventRecord(begin, stream), "record");
      check(cudaGraphLaunch(replay, stream), "replay");
      check(cudaEventRecord(end, stream), "record");
      check(cudaEventSynchronize(end), "run");
      float ms = 0.0f;
      check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
      if (i > 4) times.push_back(ms);
    }
    check(cudaGraphExecDestroy(replay), "replay");
    check(cudaGraphDestroy(graph), "graph");
    std::sort(times.begin(), times.end());
    return times[times.size() / 2] / calls;
  };
  const double ms = median_of(1);
  const double in_a_row_ms = median_of(kCalls);
  const int blocks = block > 0 ? (tokens - 1) / block : 0;
  const double keys = block > 0 ? std::min(top_k - 1, blocks) * static_cast<double>(block) +
                                      (tokens - 1) % block + 1
                                : tokens;
  const double heads = block > 0 ? g.q_heads : g.kv_heads;
  const double selected = keys * heads * batch * g.dim * 4;
  const double gated = static_cast<double>(blocks) * g.kv_heads * batch * g.dim * 2;
  std::printf(
      "{\"kind\": \"decode\", \"batch\": %d, \"tokens\": %d, \"heads\": %d, \"kv_heads\": %d, "
      "\"dim\": %d, \"block\": %d, \"top_k\": %d, \"us\": %.2f, \"us_in_a_row\": %.2f, "
      "\"selected_mb\": %.2f, \"centroid_mb\": %.2f, \"selected_tb_per_s\": %.3f}\n",
      batch, tokens, g.q_heads, g.kv_heads, g.dim, block, top_k, ms * 1e3, in_a_row_ms * 1e3,
      selected / 1e6, gated / 1e6, selected / in_a_row_ms * 1e-9);
  return 0;
}

int copy() {
  const std::size_t bytes = std::size_t{2} << 30;
  DeviceArray<std::uint8_t> a(bytes), b(bytes);
  a.fill_bytes(0x5A);
  const double ms = median_ms(
      [&] { check(cudaMemcpyAsync(b.get(), a.get(), bytes, cudaMemcpyDeviceToDevice), "copy"); },
      20);
  const double read_ms = median_ms(
      [&] {
        read_kernel<<<132 * 16, 512>>>(reinterpret_cast<const uint4*>(a.get()), bytes / 16,
                                       reinterpret_cast<unsigned*>(b.get()));
      },
      20);
  std::printf("{\"kind\": \"copy\", \"copy_tb_per_s\": %.3f, \"read_tb_per_s\": %.3f}\n",
              2.0 * static_cast<double>(bytes) / ms * 1e-9,
              static_cast<double>(bytes) / read_ms * 1e-9);
  return 0;
}

int usage() {
  std::fprintf(stderr, "see the head of attention_times.cu for the arguments\n");
  return 2;
}

}  // namespace
}  // namespace mobius::hopper

int main(int argc, char** argv) {
  using namespace mobius::hopper;
  std::vector<int> n;
  for (int i = 2; i < argc; ++i) n.push_back(std::atoi(argv[i]));
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind == "copy") return copy();
  if (kind == "prefill" && n.size() >= 6) {
    return prefill(n[0], {n[1], n[2], n[3], 128}, n[4], n[5], n.size() > 6 ? n[6] : 0);
  }
  if (kind == "decode" && n.size() >= 7) {
    return decode(n[0], n[1], {n[2], n[3], n[4], 128}, n[5], n[6], n.size() > 7 ? n[7] : n[0]);
  }
  return usage();
}
