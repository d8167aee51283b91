#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <string>
#include <system_error>

#if __has_include(<sys/mman.h>)
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
#define GRAFT_HAS_MMAP 1
#else
#define GRAFT_HAS_MMAP 0
#endif

#include "../core/error.hpp"

namespace graft {

/// The bytes of a whole file, as a private mapping: a page is read when it is first touched, and what is
/// written to the bytes never reaches the file. Where the system cannot map, the file is read instead.
/// Truncating a mapped file in place makes later reads fatal; replacing it by a rename is safe.
class MappedFile {
 public:
  /// @throws FileError when `path` is missing, not a regular file, or may not be read.
  [[nodiscard]] static std::shared_ptr<const MappedFile> open(const std::filesystem::path& path) {
    std::shared_ptr<MappedFile> file(new MappedFile);
    const std::size_t size = regular_file_size(path);
    if (GRAFT_HAS_MMAP && size > 0)
      file->map(path, size);
    else
      file->read(path, size);
    return file;
  }
  /// Reads the file into memory of its own, which later changes of the file do not reach.
  /// @throws FileError as `open` does.
  [[nodiscard]] static std::shared_ptr<const MappedFile> copy(const std::filesystem::path& path) {
    std::shared_ptr<MappedFile> file(new MappedFile);
    file->read(path, regular_file_size(path));
    return file;
  }

  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() {
#if GRAFT_HAS_MMAP
    if (is_mapping_) ::munmap(data_, size_);
#endif
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }

 private:
  MappedFile() = default;

  static std::size_t regular_file_size(const std::filesystem::path& path) {
    std::error_code error;
    const auto status = std::filesystem::status(path, error);
    if (!std::filesystem::exists(status)) {
      if (status.type() == std::filesystem::file_type::not_found || !error)
        fail<FileError>("'" + path.string() + "' does not exist", "no such file",
                        "check the path; relative paths start at the current directory");
      fail_to_read(path, error.message());
    }
    if (std::filesystem::is_directory(status))
      fail<FileError>("'" + path.string() + "' is a directory", "a file is needed here",
                      "name the file in it, such as adapter_model.safetensors");
    if (!std::filesystem::is_regular_file(status))
      fail<FileError>("'" + path.string() + "' is not a regular file",
                      "pipes and devices have no size to check against", "copy it to a file first");
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) fail_to_read(path, error.message());
    if (size > std::uintmax_t{PTRDIFF_MAX}) fail_to_read(path, "it is larger than the address space");
    return std::size_t(size);
  }
  [[noreturn]] static void fail_to_read(const std::filesystem::path& path, std::string why) {
    fail<FileError>("'" + path.string() + "' cannot be read", std::move(why),
                    "check its permissions and that the disk is readable");
  }

#if GRAFT_HAS_MMAP
  void map(const std::filesystem::path& path, std::size_t size) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail_to_read(path, std::strerror(errno));
    int flags = MAP_PRIVATE;
#ifdef MAP_NORESERVE
    flags |= MAP_NORESERVE;  // pages are rarely written, so no swap is set aside for all of them
#endif
    void* address = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, descriptor, 0);
    const int error = errno;
    ::close(descriptor);
    if (address == MAP_FAILED) fail_to_read(path, std::strerror(error));
    data_ = static_cast<std::byte*>(address);
    size_ = size;
    is_mapping_ = true;
  }
#else
  void map(const std::filesystem::path&, std::size_t) {}
#endif

  void read(const std::filesystem::path& path, std::size_t size) {
    std::ifstream stream(path, std::ios::binary);
    if (!stream) fail_to_read(path, std::strerror(errno));
    memory_ = std::make_unique_for_overwrite<std::byte[]>(size + alignment);
    const auto address = reinterpret_cast<std::uintptr_t>(memory_.get());
    data_ = memory_.get() + (alignment - address % alignment);
    if (size && !stream.read(reinterpret_cast<char*>(data_), std::streamsize(size)))
      fail_to_read(path, "it ended early: somebody else is writing to it");
    size_ = size;
  }

  static constexpr std::size_t alignment = 64;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  bool is_mapping_ = false;
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace graft
