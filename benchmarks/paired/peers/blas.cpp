// A BLAS library through its C interface: OpenBLAS or BLIS.
#include "../peer.hpp"

extern "C" {
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float* a, int lda,
                 const float* b, int ldb, float beta, float* c, int ldc);
void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha, const double* a, int lda,
                 const double* b, int ldb, double beta, double* c, int ldc);
void cblas_sgemv(int order, int trans, int m, int n, float alpha, const float* a, int lda, const float* x, int incx,
                 float beta, float* y, int incy);
void cblas_dgemv(int order, int trans, int m, int n, double alpha, const double* a, int lda, const double* x, int incx,
                 double beta, double* y, int incy);
#if defined(PEER_OPENBLAS)
char* openblas_get_config();
#elif defined(PEER_BLIS)
const char* bli_info_get_version_str();
#endif
}

namespace {

constexpr int row_major = 101, as_it_is = 111, transposed = 112;

const char* version() {
#if defined(PEER_OPENBLAS)
  return openblas_get_config();
#elif defined(PEER_BLIS)
  return bli_info_get_version_str();
#endif
}

// The number of threads comes from the environment: OPENBLAS_NUM_THREADS, BLIS_NUM_THREADS.
void* prepare(const PeerJob* job) {
  return job->operation == peer_product ? new PeerJob(*job) : nullptr;
}

void run(void* task) {
  const PeerJob& job = *static_cast<const PeerJob*>(task);
  const int n = int(job.n), in = int(job.in), out = int(job.out);
  if (job.is_double) {
    const auto *x = static_cast<const double*>(job.x), *w = static_cast<const double*>(job.w);
    auto* y = static_cast<double*>(job.y);
    if (n == 1) cblas_dgemv(row_major, as_it_is, out, in, 1, w, in, x, 1, 0, y, 1);
    else cblas_dgemm(row_major, as_it_is, transposed, n, out, in, 1, x, in, w, in, 0, y, out);
  } else {
    const auto *x = static_cast<const float*>(job.x), *w = static_cast<const float*>(job.w);
    auto* y = static_cast<float*>(job.y);
    if (n == 1) cblas_sgemv(row_major, as_it_is, out, in, 1, w, in, x, 1, 0, y, 1);
    else cblas_sgemm(row_major, as_it_is, transposed, n, out, in, 1, x, in, w, in, 0, y, out);
  }
}

void release(void* task) { delete static_cast<PeerJob*>(task); }

const PeerApi api{PEER_NAME, version, prepare, run, release};

}  // namespace

const PeerApi* paired_peer() { return &api; }
