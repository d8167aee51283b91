#pragma once

#include <cstddef>

/// The kernels of one translation unit: where they live and what they compute.
struct Products {
  const char* instruction_set;
  void (*product_nt)(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, const float* w,
                     float* y);
  void (*product_nn)(std::ptrdiff_t n, std::ptrdiff_t out, std::ptrdiff_t in, const float* x, const float* w,
                     float* y);
};

Products baseline_products();
Products avx2_products();
Products avx512_products();
