#include "graft/kernels/normalise_backward.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {
/// The formulas in double, plainly: dx, dweight, dbias of one call.
struct Plain {
  std::vector<double> dx, dweight, dbias;
};
template <bool Centred, class T, class W>
Plain plain(const Matrix<T>& x, const Matrix<W>* weight, double eps, const Matrix<T>& dy) {
  const Index n = x.rows, cols = x.cols;
  Plain to{std::vector<double>(std::size_t(n * cols)), std::vector<double>(std::size_t(cols)), std::vector<double>(std::size_t(cols))};
  for (Index i = 0; i < n; ++i) {
    double mean = 0, squares = 0, mean_of_g = 0, along = 0;
    for (Index c = 0; Centred && c < cols; ++c) mean += x.at(i, c) / double(cols);
    for (Index c = 0; c < cols; ++c) squares += (x.at(i, c) - mean) * (x.at(i, c) - mean);
    const double factor = 1 / std::sqrt(squares / double(cols) + eps);
    const auto g = [&](Index c) { return dy.at(i, c) * (weight ? weight->at(0, c) : 1.0); };
    for (Index c = 0; c < cols; ++c) {
      if (Centred) mean_of_g += g(c) / double(cols);
      along += g(c) * (x.at(i, c) - mean) * factor / double(cols);
    }
    for (Index c = 0; c < cols; ++c) {
      const double normalised = (x.at(i, c) - mean) * factor;
      to.dx[std::size_t(i * cols + c)] = factor * (g(c) - mean_of_g - normalised * along);
      to.dweight[std::size_t(c)] += dy.at(i, c) * normalised;
      to.dbias[std::size_t(c)] += dy.at(i, c);
    }
  }
  return to;
}
/// What was added to `before`.
template <class T>
bool added(const Matrix<T>& to, const Matrix<T>& before, const std::vector<double>& expected) {
  std::vector<T> values;
  std::vector<double> sums;
  for (Index i = 0; i < to.rows; ++i)
    for (Index c = 0; c < to.cols; ++c) {
      values.push_back(to(i, c));
      sums.push_back(before.at(i, c) + expected[std::size_t(i * to.cols + c)]);
    }
  // a few roundings of each step; of many rows the sums are in double
  return close(values, sums, 20 * tolerance<T>) && to.gaps_are_intact();
}

template <bool Centred, class T, class W>
void check(Index n, Index cols, bool has_weight) {
  CAPTURE(n);
  CAPTURE(cols);
  Matrix<T> x(n, cols, 1);
  for (Index i = 0; Centred && i < n; ++i)
    for (Index c = 0; c < cols; ++c) x(i, c) += T(3);  // a mean that must go
  const Matrix<T> dy(n, cols, 2);
  const Matrix<W> weight(1, cols, 3);
  const W* const w = has_weight ? weight.data() : nullptr;
  const double eps = 1e-3;
  const Plain expected = plain<Centred>(x, has_weight ? &weight : nullptr, eps, dy);
  const Matrix<T> before_dx(n, cols, 4), before_dw(1, cols, 5), before_db(1, cols, 6);
  for (const unsigned wanted : {7u, 1u, 2u, 4u}) {
    Matrix<T> dx = before_dx, dw = before_dw, db = before_db;
    std::vector<T> scratch(std::size_t(kernels::norm_backward_scratch(n)) + 1, T(99));
    kernels::norm_backward<Centred, T, W>(n, cols, x.data(), x.ld, w, eps, dy.data(), dy.ld, wanted & 1 ? dx.data() : nullptr, dx.ld,
                                          wanted & 2 ? dw.data() : nullptr, wanted & 4 ? db.data() : nullptr, scratch.data());
    CHECK(scratch.back() == T(99));
    CHECK((wanted & 1 ? added(dx, before_dx, expected.dx) : dx.storage == before_dx.storage));
    CHECK((wanted & 2 ? added(dw, before_dw, expected.dweight) : dw.storage == before_dw.storage));
    CHECK((wanted & 4 ? added(db, before_db, expected.dbias) : db.storage == before_db.storage));
  }
}
template <class T, class W>
void check_all(Index n, Index cols, bool has_weight = true) {
  check<false, T, W>(n, cols, has_weight);
  check<true, T, W>(n, cols, has_weight);
}
}  // namespace

TEST_CASE_TEMPLATE("the gradients of both norms are added, at every size", T, float, double) {
  for (const Index cols : awkward) {
    check_all<T, T>(5, cols);
    check_all<T, T>(3, cols, false);
  }
  check_all<T, T>(7, 1021);
}
TEST_CASE_TEMPLATE("narrow weights", W, graft::bf16, graft::f16) {
  for (const Index cols : awkward) check_all<float, W>(3, cols);
}
TEST_CASE_TEMPLATE("many rows are taken in parts", T, float, double) {
  check_all<T, T>(65, 7);
  check_all<T, T>(1030, 3);
  CHECK(kernels::norm_backward_scratch(1 << 20) == 128);
}

TEST_CASE_TEMPLATE("softmax's gradient is added, at every size", T, float, double) {
  for (const Index cols : awkward) {
    CAPTURE(cols);
    const Matrix<T> x(5, cols, 1), dy(5, cols, 2), before(5, cols, 3);
    Matrix<T> y(5, cols, 4), dx = before;
    kernels::softmax<T>(5, cols, x.data(), x.ld, y.data(), y.ld);
    kernels::softmax_backward<T>(5, cols, y.data(), y.ld, dy.data(), dy.ld, dx.data(), dx.ld);
    std::vector<double> expected;
    for (Index i = 0; i < 5; ++i) {
      double along = 0;
      for (Index c = 0; c < cols; ++c) along += y.at(i, c) * dy.at(i, c);
      for (Index c = 0; c < cols; ++c) expected.push_back(y.at(i, c) * (dy.at(i, c) - along));
    }
    CHECK(added(dx, before, expected));
  }
}
