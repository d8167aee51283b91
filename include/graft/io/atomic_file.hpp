#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#if __has_include(<unistd.h>)
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#define GRAFT_HAS_FSYNC 1
#else
#define GRAFT_HAS_FSYNC 0
#endif

#include "../core/error.hpp"

namespace graft {

/// A file that appears under its name whole or not at all: bytes go to a temporary file in the same
/// directory, `commit()` flushes it to the disk and renames it. Without `commit()` nothing has happened.
class AtomicFile {
 public:
  /// @throws FileError when the directory is missing or may not be written to.
  explicit AtomicFile(std::filesystem::path path) : path_(std::move(path)) {
    const std::filesystem::path directory = path_.has_parent_path() ? path_.parent_path() : ".";
    std::error_code ignored;
    if (!std::filesystem::is_directory(directory, ignored))
      fail<FileError>("'" + path_.string() + "' cannot be written",
                      "the directory '" + directory.string() + "' does not exist", "create it first");
    if (std::filesystem::is_directory(path_, ignored))
      fail<FileError>("'" + path_.string() + "' cannot be written", "a directory has that name",
                      "name a file in it");
    std::random_device random;
    do {
      char name[40];
      std::snprintf(name, sizeof name, ".graft-%08x%08x.tmp", unsigned(random()), unsigned(random()));
      temporary_ = directory / name;
      stream_ = create(temporary_);
    } while (!stream_ && errno == EEXIST);
    if (!stream_) fail_to_write(std::strerror(errno));
  }
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  ~AtomicFile() {
    if (stream_) discard();
  }

  /// @throws FileError when the disk is full or fails; the temporary file is gone then.
  void write(const void* data, std::size_t bytes) {
    if (bytes && std::fwrite(data, 1, bytes, stream_) != bytes) fail_to_write(std::strerror(errno));
  }
  void write(std::string_view text) { write(text.data(), text.size()); }

  /// Gives the file its name, replacing an older one. @throws FileError and leaves the older one as it was.
  void commit() {
    if (std::fflush(stream_) != 0) fail_to_write(std::strerror(errno));
    if (!reach_disk()) fail_to_write(std::strerror(errno));
    const bool is_closed = std::fclose(std::exchange(stream_, nullptr)) == 0;
    std::error_code error;
    if (is_closed) std::filesystem::rename(temporary_, path_, error);
    if (!is_closed || error) {
      const std::string why = error ? error.message() : std::strerror(errno);
      fail_to_write(why);
    }
    directory_reach_disk();
  }

 private:
  void discard() {
    if (stream_) std::fclose(std::exchange(stream_, nullptr));
    std::error_code ignored;
    std::filesystem::remove(temporary_, ignored);
  }
  [[noreturn]] void fail_to_write(std::string why) {
    discard();
    fail<FileError>("'" + path_.string() + "' cannot be written", std::move(why),
                    "check the space on the disk and the permissions; what was there before is unchanged");
  }

#if GRAFT_HAS_FSYNC
  std::FILE* create(const std::filesystem::path& temporary) const {
    const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor < 0) return nullptr;
    struct ::stat old {};
    // A file that is replaced keeps its permissions, as it would if it were overwritten.
    if (::stat(path_.c_str(), &old) == 0 && ::fchmod(descriptor, old.st_mode & 07777) != 0) errno = 0;
    std::FILE* stream = ::fdopen(descriptor, "wb");
    if (!stream) ::close(descriptor);
    return stream;
  }
  bool reach_disk() const { return ::fsync(::fileno(stream_)) == 0 || errno == EINVAL || errno == ENOTSUP; }
  void directory_reach_disk() const {
    const int descriptor = ::open(temporary_.parent_path().c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return;
    ::fsync(descriptor);
    ::close(descriptor);
  }
#else
  static std::FILE* create(const std::filesystem::path& temporary) {
    return std::fopen(temporary.string().c_str(), "wbx");
  }
  bool reach_disk() const { return true; }
  void directory_reach_disk() const {}
#endif

  std::filesystem::path path_, temporary_;
  std::FILE* stream_ = nullptr;
};

}  // namespace graft
