#pragma once

/// Linear layers over a BLAS with the C interface: `graft::Linear<float, graft::dense, graft::BlasProduct>`. The program
/// links the BLAS. Its header is <cblas.h>, or what GRAFT_CBLAS_HEADER names: -DGRAFT_CBLAS_HEADER='<mkl.h>'.

#ifndef GRAFT_CBLAS_HEADER
#define GRAFT_CBLAS_HEADER <cblas.h>
#endif
#if !__has_include(GRAFT_CBLAS_HEADER)
#error "graft/blas.hpp: the BLAS's header was not found: install one, or name it by -DGRAFT_CBLAS_HEADER='<mkl.h>'"
#endif
#include GRAFT_CBLAS_HEADER

#include <algorithm>
#include <limits>
#include <string>

#include "modules/linear_product.hpp"

namespace graft {

/// cblas_sgemm and cblas_dgemm; for one row cblas_sgemv and cblas_dgemv, which BLAS libraries do better. The threads are the
/// BLAS's own, and the bits of a row may depend on the number of rows. @throws ShapeError for sizes beyond an int.
struct BlasProduct {
  void operator()(const In<float>& x, const In<float>& weight, Out<float> y) const {
    run(x, weight, y, [](auto... a) { cblas_sgemv(a...); }, [](auto... a) { cblas_sgemm(a...); });
  }
  void operator()(const In<double>& x, const In<double>& weight, Out<double> y) const {
    run(x, weight, y, [](auto... a) { cblas_dgemv(a...); }, [](auto... a) { cblas_dgemm(a...); });
  }

 private:
  static int size(Index value) {
    if (value > std::numeric_limits<int>::max())
      fail<ShapeError>("a product with a dimension of " + std::to_string(value) + " for a BLAS", "the BLAS counts with int",
                       "use graft's product for this layer");
    return int(value);
  }
  template <class T, class Gemv, class Gemm>
  static void run(const In<T>& x, const In<T>& weight, Out<T>& y, Gemv gemv, Gemm gemm) {
    const int n = size(x.rows()), in = size(weight.cols()), out = size(weight.rows()), ldw = size(weight.outerStride());
    if (n == 1) return gemv(CblasRowMajor, CblasNoTrans, out, in, T(1), weight.data(), ldw, x.data(), 1, T(0), y.data(), 1);
    gemm(CblasRowMajor, CblasNoTrans, CblasTrans, n, out, in, T(1), x.data(), size(x.outerStride()), weight.data(), ldw, T(0), y.data(),
         size(y.outerStride()));
  }
};

}  // namespace graft
