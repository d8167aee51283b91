#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "shape.hpp"

namespace graft {

/// Scratch memory that is given back and used again: from the second pass on, nothing is taken from the heap.
/// Blocks are 64-byte aligned and come in powers of two. It belongs to one thread at a time.
class Workspace {
 public:
  /// A block of at least `bytes` bytes.
  [[nodiscard]] std::byte* take(std::size_t bytes) {
    auto& blocks = free_[size_class(bytes)];
    if (blocks.empty()) {
      // room for this block's return, so that give() never allocates
      blocks.reserve(++made_[size_class(bytes)]);
      reserved_ += std::size_t{1} << size_class(bytes);
      return static_cast<std::byte*>(::operator new(std::size_t{1} << size_class(bytes), std::align_val_t{64}));
    }
    std::byte* block = blocks.back().release();
    blocks.pop_back();
    return block;
  }
  /// Returns a block that was taken with the same number of bytes.
  void give(std::byte* block, std::size_t bytes) noexcept { free_[size_class(bytes)].emplace_back(block); }
  /// All bytes ever taken from the heap and still held.
  [[nodiscard]] std::size_t reserved() const { return reserved_; }

 private:
  struct Free {
    void operator()(std::byte* block) const { ::operator delete(block, std::align_val_t{64}); }
  };
  static std::size_t size_class(std::size_t bytes) { return std::bit_width(bytes < 64 ? std::size_t{63} : bytes - 1); }

  std::array<std::vector<std::unique_ptr<std::byte, Free>>, 64> free_{};
  std::array<std::size_t, 64> made_{};
  std::size_t reserved_ = 0;
};

/// `count` elements of scratch for a scope: from the workspace, or from the heap where there is none.
template <class T>
class Scratch {
 public:
  Scratch(Workspace* workspace, Index count)
      : workspace_(workspace), bytes_(std::size_t(count) * sizeof(T)) {
    if (workspace_) data_ = reinterpret_cast<T*>(workspace_->take(bytes_));
    else if (count) data_ = static_cast<T*>(::operator new(bytes_, std::align_val_t{64}));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (workspace_) workspace_->give(reinterpret_cast<std::byte*>(data_), bytes_);
    else ::operator delete(data_, std::align_val_t{64});
  }
  [[nodiscard]] T* data() const { return data_; }

 private:
  Workspace* workspace_;
  std::size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace graft
