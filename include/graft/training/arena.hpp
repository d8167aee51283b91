#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <vector>

#include "../core/version.hpp"

namespace graft::detail {

/// Memory that is taken piece by piece and given back all at once: what a pass records. Its chunks are kept, so that the
/// next pass of that kind takes nothing from the heap.
class Arena {
 public:
  /// `bytes` bytes at a multiple of 64, not initialised, until reset().
  [[nodiscard]] std::byte* take(std::size_t bytes) {
    bytes = (std::max<std::size_t>(bytes, 1) + alignment - 1) / alignment * alignment;
    while (here_ < chunks_.size() && chunks_[here_].size - at_ < bytes) {
      ++here_;
      at_ = 0;
    }
    if (here_ == chunks_.size()) {
      const std::size_t size = std::max({bytes, least, reserved_});  // twice as much in all: few chunks
      chunks_.push_back({std::unique_ptr<std::byte, Free>(static_cast<std::byte*>(::operator new(size, std::align_val_t{alignment}))), size});
      reserved_ += size;
    }
    std::byte* const piece = chunks_[here_].memory.get() + at_;
    at_ += bytes;
    return piece;
  }
  /// All pieces are free again.
  void reset() {
    here_ = 0;
    at_ = 0;
  }
  /// The bytes of all chunks.
  [[nodiscard]] std::size_t reserved() const { return reserved_; }

 private:
  static constexpr std::size_t alignment = 64, least = std::size_t{1} << 16;
  struct Free {
    void operator()(std::byte* memory) const { ::operator delete(memory, std::align_val_t{alignment}); }
  };
  struct Chunk {
    std::unique_ptr<std::byte, Free> memory;
    std::size_t size;
  };

  std::vector<Chunk> chunks_;
  std::size_t here_ = 0, at_ = 0, reserved_ = 0;
};

}  // namespace graft::detail
