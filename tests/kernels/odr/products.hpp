#pragma once

#include <cstddef>

/// The kernels of one translation unit: where they live and what they compute.
struct Products {
  const char* flags;            ///< the namespace, named after the flags
  const char* instruction_set;  ///< chosen at run time
  void (*product_nt)(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, const float* w,
                     float* y);
  void (*product_nn)(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, const float* w,
                     float* y);
};

Products baseline_products();
Products avx2_products();
Products avx512_products();
Products only_baseline_products();  ///< built with -DGRAFT_ISA=baseline
