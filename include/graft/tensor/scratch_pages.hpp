#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "zeroed.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define GRAFT_WATCHED_MEMORY
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define GRAFT_WATCHED_MEMORY
#endif
#endif

namespace graft::detail {

/// Large blocks of scratch, cut one after the other from huge pages and given back all together. What a product copies for
/// its loops it reads again and again; over many small pages, a core knows the addresses of too few of them, and where they
/// lie in the second-level cache is left to chance.
class ScratchPages {
 public:
  /// The smallest block that is cut: clearing a page takes longer than most work on a smaller one. A tool that watches
  /// memory sees the borders of blocks on the heap only.
#if defined(GRAFT_WATCHED_MEMORY)
  static constexpr std::size_t least = std::size_t(-1);
#else
  static constexpr std::size_t least = std::size_t{512} << 10;
#endif

  /// `size` bytes, a power of two from `least` on.
  [[nodiscard]] std::byte* cut(std::size_t size) {
    if (size >= huge_page) return add(size).get();
    if (!opened_ || huge_page - cut_ < size) {
      opened_ = add(huge_page);
      cut_ = 0;
    }
    return opened_.get() + std::exchange(cut_, cut_ + size);
  }
  /// The bytes that are held, cut or not.
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  /// Gives everything back. No block may be in use.
  void clear() noexcept { *this = {}; }

 private:
  std::shared_ptr<std::byte> add(std::size_t size) {
    auto page = zeroed_in_huge_pages(size);
    if (!page) {
      auto* const memory = static_cast<std::byte*>(::operator new(size, std::align_val_t{64}));
      page = {memory, [](std::byte* block) { ::operator delete(block, std::align_val_t{64}); }};
    }
    bytes_ += size;
    return pages_.emplace_back(std::move(page));
  }

  std::vector<std::shared_ptr<std::byte>> pages_{};
  std::shared_ptr<std::byte> opened_{};  ///< the page whose rest is cut next
  std::size_t cut_ = 0, bytes_ = 0;
};

}  // namespace graft::detail

#undef GRAFT_WATCHED_MEMORY
