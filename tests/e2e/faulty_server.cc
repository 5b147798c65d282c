// The server, with a model that fails when a file of a test's says so. MOBIUS_FAULTS names the
// folder; what is in it: `hold` keeps loading from ending; `load`, `submit` and `wait` make loading
// and steps fail (where a kernel throws, where a device reports), with the file's text as the
// reason.
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

#include "server/program.h"

namespace mobius {
namespace {

const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const char* const name = std::getenv("MOBIUS_FAULTS");
    if (name == nullptr) throw std::runtime_error("MOBIUS_FAULTS is not set");
    return std::filesystem::path(name);
  }();
  return path;
}

void fail_if(const char* name) {
  std::ifstream file(folder() / name);
  if (!file) return;
  std::ostringstream text;
  text << file.rdbuf();
  throw std::runtime_error(text.str());
}

class FaultyRunner : public Runner {
 public:
  explicit FaultyRunner(std::unique_ptr<Runner> runner) : runner_(std::move(runner)) {}

  const RunnerInfo& info() const override { return runner_->info(); }
  void submit(const StepBatch& batch) override {
    fail_if("submit");
    runner_->submit(batch);
  }
  std::span<const SampledToken> wait() override {
    const auto tokens = runner_->wait();
    fail_if("wait");
    return tokens;
  }

 private:
  std::unique_ptr<Runner> runner_;
};

std::unique_ptr<Runner> make_faulty(std::unique_ptr<Runner> runner) {
  while (std::filesystem::exists(folder() / "hold")) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  fail_if("load");
  return std::make_unique<FaultyRunner>(std::move(runner));
}

}  // namespace
}  // namespace mobius

int main(int argc, char** argv) {
  return mobius::run_program(argc, argv, mobius::make_faulty);
}
