#include <graft/adapters/factorisation.hpp>

#include <doctest/doctest.h>

#include <limits>

using namespace graft::detail;
using graft::Index;
using graft::Matrix;

namespace {

/// A matrix with elements that do not repeat; singular values fall by themselves.
Matrix<double> awkward_matrix(Index rows, Index cols, double seed) {
  Matrix<double> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i)
    m.data()[i] = std::sin(double(i * i + 3) * 0.7 + seed) + (i % cols == 1 ? 2 : 0);
  return m;
}
double norm(const auto& m) { return m.cwiseAbs().maxCoeff(); }
bool is_orthonormal(const Matrix<double>& columns) {
  return norm(columns.transpose() * columns - Matrix<double>::Identity(columns.cols(), columns.cols())) <
         1e-13;
}

}  // namespace

TEST_CASE("SVD of wide and tall matrices: orthonormal, descending, and it multiplies back") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{7, 13}, {13, 7}, {1, 5}, {40, 33}}) {
    const Matrix<double> m = awkward_matrix(rows, cols, 1);
    const Svd svd = thin_svd(m);
    CHECK(svd.u.cols() == std::min(rows, cols));
    CHECK(is_orthonormal(svd.u));
    CHECK(is_orthonormal(svd.v));
    for (Index i = 1; i < svd.s.size(); ++i) CHECK(svd.s[i - 1] >= svd.s[i]);
    CHECK(norm(svd.u * svd.s.asDiagonal() * svd.v.transpose() - m) < 1e-12);
  }
  Matrix<double> known(2, 2);  // by hand: singular values √45 and √5
  known << 3, 0, 4, 5;
  CHECK(thin_svd(known).s[0] == doctest::Approx(std::sqrt(45.0)));
  CHECK(thin_svd(known).s[1] == doctest::Approx(std::sqrt(5.0)));
}

TEST_CASE("QR of wide and tall matrices: orthonormal, upper trapezoidal, and it multiplies back") {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{7, 13}, {13, 7}, {3, 3}}) {
    const Matrix<double> m = awkward_matrix(rows, cols, 2);
    const Qr qr = thin_qr(m);
    CHECK(is_orthonormal(qr.q));
    CHECK(norm(qr.q * qr.r - m) < 1e-13);
    for (Index i = 1; i < qr.r.rows(); ++i)
      for (Index j = 0; j < i; ++j) CHECK(qr.r(i, j) == 0);
  }
}

TEST_CASE("the SVD of a product is that of the matrix, which is not formed, whatever the ranks") {
  for (const Index r : {1, 3, 20}) {  // 20 is more than either dimension
    const graft::LowRank<double> product{awkward_matrix(13, r, 3), awkward_matrix(r, 7, 4)};
    const Svd whole = thin_svd(product.b * product.a), thin = product_svd(product);
    const Index k = thin.s.size();
    CHECK(norm(thin.u * thin.s.asDiagonal() * thin.v.transpose() - product.b * product.a) < 1e-11);
    CHECK(norm(thin.s - whole.s.head(k)) < 1e-11);
    CHECK(is_orthonormal(thin.u));
    CHECK(is_orthonormal(thin.v));
  }
  const graft::LowRank<double> none{Matrix<double>(13, 0), Matrix<double>(0, 7)};
  CHECK(product_svd(none).s.size() == 0);
}

TEST_CASE("truncation: the best approximation, padded with zeros beyond the rank that is there") {
  const Matrix<double> m = awkward_matrix(13, 7, 5);
  const Svd svd = thin_svd(m);
  const auto three = truncate(m, 3);
  CHECK(is_orthonormal(three.a.transpose()));
  // Eckart and Young: what is left has the fourth singular value as its norm
  CHECK(thin_svd(m - three.b * three.a).s[0] == doctest::Approx(svd.s[3]));
  const auto ten = truncate(m, 10);
  CHECK(ten.rank() == 10);
  CHECK(norm(ten.b * ten.a - m) < 1e-12);
  CHECK(ten.a.bottomRows(3).isZero(0));
  CHECK(truncate_product({Matrix<double>::Zero(5, 2), Matrix<double>::Zero(2, 4)}, 3).b.isZero(0));
}

TEST_CASE("a share of the energy takes the least rank that holds it, at least 1") {
  Eigen::VectorXd s(4);
  s << 4, 2, 1, 0;  // energies 16, 4, 1, 0 of 21
  CHECK(rank_of_share(s, 0.5) == 1);
  CHECK(rank_of_share(s, 16.0 / 21) == 1);
  CHECK(rank_of_share(s, 0.8) == 2);
  CHECK(rank_of_share(s, 0.96) == 3);
  CHECK(rank_of_share(s, 1) == 3);
  CHECK(rank_of_share(Eigen::VectorXd::Zero(3), 0.9) == 1);
  CHECK(rank_of_share(Eigen::VectorXd(0), 0.9) == 1);
}

TEST_CASE("the randomised SVD converges to the exact one with power iterations") {
  const Svd whole = thin_svd(awkward_matrix(24, 17, 6));
  Eigen::VectorXd s(17);  // well apart: the error falls by (s₄ / s₃)² an iteration
  for (Index i = 0; i < 17; ++i) s[i] = std::pow(0.4, double(i));
  const Matrix<double> m = whole.u * s.asDiagonal() * whole.v.transpose();
  const Matrix<double> best = whole.u.leftCols(3) * s.head(3).asDiagonal() * whole.v.leftCols(3).transpose();
  double before = 1;
  for (const Index iterations : {0, 2, 16}) {
    const Svd random = randomised_svd(m, 3, iterations, {5, "q_proj"});
    CHECK(is_orthonormal(random.u));
    const double error = norm(random.u * random.s.asDiagonal() * random.v.transpose() - best);
    CHECK(error < before);
    before = error;
  }
  CHECK(before < 1e-10);
  CHECK(randomised_svd(m, 3, 1, {5, "a"}).u == randomised_svd(m, 3, 1, {5, "a"}).u);
  CHECK(randomised_svd(m, 3, 1, {5, "a"}).u != randomised_svd(m, 3, 1, {6, "a"}).u);
}

TEST_CASE("values that are not finite are an error, not an endless search") {
  Matrix<double> m = awkward_matrix(5, 4, 7);
  m(2, 1) = std::numeric_limits<double>::quiet_NaN();
  CHECK_THROWS_AS((void)thin_svd(m), graft::AdapterError);
}
