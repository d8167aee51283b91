#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace graft::detail {

inline constexpr std::size_t huge_page = std::size_t{2} << 20;

/// Zeroed memory that is taken in huge pages, where the system has them: a page fault for each 4 KiB of a large parameter
/// costs more than its values. Null where it cannot be had.
inline std::shared_ptr<std::byte> zeroed_in_huge_pages([[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (bytes > std::size_t(-1) / 2) return nullptr;
  const std::size_t size = (bytes + huge_page - 1) / huge_page * huge_page;
  void* mapped = mmap(nullptr, size + huge_page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const all = static_cast<std::byte*>(mapped);
  const std::size_t before = (huge_page - reinterpret_cast<std::uintptr_t>(all) % huge_page) % huge_page;
  std::byte* const memory = all + before;
  if (before) munmap(all, before);
  if (before < huge_page) munmap(memory + size, huge_page - before);
  madvise(memory, size, MADV_HUGEPAGE);  // advice: without it the memory is as good
  return {memory, [size](std::byte* p) { munmap(p, size); }};
#else
  return nullptr;
#endif
}

/// Zeroed memory that begins with a line of the cache, since registers that lie across two lines are read and written at half
/// the speed. If it is large, it costs nothing until it is touched.
inline std::shared_ptr<std::byte> zeroed(std::size_t bytes) {
  constexpr std::size_t line = 64, small = std::size_t{64} << 10;
  if (bytes <= small) {
    auto* const memory = static_cast<std::byte*>(::operator new(bytes, std::align_val_t{line}));
    std::memset(memory, 0, bytes);
    return {memory, [](std::byte* p) { ::operator delete(p, std::align_val_t{line}); }};
  }
  if (bytes >= 2 * huge_page)
    if (auto memory = zeroed_in_huge_pages(bytes)) return memory;
  // calloc leaves fresh pages alone, and knows of no lines
  void* const block = bytes < std::size_t(-1) - line ? std::calloc(bytes + line, 1) : nullptr;
  if (!block) {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
  }
  auto* const memory = static_cast<std::byte*>(block) + (line - reinterpret_cast<std::uintptr_t>(block) % line) % line;
  return {memory, [block](std::byte*) { std::free(block); }};
}

}  // namespace graft::detail
