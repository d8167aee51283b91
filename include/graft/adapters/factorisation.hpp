#pragma once

#include <algorithm>
#include <utility>

#include <Eigen/QR>
#include <Eigen/SVD>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../modules/random_fill.hpp"
#include "factorisers.hpp"

namespace graft::detail {

/// m = u · diag(s) · vᵀ with s descending; u (rows, k), v (cols, k), k the smaller dimension.
struct Svd {
  Matrix<double> u, v;
  Eigen::VectorXd s;
};
/// m = q · r with the columns of q (rows, k) orthonormal and r (k, cols) upper trapezoidal.
struct Qr {
  Matrix<double> q, r;
};

/// @throws AdapterError for values that are not finite.
template <class = OnDemand>
[[nodiscard]] Svd thin_svd(const Eigen::MatrixXd& m) {
  if (!m.allFinite())
    fail<AdapterError>("a matrix of shape " + to_string(Shape{m.rows(), m.cols()}) + " cannot be factorised",
                       "it has values that are not finite", "check the weights that it was made from");
  if (m.size() == 0) return {Matrix<double>(m.rows(), 0), Matrix<double>(m.cols(), 0), Eigen::VectorXd(0)};
  constexpr int thin = Eigen::ComputeThinU | Eigen::ComputeThinV;
#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
  const Eigen::BDCSVD<Eigen::MatrixXd, thin> svd(m);
#else
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(m, thin);
#endif
  return {svd.matrixU(), svd.matrixV(), svd.singularValues()};
}
GRAFT_SHARED_FUNCTION(thin_svd<>)

template <class = OnDemand>
[[nodiscard]] Qr thin_qr(const Matrix<double>& m) {
  const Index k = std::min(m.rows(), m.cols());
  if (k == 0) return {Matrix<double>(m.rows(), 0), Matrix<double>(0, m.cols())};
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(m);
  Eigen::MatrixXd q = Eigen::MatrixXd::Identity(m.rows(), k);
  q.applyOnTheLeft(qr.householderQ());
  Matrix<double> r = qr.matrixQR().topRows(k).triangularView<Eigen::Upper>();
  return {std::move(q), std::move(r)};
}
GRAFT_SHARED_FUNCTION(thin_qr<>)

/// A product of rank r at most: QR of b and of aᵀ, and the SVD of a core of (r, r).
[[nodiscard]] inline Svd product_svd(const LowRank<double>& product) {
  const Qr left = thin_qr(product.b), right = thin_qr(product.a.transpose());
  Svd core = thin_svd(left.r * right.r.transpose());
  return {left.q * core.u, right.q * core.v, std::move(core.s)};
}

/// Subspace iteration (Halko, Martinsson, Tropp: "Finding structure with randomness", 2011) with as many
/// vectors as ranks: torch's `svd_lowrank(m, r, niter)`.
[[nodiscard]] inline Svd randomised_svd(const Matrix<double>& m, Index r, Index iterations,
                                        const Seed& seed) {
  ParameterData random(Dtype::f64, {m.cols(), r});
  fill_normal(random, seed, 1);
  const Eigen::Map<const Matrix<double>> start(reinterpret_cast<const double*>(random.data()), m.cols(), r);
  Matrix<double> q = thin_qr(m * start).q;
  for (Index i = 0; i < iterations; ++i) {
    const Matrix<double> down = thin_qr(m.transpose() * q).q;
    q = thin_qr(m * down).q;
  }
  Svd small = thin_svd(q.transpose() * m);
  return {q * small.u, std::move(small.v), std::move(small.s)};
}

/// The least rank whose singular values hold at least `share` of the sum of squares; 1 for zeros.
[[nodiscard]] inline Index rank_of_share(const Eigen::VectorXd& s, double share) {
  const double wanted = share * s.squaredNorm();
  double sum = 0;
  for (Index k = 0; k < s.size(); ++k)
    if ((sum += s[k] * s[k]) >= wanted) return k + 1;
  return std::max<Index>(s.size(), 1);
}

/// The first singular values as b = u·s, a = vᵀ.
[[nodiscard]] inline LowRank<double> leading(const Svd& svd, const RankOrShare& wanted) {
  const Index r = wanted.rank ? wanted.rank : rank_of_share(svd.s, wanted.share),
              kept = std::min(r, Index(svd.s.size()));
  LowRank<double> factors{Matrix<double>::Zero(svd.u.rows(), r), Matrix<double>::Zero(r, svd.v.rows())};
  factors.b.leftCols(kept) = svd.u.leftCols(kept) * svd.s.head(kept).asDiagonal();
  factors.a.topRows(kept) = svd.v.leftCols(kept).transpose();
  return factors;
}

[[nodiscard]] inline LowRank<double> truncate(const Matrix<double>& m, const RankOrShare& r) {
  return leading(thin_svd(m), r);
}
[[nodiscard]] inline LowRank<double> truncate_product(const LowRank<double>& product, const RankOrShare& r) {
  return leading(product_svd(product), r);
}

}  // namespace graft::detail
