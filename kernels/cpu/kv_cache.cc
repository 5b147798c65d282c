#include "kernels/cpu/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>
#include <stdexcept>
#include <string>

#include "kernels/bf16.h"
#include "kernels/cpu/alignment.h"
#include "kernels/fp8.h"

namespace mobius {
namespace {

constexpr std::int32_t kMaxHeadDim = 256;

struct Layout {
  std::size_t tile_bytes = 0;
  std::size_t tiles_bytes = 0;
  std::size_t sums_bytes = 0;
  std::size_t centroids_bytes = 0;
  std::size_t total() const { return tiles_bytes + sums_bytes + centroids_bytes; }
};

Layout layout_of(const KvShape& shape) {
  const auto refuse = [](const std::string& what) {
    throw std::runtime_error("KV cache: " + what);
  };
  if (shape.dtype != DType::bf16 && shape.dtype != DType::f32) {
    refuse("type is " + std::string(name_of(shape.dtype)) + ", must be bf16 or f32 on the CPU");
  }
  if (shape.head_dim < 16 || shape.head_dim > kMaxHeadDim || shape.head_dim % 16 != 0) {
    refuse("head_dim is " + std::to_string(shape.head_dim) + ", must be a multiple of 16 up to " +
           std::to_string(kMaxHeadDim));
  }
  check_pages(shape);
  const auto head_dim = static_cast<std::size_t>(shape.head_dim);
  const std::size_t tiles = static_cast<std::size_t>(shape.num_layers) *
                            static_cast<std::size_t>(shape.num_pages) *
                            static_cast<std::size_t>(shape.kv_heads);
  Layout layout;
  const std::size_t vector_bytes = shape.fp8 ? head_dim + 1 : head_dim * size_of(shape.dtype);
  layout.tile_bytes = 2 * static_cast<std::size_t>(shape.page_tokens) * vector_bytes;
  layout.tiles_bytes = align_up(tiles * layout.tile_bytes);
  layout.sums_bytes = align_up(tiles * head_dim * sizeof(float));
  layout.centroids_bytes =
      shape.centroid_block > 0 ? align_up(tiles * head_dim * size_of(shape.dtype)) : 0;
  return layout;
}

void require(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(what);
}

/// Rows of one slice that lie in one page.
struct Segment {
  const SequenceSlice* slice = nullptr;
  std::int32_t first_row = 0;  ///< of the step
  std::int32_t rows = 0;
  std::int32_t page_index = 0;  ///< in the sequence
  std::int32_t slot = 0;        ///< of the first row
};

std::int32_t pages_touched(const SequenceSlice& slice, std::int32_t page_tokens) {
  const std::int32_t last = slice.first_position + slice.num_rows - 1;
  return last / page_tokens - slice.first_position / page_tokens + 1;
}

Segment find_segment(const StepView& step, std::int32_t page_tokens, std::int64_t index) {
  for (const SequenceSlice& slice : step.slices) {
    const std::int32_t touched = pages_touched(slice, page_tokens);
    if (index >= touched) {
      index -= touched;
      continue;
    }
    const std::int32_t page = slice.first_position / page_tokens + static_cast<std::int32_t>(index);
    const std::int32_t begin = std::max(slice.first_position, page * page_tokens);
    const std::int32_t end =
        std::min(slice.first_position + slice.num_rows, (page + 1) * page_tokens);
    return {&slice, slice.first_row + begin - slice.first_position, end - begin, page,
            begin - page * page_tokens};
  }
  throw std::logic_error("segment past the end of the step");
}

/// What every task of one rope_append reads.
struct Append {
  float* qkv = nullptr;
  void* q_out = nullptr;
  CpuKvPool* kv = nullptr;
  std::int32_t layer = 0;
  std::span<const float> inverse_frequencies;
  const StepView* step = nullptr;
  std::int32_t gqa = 0;
  std::int64_t parts = 1;  ///< tasks that share a segment, each with its own KV heads
};

struct Rotation {
  float cos[kMaxHeadDim / 2];
  float sin[kMaxHeadDim / 2];
};

void fill(Rotation& rotation, std::int32_t position, std::span<const float> inverse_frequencies) {
  // The angle is exact in double and reduced there, so that float functions are accurate at any
  // position.
  constexpr double kTurn = 2.0 * std::numbers::pi;
  for (std::size_t i = 0; i < inverse_frequencies.size(); ++i) {
    const double angle = position * static_cast<double>(inverse_frequencies[i]);
    const auto reduced = static_cast<float>(angle - kTurn * std::nearbyint(angle / kTurn));
    rotation.cos[i] = std::cos(reduced);
    rotation.sin[i] = std::sin(reduced);
  }
}

void rotate(float* out, const float* in, const Rotation& rotation, std::int32_t head_dim) {
  const std::int32_t half = head_dim / 2;
  for (std::int32_t i = 0; i < half; ++i) {
    const float a = in[i];
    const float b = in[i + half];
    out[i] = a * rotation.cos[i] - b * rotation.sin[i];
    out[i + half] = b * rotation.cos[i] + a * rotation.sin[i];
  }
}

/// Writes a rotated key as the KV type does, adds it to the page's sum.
void append_key(std::uint32_t* keys, float* sum, const float* key, const KvShape& shape,
                std::int32_t slot) {
  const std::int32_t head_dim = shape.head_dim;
  if (slot == 0) std::fill_n(sum, head_dim, 0.0F);
  if (shape.dtype == DType::f32) {
    for (std::int32_t i = 0; i < head_dim; ++i) {
      keys[static_cast<std::ptrdiff_t>(i) * shape.page_tokens + slot] =
          std::bit_cast<std::uint32_t>(key[i]);
      sum[i] += key[i];
    }
    return;
  }
  for (std::int32_t i = 0; i < head_dim; i += 2) {
    const std::uint16_t low = to_bf16(key[i]);
    const std::uint16_t high = to_bf16(key[i + 1]);
    keys[static_cast<std::ptrdiff_t>(i / 2) * shape.page_tokens + slot] =
        low | static_cast<std::uint32_t>(high) << 16;
    sum[i] += from_bf16(low);
    sum[i + 1] += from_bf16(high);
  }
}

void append_value(std::uint32_t* values, const float* value, const KvShape& shape,
                  std::int32_t slot) {
  const std::int32_t head_dim = shape.head_dim;
  if (shape.dtype == DType::f32) {
    std::memcpy(values + static_cast<std::ptrdiff_t>(slot) * head_dim, value,
                static_cast<std::size_t>(head_dim) * sizeof(float));
    return;
  }
  std::uint32_t* cells = values + static_cast<std::ptrdiff_t>(slot / 2) * head_dim;
  if (slot % 2 == 0) {
    // Zero for the pair's second token: it is multiplied by probability 0 until it is there, and
    // what a freed page left behind might be infinite.
    for (std::int32_t i = 0; i < head_dim; ++i) cells[i] = to_bf16(value[i]);
  } else {
    for (std::int32_t i = 0; i < head_dim; ++i) {
      cells[i] = (cells[i] & 0xffffU) | static_cast<std::uint32_t>(to_bf16(value[i])) << 16;
    }
  }
}

/// The scale byte of a vector (kernels/fp8.h).
std::uint8_t scale_byte(const float* vector, std::int32_t head_dim) {
  std::uint32_t largest = 0;  // as bits, which order magnitudes, NaN above all
  for (std::int32_t i = 0; i < head_dim; ++i) {
    largest = std::max(largest, std::bit_cast<std::uint32_t>(vector[i]) & 0x7FFFFFFFU);
  }
  return kv_scale_byte(std::bit_cast<float>(largest));
}

/// Quantises a rotated key and a value into the slot, and adds the key, as quantised, to the sum.
void append_fp8(const CpuKvPool& kv, std::int32_t layer, PageId page, std::int32_t kv_head,
                std::int32_t slot, const float* key, const float* value) {
  const KvShape& shape = kv.shape();
  const std::int32_t head_dim = shape.head_dim;
  const std::uint8_t key_byte = scale_byte(key, head_dim);
  const std::uint8_t value_byte = scale_byte(value, head_dim);
  std::uint8_t* keys = kv.key_codes(layer, page, kv_head) + slot;
  std::uint8_t* values =
      kv.value_codes(layer, page, kv_head) + static_cast<std::ptrdiff_t>(slot) * head_dim;
  float* sum = kv.sum(layer, page, kv_head);
  if (slot == 0) std::fill_n(sum, head_dim, 0.0F);
  const float scale = kv_scale(key_byte);
  for (std::int32_t i = 0; i < head_dim; ++i) {
    const std::uint8_t code = kv_code(key[i], key_byte);
    keys[static_cast<std::ptrdiff_t>(i) * shape.page_tokens] = code;
    sum[i] += from_e4m3(code) * scale;
    values[i] = kv_code(value[i], value_byte);
  }
  kv.key_scales(layer, page, kv_head)[slot] = key_byte;
  kv.value_scales(layer, page, kv_head)[slot] = value_byte;
}

void run_append(const Append& append, std::int64_t task) {
  CpuKvPool& kv = *append.kv;
  const KvShape& shape = kv.shape();
  const Segment segment = find_segment(*append.step, shape.page_tokens, task / append.parts);
  const std::int64_t part = task % append.parts;
  const auto first_head = static_cast<std::int32_t>(part * shape.kv_heads / append.parts);
  const auto end_head = static_cast<std::int32_t>((part + 1) * shape.kv_heads / append.parts);
  const PageId page = segment.slice->pages[static_cast<std::size_t>(segment.page_index)];
  const std::int64_t head_dim = shape.head_dim;
  const std::int64_t heads = static_cast<std::int64_t>(shape.kv_heads) * append.gqa;
  const std::int64_t columns = (heads + std::int64_t{2} * shape.kv_heads) * head_dim;

  const std::int64_t first_query_head = std::int64_t{first_head} * append.gqa;
  const std::int64_t end_query_head = std::int64_t{end_head} * append.gqa;

  Rotation rotation;
  float rotated[kMaxHeadDim];
  for (std::int32_t i = 0; i < segment.rows; ++i) {
    const std::int64_t row = segment.first_row + i;
    const std::int32_t slot = segment.slot + i;
    fill(rotation, segment.page_index * shape.page_tokens + slot, append.inverse_frequencies);
    const float* qkv = append.qkv + row * columns;
    for (std::int64_t h = first_query_head; h < end_query_head; ++h) {
      rotate(rotated, qkv + h * head_dim, rotation, shape.head_dim);
      const std::int64_t at = (row * heads + h) * head_dim;
      if (shape.dtype == DType::f32) {
        std::memcpy(static_cast<float*>(append.q_out) + at, rotated,
                    static_cast<std::size_t>(head_dim) * sizeof(float));
      } else {
        auto* out = static_cast<std::uint16_t*>(append.q_out) + at;
        for (std::int64_t d = 0; d < head_dim; ++d) out[d] = to_bf16(rotated[d]);
      }
    }
    for (std::int32_t g = first_head; g < end_head; ++g) {
      rotate(rotated, qkv + (heads + g) * head_dim, rotation, shape.head_dim);
      const float* value = qkv + (heads + shape.kv_heads + g) * head_dim;
      if (shape.fp8) {
        append_fp8(kv, append.layer, page, g, slot, rotated, value);
        continue;
      }
      append_key(kv.keys(append.layer, page, g), kv.sum(append.layer, page, g), rotated, shape,
                 slot);
      append_value(kv.values(append.layer, page, g), value, shape, slot);
    }
  }
}

/// Rule 2 of moba.md from the pages' sums on.
void centroid_from_sums(void* centroid, const CpuKvPool& kv, std::int32_t layer,
                        std::int32_t kv_head, std::span<const PageId> block_pages) {
  const KvShape& shape = kv.shape();
  float mean[kMaxHeadDim];
  std::fill_n(mean, shape.head_dim, 0.0F);
  for (const PageId page : block_pages) {
    const float* sum = kv.sum(layer, page, kv_head);
    for (std::int32_t i = 0; i < shape.head_dim; ++i) mean[i] += sum[i];
  }
  const auto tokens =
      static_cast<float>(block_pages.size() * static_cast<std::size_t>(shape.page_tokens));
  for (std::int32_t i = 0; i < shape.head_dim; ++i) {
    if (shape.dtype == DType::f32) {
      static_cast<float*>(centroid)[i] = mean[i] / tokens;
    } else {
      static_cast<std::uint16_t*>(centroid)[i] = to_bf16(mean[i] / tokens);
    }
  }
}

std::span<const PageId> block_pages(std::span<const PageId> pages, std::int64_t pages_per_block,
                                    std::int64_t block_index) {
  return pages.subspan(static_cast<std::size_t>(block_index * pages_per_block),
                       static_cast<std::size_t>(pages_per_block));
}

/// Stores the centroids of blocks whose last token is among the slice's rows.
void complete_centroids(CpuKvPool& kv, std::int32_t layer, const SequenceSlice& slice) {
  const KvShape& shape = kv.shape();
  const std::int64_t block = shape.centroid_block;
  const std::int64_t end = slice.first_position + slice.num_rows;
  for (std::int64_t b = slice.first_position / block; b < end / block; ++b) {
    const std::span<const PageId> pages = block_pages(slice.pages, block / shape.page_tokens, b);
    for (std::int32_t g = 0; g < shape.kv_heads; ++g) {
      centroid_from_sums(kv.centroid(layer, pages.back(), g), kv, layer, g, pages);
    }
  }
}

}  // namespace

std::size_t kv_bytes(const KvShape& shape) {
  return layout_of(shape).total();
}

CpuKvPool::CpuKvPool(const KvShape& shape) : KvPool(shape) {
  const Layout layout = layout_of(shape);
  bytes_ = layout.total();
  // Mapped rather than allocated: zero already, and aligned for huge pages.
  memory_ = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) {
    throw std::runtime_error("KV cache: no memory for " + std::to_string(bytes_ >> 20) + " MiB");
  }
  madvise(memory_, bytes_, MADV_HUGEPAGE);
  // Taken now: a page that is not there when a step wants it would cost time or, at worst, the
  // process.
#ifdef MADV_POPULATE_WRITE
  if (madvise(memory_, bytes_, MADV_POPULATE_WRITE) != 0)  // Linux before 5.14
#endif
    std::memset(memory_, 0, bytes_);
  auto* bytes = static_cast<std::byte*>(memory_);
  tile_bytes_ = layout.tile_bytes;
  tiles_ = reinterpret_cast<std::uint8_t*>(bytes);
  sums_ = reinterpret_cast<float*>(bytes + layout.tiles_bytes);
  if (layout.centroids_bytes > 0) centroids_ = bytes + layout.tiles_bytes + layout.sums_bytes;
}

CpuKvPool::~CpuKvPool() {
  munmap(memory_, bytes_);
}

void rope_append(Tensor q_out, Tensor qkv, CpuKvPool& kv, std::int32_t layer,
                 std::span<const float> inverse_frequencies, const StepView& step,
                 ThreadPool& threads) {
  const KvShape& shape = kv.shape();
  const std::int64_t kv_columns = static_cast<std::int64_t>(shape.kv_heads) * shape.head_dim;
  require(layer >= 0 && layer < shape.num_layers, "layer out of range");
  require(qkv.dtype == DType::f32, "qkv must be f32");
  require(q_out.dtype == shape.dtype, "q_out must have the KV type");
  require(q_out.rows == qkv.rows, "q_out and qkv differ in rows");
  require(q_out.cols > 0 && q_out.cols % kv_columns == 0,
          "q_out's columns are no multiple of the KV heads'");
  require(qkv.cols == q_out.cols + 2 * kv_columns, "qkv's columns do not fit q_out's");
  require(inverse_frequencies.size() == static_cast<std::size_t>(shape.head_dim / 2),
          "inverse_frequencies must have head_dim / 2 values");
  check_slices(step.slices, shape, q_out.rows);

  Append append{static_cast<float*>(qkv.data),
                q_out.data,
                &kv,
                layer,
                inverse_frequencies,
                &step,
                static_cast<std::int32_t>(q_out.cols / kv_columns)};
  std::int64_t segments = 0;
  for (const SequenceSlice& slice : step.slices)
    segments += pages_touched(slice, shape.page_tokens);
  if (segments == 0) return;
  // A few rows are done before another thread is awake.
  constexpr std::int64_t kFewRows = 4;
  if (threads.size() == 1 || q_out.rows <= kFewRows) {
    for (std::int64_t i = 0; i < segments; ++i) run_append(append, i);
  } else {
    const std::int64_t wanted = 4 * static_cast<std::int64_t>(threads.size());
    append.parts = std::clamp<std::int64_t>(wanted / segments, 1, shape.kv_heads);
    threads.parallel_for(segments * append.parts,
                         [&append](std::int64_t task, int) { run_append(append, task); });
  }
  if (shape.centroid_block == 0) return;
  for (const SequenceSlice& slice : step.slices) complete_centroids(kv, layer, slice);
}

void block_centroid(void* centroid, const CpuKvPool& kv, std::int32_t layer, std::int32_t kv_head,
                    std::span<const PageId> pages, std::int32_t block, std::int64_t block_index) {
  const KvShape& shape = kv.shape();
  const std::span<const PageId> own = block_pages(pages, block / shape.page_tokens, block_index);
  if (block == shape.centroid_block) {
    std::memcpy(centroid, kv.centroid(layer, own.back(), kv_head),
                static_cast<std::size_t>(shape.head_dim) * size_of(shape.dtype));
  } else {
    centroid_from_sums(centroid, kv, layer, kv_head, own);
  }
}

}  // namespace mobius
