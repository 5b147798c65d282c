#pragma once

#include <string>
#include <string_view>

#include "engine/engine.h"
#include "server/metrics/generation_metrics.h"

namespace mobius {

/// Content-Type of `render_metrics`.
inline constexpr std::string_view kMetricsContentType = "text/plain; version=0.0.4; charset=utf-8";

/// The page in Prometheus' text format, version 0.0.4
/// (https://prometheus.io/docs/instrumenting/exposition_formats).
std::string render_metrics(const GenerationMetrics& metrics, const EngineStats& engine,
                           const RunnerInfo& model, std::string_view model_name, bool ready);

}  // namespace mobius
