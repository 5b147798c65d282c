#pragma once

#include "engine/status.h"
#include "models/llama_runner.h"
#include "server/config/config.h"

namespace mobius {

/// What the configuration says of the model, as the loader takes it.
ModelOptions model_options(const ServerConfig& config);

/// What a user sees of loading, on standard output: why there is no GPU, and how far slow loading
/// has come.
LoadEvents load_events();

/// Refuses default attention that no request could run with. The fields have the configuration's
/// names.
Status check_attention(const ServerConfig& config, const MemoryPlan& plan);

/// Computes one token, so that whoever is told "ready" gets an answer: what only a model's first
/// step shows, shows here. Of a runner that no engine has; nothing of it stays. Throws what a step
/// throws.
void produce_token(Runner& runner);

}  // namespace mobius
