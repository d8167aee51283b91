#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "parallel_for.hpp"
#include "scratch_pages.hpp"
#include "shape.hpp"

namespace graft {

/// Scratch memory that is given back and used again: from the second pass on, nothing is taken from the heap.
/// Blocks are 64-byte aligned and come in powers of two. It belongs to one thread at a time, and carries how that
/// thread's loops run and what memory their pieces have.
class Workspace {
 public:
  /// A block of at least `bytes` bytes.
  [[nodiscard]] std::byte* take(std::size_t bytes) {
    const std::size_t size_class = class_of(bytes), size = std::size_t{1} << size_class;
    auto& blocks = free_[size_class];
    std::byte* block;
    if (blocks.empty()) {
      // room for this block's return, so that give() never allocates
      blocks.reserve(made_[size_class] + 1);
      if (is_cut(size_class)) {
        block = pages_.cut(size);
      } else {
        block = static_cast<std::byte*>(::operator new(size, std::align_val_t{64}));
        reserved_ += size;
      }
      ++made_[size_class];
    } else {
      block = blocks.back().release();
      blocks.pop_back();
    }
    in_use_ += size;
    if (in_use_ > peak_) peak_ = in_use_;
    return block;
  }
  /// Returns a block that was taken with the same number of bytes.
  void give(std::byte* block, std::size_t bytes) noexcept {
    const std::size_t size_class = class_of(bytes), size = std::size_t{1} << size_class;
    in_use_ -= size;
    free_[size_class].emplace_back(block, Free{!is_cut(size_class)});
  }
  /// All bytes that are held, taken or free; these and the following include what pieces have.
  [[nodiscard]] std::size_t reserved() const { return sum_over_pieces(reserved_ + pages_.bytes(), &Workspace::reserved); }
  /// The bytes of the blocks that are taken now. 0 between passes whose values are gone.
  [[nodiscard]] std::size_t in_use() const { return sum_over_pieces(in_use_, &Workspace::in_use); }
  /// The most that was in use at once since the beginning or the last reset_peak(): what passes of that kind need. Of
  /// pieces it is the sum, as if all of them had had the most at the same time.
  [[nodiscard]] std::size_t peak() const { return sum_over_pieces(peak_, &Workspace::peak); }
  void reset_peak() {
    peak_ = in_use_;
    for (const auto& piece : pieces_) piece->reset_peak();
  }
  /// Gives the free blocks back to the heap: after a pass that was larger than those to come. The next one allocates.
  /// Blocks of 512 KiB and more share pages, and go when none of them is taken.
  void trim() noexcept {
    for (const auto& piece : pieces_) piece->trim();
    bool keeps_pages = false;
    for (std::size_t size_class = 0; size_class < free_.size(); ++size_class)
      keeps_pages |= is_cut(size_class) && made_[size_class] > free_[size_class].size();
    if (!keeps_pages) pages_.clear();
    for (std::size_t size_class = 0; size_class < free_.size(); ++size_class) {
      if (is_cut(size_class) && keeps_pages) continue;
      if (!is_cut(size_class)) reserved_ -= free_[size_class].size() << size_class;
      made_[size_class] -= free_[size_class].size();
      free_[size_class].clear();
    }
  }

  /// How the forwards on this memory cut their products into pieces; at first not at all.
  void set_parallel_for(const ParallelFor& parallel_for) { parallel_for_ = parallel_for; }
  [[nodiscard]] const ParallelFor& parallel_for() const { return parallel_for_; }
  /// Memory for the pieces of a loop that take some of their own, since each may run on another thread: asked for before
  /// the loop, for as many pieces as it has. Piece i uses what stands at i.
  [[nodiscard]] std::span<const std::unique_ptr<Workspace>> for_pieces(Index count) {
    while (Index(pieces_.size()) < count) pieces_.push_back(std::make_unique<Workspace>());
    return pieces_;
  }

 private:
  struct Free {
    bool is_of_heap;
    void operator()(std::byte* block) const {
      if (is_of_heap) ::operator delete(block, std::align_val_t{64});
    }
  };
  [[nodiscard]] std::size_t sum_over_pieces(std::size_t own, std::size_t (Workspace::*of)() const) const {
    for (const auto& piece : pieces_) own += ((*piece).*of)();
    return own;
  }
  static constexpr bool is_cut(std::size_t size_class) { return (std::size_t{1} << size_class) >= detail::ScratchPages::least; }
  static std::size_t class_of(std::size_t bytes) { return std::size_t(std::bit_width(bytes < 64 ? std::size_t{63} : bytes - 1)); }

  detail::ScratchPages pages_{};
  std::array<std::vector<std::unique_ptr<std::byte, Free>>, 64> free_{};
  std::array<std::size_t, 64> made_{};
  std::size_t reserved_ = 0, in_use_ = 0, peak_ = 0;
  ParallelFor parallel_for_{};
  std::vector<std::unique_ptr<Workspace>> pieces_;
};

namespace detail {
template <std::size_t size>
struct BytesInPlace {
  [[nodiscard]] std::byte* data() { return bytes; }
  alignas(64) std::byte bytes[size];  // not filled: a small layer would feel it
};
template <>
struct BytesInPlace<0> {
  [[nodiscard]] static std::byte* data() { return nullptr; }
};
}  // namespace detail

/// `count` elements of scratch for a scope, not initialised: up to `few` in the object itself, more from the workspace, or
/// from the heap where there is none. Null for none where `few` is 0.
template <class T, std::size_t few = 0>
class Scratch {
 public:
  Scratch(Workspace* workspace, Index count)
      : workspace_(workspace), bytes_(std::size_t(count) <= few ? 0 : std::size_t(count) * sizeof(T)) {
    if (bytes_ == 0) data_ = reinterpret_cast<T*>(in_place_.data());
    else if (workspace_) data_ = reinterpret_cast<T*>(workspace_->take(bytes_));
    else data_ = static_cast<T*>(::operator new(bytes_, std::align_val_t{64}));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (bytes_ == 0) return;
    if (workspace_) workspace_->give(reinterpret_cast<std::byte*>(data_), bytes_);
    else ::operator delete(data_, std::align_val_t{64});
  }
  [[nodiscard]] T* data() const { return data_; }

 private:
  Workspace* workspace_;
  std::size_t bytes_;
  T* data_;
  [[no_unique_address]] detail::BytesInPlace<few * sizeof(T)> in_place_;
};

}  // namespace graft
