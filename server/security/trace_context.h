#pragma once

#include <string>
#include <string_view>

namespace mobius {

/// A request's place in a trace that its client began, by W3C Trace Context
/// (https://www.w3.org/TR/trace-context).
struct TraceContext {
  std::string trace_id;   ///< 32 hexadecimal digits; empty: the request belongs to no trace
  std::string parent_id;  ///< 16: the client's span
  std::string span_id;    ///< 16: this request's own, new
  std::string flags;      ///< 2: whether the client records the trace

  bool empty() const { return trace_id.empty(); }
  /// The value of the header `traceresponse`, which tells the client of the span made for it
  /// (https://w3c.github.io/trace-context/#traceresponse-header). Empty without a trace.
  std::string response() const;
};

/// Reads the header `traceparent` of any version. What is not valid is no trace, as the
/// specification wants it, and no error. Thread-safe.
TraceContext trace_context(std::string_view traceparent);

}  // namespace mobius
