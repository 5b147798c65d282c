// mobius-make-checkpoint: a Llama-shaped checkpoint with random weights, for tests and benchmarks.

#include <CLI/CLI.hpp>
#include <exception>
#include <iostream>
#include <map>
#include <optional>
#include <string>

#include "models/generate/checkpoint_spec.h"
#include "models/generate/write_checkpoint.h"

namespace {

struct Overrides {
  std::optional<std::int32_t> layers, hidden, heads, kv_heads, head_dim, ffn, vocab, context,
      original_context;
  std::optional<bool> tied;
};

void apply(const Overrides& wanted, mobius::LlamaConfig& config) {
  config.num_layers = wanted.layers.value_or(config.num_layers);
  config.hidden_size = wanted.hidden.value_or(config.hidden_size);
  config.num_heads = wanted.heads.value_or(config.num_heads);
  config.num_kv_heads = wanted.kv_heads.value_or(config.num_kv_heads);
  config.head_dim = wanted.head_dim.value_or(config.head_dim);
  config.intermediate_size = wanted.ffn.value_or(config.intermediate_size);
  config.vocab_size = wanted.vocab.value_or(config.vocab_size);
  config.max_position_embeddings = wanted.context.value_or(config.max_position_embeddings);
  config.tie_word_embeddings = wanted.tied.value_or(config.tie_word_embeddings);
  if (wanted.original_context == 0) {
    config.rope_scaling.reset();
  } else if (wanted.original_context) {
    config.rope_scaling->original_max_position_embeddings = *wanted.original_context;
  }
  mobius::assign_tokens(config);
  if (config.num_heads % config.num_kv_heads != 0 || config.head_dim % 2 != 0) {
    throw std::invalid_argument("heads must be a multiple of kv-heads, and head-dim must be even");
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Writes a Llama-shaped checkpoint with random weights that follow from the seed.");
  std::string shape = "tiny";
  std::string folder;
  mobius::CheckpointOptions options;
  Overrides overrides;
  const std::map<std::string, mobius::DType> dtypes = {
      {"bf16", mobius::DType::bf16}, {"f16", mobius::DType::f16}, {"f32", mobius::DType::f32}};
  const auto size = CLI::Range(1, 1 << 24);
  app.add_option("--out", folder, "folder to write to")->required();
  app.add_option("--shape", shape, "tiny, 1b (Llama 3.2 1B's shape) or 8b (Llama 3.1 8B's)")
      ->check(CLI::IsMember({"tiny", "1b", "8b"}))
      ->capture_default_str();
  app.add_option("--seed", options.seed, "the weights follow from it")->capture_default_str();
  app.add_option("--dtype", options.dtype, "stored type: bf16, f16 or f32 (default bf16)")
      ->transform(CLI::CheckedTransformer(dtypes));
  app.add_option("--shards", options.shards, "number of files; 0: at most 5 GB each")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--threads", options.threads, "0: every core")->check(CLI::Range(0, 1024));
  app.add_option("--layers", overrides.layers, "instead of the shape's own")
      ->check(CLI::Range(1, 1024));
  app.add_option("--hidden", overrides.hidden, "")->check(size);
  app.add_option("--heads", overrides.heads, "query heads")->check(CLI::Range(1, 1024));
  app.add_option("--kv-heads", overrides.kv_heads, "KV heads")->check(CLI::Range(1, 1024));
  app.add_option("--head-dim", overrides.head_dim, "")->check(CLI::Range(2, 1024));
  app.add_option("--intermediate", overrides.ffn, "width of the MLP")->check(size);
  app.add_option("--vocab", overrides.vocab, "vocabulary size")->check(size);
  app.add_option("--context", overrides.context, "max_position_embeddings")
      ->check(CLI::Range(1, 1 << 30));
  app.add_option("--original-context", overrides.original_context,
                 "original_max_position_embeddings of llama3 RoPE scaling; 0: no scaling")
      ->check(CLI::Range(0, 1 << 30));
  app.add_option("--tied", overrides.tied, "whether the head shares the embedding: true or false");
  CLI11_PARSE(app, argc, argv);
  try {
    mobius::LlamaConfig config = mobius::shape_preset(shape);
    apply(overrides, config);
    mobius::write_checkpoint(config, options, folder);
  } catch (const std::exception& error) {
    std::cerr << "mobius-make-checkpoint: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
