#pragma once

#include <cstdlib>
#include <string>
#include <vector>

#include "factorisation.hpp"
#include "init_scheme.hpp"

namespace graft::detail {

/// PiSSA (Meng et al., arXiv:2404.02948): the first r singular values of a weight, shared by both matrices,
/// so that scaling · b·a is the best approximation of rank r.
[[nodiscard]] inline LowRank<double> pissa_factors(const Svd& svd, Index r, double scaling) {
  const Eigen::VectorXd root = (svd.s.head(r) / scaling).cwiseSqrt();
  return {svd.u.leftCols(r) * root.asDiagonal(), root.asDiagonal() * svd.v.leftCols(r).transpose()};
}

/// The number behind "pissa_niter_".
[[nodiscard]] inline Index power_iterations(const std::string& scheme) {
  return Index(std::atoi(scheme.c_str() + scheme.rfind('_') + 1));
}

/// What a scheme that starts from the base makes of a weight (out, in): PiSSA with an SVD or a randomised
/// one, or OLoRA (Büyükakyüz, arXiv:2406.01775), the first r columns of Q and rows of R.
[[nodiscard]] inline LowRank<double> start_factors(const InitLoraWeights& init, const Matrix<double>& weight,
                                                   Index r, double scaling, const Seed& seed) {
  const InitScheme scheme = init_scheme(init);
  if (scheme == InitScheme::pissa) return pissa_factors(thin_svd(weight), r, scaling);
  if (scheme == InitScheme::iterated_pissa)
    return pissa_factors(randomised_svd(weight, r, power_iterations(init.scheme()), seed), r, scaling);
  const Qr qr = thin_qr(weight);
  return {qr.q.leftCols(r), qr.r.topRows(r)};
}

[[nodiscard]] inline Matrix<double> normal_matrix(Index rows, Index cols, const Seed& seed) {
  ParameterData values(Dtype::f64, {rows, cols});
  fill_normal(values, seed, 1);
  return Eigen::Map<const Matrix<double>>(reinterpret_cast<const double*>(values.data()), rows, cols);
}

/// Of a random orthogonal matrix (r, r) one half of the rows makes a, the other b: b·a is zero up to
/// rounding, and neither is. The random streams are those of the parameters of a site at `path`.
[[nodiscard]] inline LowRank<double> orthogonal_factors(Index out, Index in, Index r, std::uint64_t seed,
                                                        const std::string& path) {
  const Matrix<double> q = thin_qr(normal_matrix(r, r, {seed, path + ".orthogonal"})).q;
  Matrix<double> for_a(r / 2, r), for_b(r / 2, r);
  for (Index i = 0; i < r / 2; ++i) {
    for_a.row(i) = q.row(2 * i);
    for_b.row(i) = q.row(2 * i + 1);
  }
  const Matrix<double> a = normal_matrix(in, r / 2, {seed, path + ".lora_A.weight"});
  const Matrix<double> b = normal_matrix(out, r / 2, {seed, path + ".lora_B.weight"});
  return {b * for_b / 10, (a * for_a).transpose() / 10};
}

[[nodiscard]] inline Principal principal_directions(const Matrix<double>& rows, Index k) {
  const Matrix<double> centred = rows.rowwise() - rows.colwise().mean();
  const Svd svd = thin_svd(centred);
  const double total = centred.squaredNorm();
  Principal principal{Matrix<double>::Zero(k, rows.cols()), std::vector<double>(std::size_t(k)),
                      std::vector<double>(std::size_t(k))};
  for (Index i = 0; i < k && i < svd.s.size(); ++i) {
    auto direction = principal.directions.row(i);
    direction = svd.v.col(i).transpose();
    Index largest = 0;
    direction.cwiseAbs().maxCoeff(&largest);
    if (direction[largest] < 0) direction *= -1;
    principal.singular_values[std::size_t(i)] = svd.s[i];
    principal.shares[std::size_t(i)] = total > 0 ? svd.s[i] * svd.s[i] / total : 0;
  }
  return principal;
}

inline constexpr Factorisers eigen_factorisers{&truncate, &truncate_product, &start_factors,
                                               &orthogonal_factors, &principal_directions};

}  // namespace graft::detail
