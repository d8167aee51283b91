#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <sys/mman.h>

namespace paired {

/// Aligned memory, in huge pages where it is large: what is measured is not the paging.
template <class T>
class Memory {
 public:
  Memory() = default;
  /// Zeros.
  explicit Memory(std::size_t count) : size_(count) {
    const std::size_t bytes = count * sizeof(T) + 4096;  // readable behind the end
    const std::size_t alignment = bytes >= huge ? huge : 64;
    const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    data_.reset(static_cast<T*>(std::aligned_alloc(alignment, rounded)));
    if (!data_) throw std::bad_alloc();
    if (alignment == huge) madvise(data_.get(), rounded, MADV_HUGEPAGE);
    std::memset(static_cast<void*>(data_.get()), 0, rounded);
  }

  [[nodiscard]] T* data() { return data_.get(); }
  [[nodiscard]] const T* data() const { return data_.get(); }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] std::size_t bytes() const { return size_ * sizeof(T); }

  /// Numbers of (-scale, scale).
  Memory& fill(unsigned seed, double scale = 1) {
    std::uint32_t state = seed * 2654435761u + 12345u;
    for (std::size_t i = 0; i < size_; ++i) {
      state = state * 1664525u + 1013904223u;
      data_.get()[i] = T(scale * (double(state >> 8) * (2.0 / 16777216.0) - 1));
    }
    return *this;
  }

 private:
  static constexpr std::size_t huge = std::size_t(2) << 20;
  struct Free {
    void operator()(T* data) const { std::free(data); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

}  // namespace paired
