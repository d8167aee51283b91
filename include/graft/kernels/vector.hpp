#pragma once

#include "isa.hpp"

// Registers of T as vector extensions, for the bodies of kernels: Vector<T>, load, store, multiply_add.
#if defined(__has_builtin)
#if __has_builtin(__builtin_elementwise_fma)
#define GRAFT_HAS_BUILTIN_FMA 1
#endif
#endif
#ifndef GRAFT_HAS_BUILTIN_FMA
#define GRAFT_HAS_BUILTIN_FMA 0
#endif

#define GRAFT_KERNELS "vector.inc"
#include "for_each_isa.inc"
