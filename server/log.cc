#include "server/log.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <stdexcept>

namespace mobius {
namespace {

std::atomic<bool> json_format = false;

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::trace: return spdlog::level::trace;
    case LogLevel::debug: return spdlog::level::debug;
    case LogLevel::info: return spdlog::level::info;
    case LogLevel::warn: return spdlog::level::warn;
    case LogLevel::error: return spdlog::level::err;
  }
  return spdlog::level::info;
}

/// A JSON string; anything but printable ASCII is escaped, so that a line stays a line and stays
/// valid whatever a client sent.
void append_quoted(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20U || byte >= 0x7FU) {
      char escaped[8];
      std::snprintf(escaped, sizeof escaped, "\\u%04x", byte);
      out += escaped;
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_value(std::string& out, const LogValue& value) {
  if (const auto* text = std::get_if<std::string_view>(&value)) {
    append_quoted(out, *text);
  } else if (const auto* integer = std::get_if<std::int64_t>(&value)) {
    out += std::to_string(*integer);
  } else if (const auto* real = std::get_if<double>(&value)) {
    char number[32];
    std::snprintf(number, sizeof number, "%.3f", *real);
    out += number;
  }
}

}  // namespace

void setup_logging(const std::string& level, const std::string& format, const std::string& file) {
  std::shared_ptr<spdlog::logger> logger;
  if (file.empty()) {
    logger = std::make_shared<spdlog::logger>("mobius",
                                              std::make_shared<spdlog::sinks::stderr_sink_mt>());
  } else {
    try {
      logger = std::make_shared<spdlog::logger>(
          "mobius", std::make_shared<spdlog::sinks::basic_file_sink_mt>(file));
    } catch (const spdlog::spdlog_ex& error) {
      throw std::runtime_error("log.file: \"" + file + "\" cannot be opened for writing");
    }
  }
  json_format = format == "json";
  // Time and level are the sink's; the rest of the line is log_event's.
  logger->set_pattern(json_format ? R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l",%v})"
                                  : "%Y-%m-%d %H:%M:%S.%e %l %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
}

void set_log_level(const std::string& level) {
  spdlog::default_logger_raw()->set_level(spdlog::level::from_str(level));
}

void log_event(LogLevel level, std::string_view event,
               std::initializer_list<std::pair<std::string_view, LogValue>> fields) {
  spdlog::logger& logger = *spdlog::default_logger_raw();
  if (!logger.should_log(to_spdlog(level))) return;
  std::string line;
  if (json_format) {
    line += "\"event\":";
    append_quoted(line, event);
    for (const auto& [name, value] : fields) {
      if (std::holds_alternative<std::monostate>(value)) continue;
      line.append(",\"").append(name).append("\":");
      append_value(line, value);
    }
  } else {
    line += event;
    for (const auto& [name, value] : fields) {
      if (std::holds_alternative<std::monostate>(value)) continue;
      line.append(" ").append(name).append("=");
      append_value(line, value);
    }
  }
  logger.log(to_spdlog(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace mobius
