#include <graft/adapters/initial_factors.hpp>

#include <doctest/doctest.h>

using namespace graft::detail;
using graft::Index;
using graft::Matrix;

namespace {
Matrix<double> weight(Index rows, Index cols) {
  Matrix<double> m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = std::sin(double(i * i + 3) * 0.7);
  return m;
}
double norm(const auto& m) { return m.cwiseAbs().maxCoeff(); }
}  // namespace

TEST_CASE("PiSSA: scaling · B·A is the best approximation, its singular values shared by both") {
  const Matrix<double> w = weight(13, 7);
  const Svd svd = thin_svd(w);
  for (const double scaling : {1.0, 7.0 / 3}) {
    const auto factors = start_factors("pissa", w, 3, scaling, {});
    CHECK(thin_svd(w - scaling * factors.b * factors.a).s[0] == doctest::Approx(svd.s[3]));
    for (Index i = 0; i < 3; ++i) {
      CHECK(factors.a.row(i).squaredNorm() == doctest::Approx(svd.s[i] / scaling));
      CHECK(factors.b.col(i).squaredNorm() == doctest::Approx(svd.s[i] / scaling));
    }
  }
}

TEST_CASE("pissa_niter_N approaches PiSSA, and its number is read") {
  CHECK(power_iterations("pissa_niter_16") == 16);
  const Matrix<double> w = weight(13, 7);
  const auto exact = start_factors("pissa", w, 2, 2, {});
  const auto few = start_factors("pissa_niter_1", w, 2, 2, {3, "p"}),
             many = start_factors("pissa_niter_400", w, 2, 2, {3, "p"});
  CHECK(norm(many.b * many.a - exact.b * exact.a) < 1e-6);
  CHECK(norm(few.b * few.a - exact.b * exact.a) > norm(many.b * many.a - exact.b * exact.a));
}

TEST_CASE("OLoRA: the first columns of Q and rows of R") {
  const Matrix<double> w = weight(7, 13);
  const auto factors = start_factors("olora", w, 3, 5, {});
  CHECK(norm(factors.b.transpose() * factors.b - Matrix<double>::Identity(3, 3)) < 1e-14);
  // Q's first columns span W's: their part of them is complete
  CHECK(norm(factors.b * factors.a.leftCols(3) - w.leftCols(3)) < 1e-13);
  CHECK(factors.a(2, 0) == 0);
}

TEST_CASE("orthogonal: neither matrix is zero, their product is") {
  const auto factors = orthogonal_factors(13, 7, 4, 9, "p");
  CHECK(factors.b.rows() == 13);
  CHECK(factors.a.cols() == 7);
  CHECK(norm(factors.a) > 0.05);
  CHECK(norm(factors.b) > 0.05);
  CHECK(norm(factors.b * factors.a) < 1e-15);
  CHECK(orthogonal_factors(13, 7, 4, 9, "p").a == factors.a);
  CHECK(orthogonal_factors(13, 7, 4, 9, "q").a != factors.a);
}

TEST_CASE("principal directions are those of the centred rows; shares are of their variance") {
  Matrix<double> rows(4, 3);  // about (10, 20, 0): ±3 along the second axis, ±1 along the first
  rows << 10, 23, 0, 10, 17, 0, 11, 20, 0, 9, 20, 0;
  const auto principal = principal_directions(rows, 3);
  CHECK(norm(principal.directions.row(0) - Eigen::RowVector3d(0, 1, 0)) < 1e-14);
  CHECK(norm(principal.directions.row(1) - Eigen::RowVector3d(1, 0, 0)) < 1e-14);
  CHECK(principal.shares[0] == doctest::Approx(0.9));
  CHECK(principal.shares[1] == doctest::Approx(0.1));
  CHECK(principal.singular_values[0] == doctest::Approx(std::sqrt(18.0)));
}
