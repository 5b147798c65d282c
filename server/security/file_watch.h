#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace mobius {

/// Notices that files have been replaced or written to, by looking at them once a second. Follows
/// symbolic links, so that a link that is turned to another file counts too.
class FileWatch {
 public:
  struct Subject {
    std::vector<std::string> files;  ///< empty names are left out
    std::function<void()> changed;   ///< on the watch's thread; must not throw
  };

  explicit FileWatch(std::vector<Subject> subjects);
  /// Waits for a callback that runs.
  ~FileWatch();
  FileWatch(const FileWatch&) = delete;
  FileWatch& operator=(const FileWatch&) = delete;

  /// From any thread: calls every subject's callback soon, whatever its files look like.
  void force();

 private:
  struct Stamp {
    long long device = 0, inode = 0, size = -1, seconds = 0, nanoseconds = 0;
    bool operator==(const Stamp&) const = default;
  };

  static std::vector<Stamp> stamps_of(const Subject& subject);
  void run();

  const std::vector<Subject> subjects_;
  std::vector<std::vector<Stamp>> known_;  // the thread's, once it runs
  std::mutex mutex_;
  std::condition_variable wake_;
  bool forced_ = false;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace mobius
