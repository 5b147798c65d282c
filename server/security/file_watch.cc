#include "server/security/file_watch.h"

#include <sys/stat.h>

#include <chrono>
#include <utility>

namespace mobius {

FileWatch::FileWatch(std::vector<Subject> subjects) : subjects_(std::move(subjects)) {
  for (const Subject& subject : subjects_) known_.push_back(stamps_of(subject));
  thread_ = std::thread([this] { run(); });
}

FileWatch::~FileWatch() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void FileWatch::force() {
  {
    const std::lock_guard lock(mutex_);
    forced_ = true;
  }
  wake_.notify_all();
}

std::vector<FileWatch::Stamp> FileWatch::stamps_of(const Subject& subject) {
  std::vector<Stamp> stamps;
  for (const std::string& file : subject.files) {
    Stamp& stamp = stamps.emplace_back();
    struct stat info {};
    if (file.empty() || stat(file.c_str(), &info) != 0) continue;
    stamp = {static_cast<long long>(info.st_dev), static_cast<long long>(info.st_ino),
             static_cast<long long>(info.st_size), info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  }
  return stamps;
}

void FileWatch::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait_for(lock, std::chrono::seconds(1), [this] { return stopping_ || forced_; });
    if (stopping_) return;
    const bool forced = std::exchange(forced_, false);
    lock.unlock();
    for (std::size_t i = 0; i < subjects_.size(); ++i) {
      // Before the callback reads: what is written while it does is a change for the next look.
      std::vector<Stamp> now = stamps_of(subjects_[i]);
      if (!forced && now == known_[i]) continue;
      known_[i] = std::move(now);
      subjects_[i].changed();
    }
    lock.lock();
  }
}

}  // namespace mobius
