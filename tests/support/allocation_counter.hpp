#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>

#include "allocations.hpp"

// Counts what the calling thread takes from the heap: malloc and its kin where the C library lets a program replace
// them, else operator new alone (under sanitizers, which replace malloc themselves).
// To be included by one source file of a program: it defines the functions that it counts.

#if defined(__GLIBC__) && !defined(SUPPORT_SANITIZED)

// operator new of libstdc++ and libc++ goes through these
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t bytes) {
  support::count_allocation(bytes);
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  support::count_allocation(count * bytes);
  return __libc_calloc(count, bytes);
}
void* realloc(void* block, std::size_t bytes) {
  support::count_allocation(bytes);
  return __libc_realloc(block, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) {
  support::count_allocation(bytes);
  return __libc_memalign(alignment, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) { return memalign(alignment, bytes); }
int posix_memalign(void** block, std::size_t alignment, std::size_t bytes) {
  *block = memalign(alignment, bytes);
  return *block ? 0 : ENOMEM;
}
}

#else

void* operator new(std::size_t bytes) {
  support::count_allocation(bytes);
  if (void* block = std::malloc(bytes ? bytes : 1)) return block;
  throw std::bad_alloc();
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  support::count_allocation(bytes);
  const std::size_t to = std::size_t(alignment);
  if (void* block = std::aligned_alloc(to, (bytes + to) / to * to)) return block;
  throw std::bad_alloc();
}
// std::stable_sort asks for its buffer so
void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  support::count_allocation(bytes);
  return std::malloc(bytes ? bytes : 1);
}
void* operator new[](std::size_t bytes) { return operator new(bytes); }
void* operator new[](std::size_t bytes, const std::nothrow_t& nothrow) noexcept { return operator new(bytes, nothrow); }
void* operator new[](std::size_t bytes, std::align_val_t alignment) { return operator new(bytes, alignment); }
void operator delete(void* block) noexcept { std::free(block); }
void operator delete(void* block, std::size_t) noexcept { std::free(block); }
void operator delete(void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }
void operator delete(void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block, const std::nothrow_t&) noexcept { std::free(block); }
void operator delete[](void* block) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t) noexcept { std::free(block); }
void operator delete[](void* block, std::align_val_t) noexcept { std::free(block); }
void operator delete[](void* block, std::size_t, std::align_val_t) noexcept { std::free(block); }

#endif
