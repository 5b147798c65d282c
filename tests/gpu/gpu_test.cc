// Every operation of the CUDA backend against the float64 oracle, on random data.
//
//   gpu_test [--small] [--filter GROUP] [--json FILE --commit ID --date DATE]
//
// Prints a table, exits with 1 where a line failed.

#include <cuda_runtime_api.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "kernels/cuda/check.h"
#include "tests/gpu/cases.h"

namespace mobius::gpu {
namespace {

std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + '"';
}

void write_json(const std::string& file, const std::string& commit, const std::string& date,
                const Report& report) {
  cudaDeviceProp properties{};
  MOBIUS_CUDA(cudaGetDeviceProperties(&properties, 0));
  std::ofstream out(file);
  out << "{\n  \"device\": " << quoted(properties.name) << ",\n  \"date\": " << quoted(date)
      << ",\n  \"commit\": " << quoted(commit)
      << ",\n  \"passed\": " << (report.passed() ? "true" : "false") << ",\n  \"cases\": [";
  const char* separator = "\n";
  for (const CaseResult& result : report.results()) {
    out << separator << "    {\"group\": " << quoted(result.group)
        << ", \"name\": " << quoted(result.name) << ", \"detail\": " << quoted(result.detail)
        << ", \"passed\": " << (result.passed ? "true" : "false") << "}";
    separator = ",\n";
  }
  out << "\n  ]\n}\n";
  if (!out) throw std::runtime_error("cannot write " + file);
}

int run(int argc, char** argv) {
  Options options;
  std::string json;
  std::string commit = "unknown";
  std::string date = "unknown";
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw std::runtime_error(argument + " needs a value");
      return argv[++i];
    };
    if (argument == "--small") {
      options.small = true;
    } else if (argument == "--filter") {
      options.filter = value();
    } else if (argument == "--json") {
      json = value();
    } else if (argument == "--commit") {
      commit = value();
    } else if (argument == "--date") {
      date = value();
    } else {
      throw std::runtime_error("unknown option " + argument);
    }
  }
  Report report;
  const auto group = [&](const char* name, void (*cases)(const Options&, Report&)) {
    if (std::string(name).find(options.filter) == std::string::npos) return;
    try {
      cases(options, report);
    } catch (const std::exception& error) {
      report.add({name, "stopped by an exception", error.what(), false});
    }
  };
  group("ops", run_ops_cases);
  group("sampling", run_sampling_cases);
  group("backend", run_backend_cases);
  group("attention", run_attention_cases);
  group("kv_fp8", run_kv_fp8_cases);
  group("routing", run_routing_cases);
  group("matmul", run_matmul_cases);
  group("matvec", run_matvec_cases);
  group("fp8", run_fp8_cases);
  std::printf("%s\n", report.passed() ? "All passed." : "FAILED.");
  if (!json.empty()) write_json(json, commit, date, report);
  return report.passed() ? 0 : 1;
}

}  // namespace
}  // namespace mobius::gpu

int main(int argc, char** argv) {
  try {
    return mobius::gpu::run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "gpu_test: %s\n", error.what());
    return 1;
  }
}
