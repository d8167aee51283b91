#pragma once

#include <algorithm>
#include <cstddef>

// The C interface of a BLAS, as <cblas.h> declares it, in plain loops that count their calls and check their arguments.

enum CBLAS_ORDER { CblasRowMajor = 101, CblasColMajor = 102 };
enum CBLAS_TRANSPOSE { CblasNoTrans = 111, CblasTrans = 112, CblasConjTrans = 113 };

namespace fake_cblas {

inline int sgemm_calls = 0, dgemm_calls = 0, sgemv_calls = 0, dgemv_calls = 0, bad_arguments = 0;

/// c (m, n) = alpha op(a) (m, k) op(b) (k, n) + beta c, row-major; c is not read where beta is 0.
template <class T>
void gemm(CBLAS_ORDER order, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, T alpha, const T* a, int lda, const T* b,
          int ldb, T beta, T* c, int ldc) {
  const bool at = ta != CblasNoTrans, bt = tb != CblasNoTrans;
  if (order != CblasRowMajor || lda < std::max(1, at ? m : k) || ldb < std::max(1, bt ? k : n) || ldc < std::max(1, n)) ++bad_arguments;
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      T sum = 0;
      for (int l = 0; l < k; ++l)
        sum += a[at ? std::ptrdiff_t(l) * lda + i : std::ptrdiff_t(i) * lda + l] * b[bt ? std::ptrdiff_t(j) * ldb + l : std::ptrdiff_t(l) * ldb + j];
      T& to = c[std::ptrdiff_t(i) * ldc + j];
      to = beta == 0 ? alpha * sum : alpha * sum + beta * to;
    }
}
/// y (m) = alpha a (m, n) x + beta y, row-major; only as it stands.
template <class T>
void gemv(CBLAS_ORDER order, CBLAS_TRANSPOSE trans, int m, int n, T alpha, const T* a, int lda, const T* x, int incx, T beta, T* y,
          int incy) {
  if (order != CblasRowMajor || trans != CblasNoTrans || lda < std::max(1, n) || incx != 1 || incy != 1) ++bad_arguments;
  gemm<T>(order, CblasNoTrans, CblasNoTrans, m, 1, n, alpha, a, lda, x, 1, beta, y, 1);
}

}  // namespace fake_cblas

inline void cblas_sgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, float alpha, const float* a, int lda,
                        const float* b, int ldb, float beta, float* c, int ldc) {
  ++fake_cblas::sgemm_calls;
  fake_cblas::gemm<float>(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
inline void cblas_dgemm(CBLAS_ORDER order, CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, double alpha, const double* a, int lda,
                        const double* b, int ldb, double beta, double* c, int ldc) {
  ++fake_cblas::dgemm_calls;
  fake_cblas::gemm<double>(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
inline void cblas_sgemv(CBLAS_ORDER order, CBLAS_TRANSPOSE trans, int m, int n, float alpha, const float* a, int lda, const float* x, int incx,
                        float beta, float* y, int incy) {
  ++fake_cblas::sgemv_calls;
  fake_cblas::gemv<float>(order, trans, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
inline void cblas_dgemv(CBLAS_ORDER order, CBLAS_TRANSPOSE trans, int m, int n, double alpha, const double* a, int lda, const double* x,
                        int incx, double beta, double* y, int incy) {
  ++fake_cblas::dgemv_calls;
  fake_cblas::gemv<double>(order, trans, m, n, alpha, a, lda, x, incx, beta, y, incy);
}
