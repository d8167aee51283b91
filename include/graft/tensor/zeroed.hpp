#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
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

/// Zeroed memory that costs nothing until it is touched.
inline std::shared_ptr<std::byte> zeroed(std::size_t bytes) {
  if (bytes >= 2 * huge_page)
    if (auto memory = zeroed_in_huge_pages(bytes)) return memory;
  auto* memory = static_cast<std::byte*>(std::calloc(bytes ? bytes : 1, 1));
  if (!memory) {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
  }
  return {memory, [](std::byte* p) { std::free(p); }};
}

}  // namespace graft::detail
