#pragma once

#include <cstddef>
#include <cstdlib>

// How often code takes memory from the heap. One source file of the program includes allocation_counter.hpp, which counts;
// without it there is nothing to be seen.

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SUPPORT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SUPPORT_SANITIZED 1
#endif
#endif

namespace support {

inline thread_local std::size_t allocations = 0, allocated_bytes = 0;

inline void count_allocation(std::size_t bytes) {
  ++allocations;
  allocated_bytes += bytes;
}

/// How often `f` took memory from the heap.
template <class F>
std::size_t allocations_of(F&& f) {
  const std::size_t before = allocations;
  f();
  return allocations - before;
}

/// How many bytes `f` took from the heap, given back or not.
template <class F>
std::size_t bytes_of(F&& f) {
  const std::size_t before = allocated_bytes;
  f();
  return allocated_bytes - before;
}

/// Whether malloc is counted too; sanitizers replace it themselves.
#if defined(__GLIBC__) && !defined(SUPPORT_SANITIZED)
inline constexpr bool counts_malloc = true;
#else
inline constexpr bool counts_malloc = false;
#endif

}  // namespace support
