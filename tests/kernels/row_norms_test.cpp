#include "graft/kernels/row_norms.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "reference.hpp"

using reference::Index;
namespace kernels = graft::kernels;

namespace {

template <class T>
struct Norms {
  std::vector<double> storage;
  kernels::NormParts parts;
  explicit Norms(Index count) : storage(std::size_t(3 * count)), parts{storage.data(), storage.data() + count, storage.data() + 2 * count} {}
};

template <class T>
std::vector<T> values(Index count, std::uint64_t seed, double size) {
  std::vector<T> all;
  for (Index i = 0; i < count; ++i) all.push_back(T(size * reference::value_at<double>(seed, i)));
  return all;
}

/// W (out, in), A (r, in), B (out, r), and the norms of W + s B A row by row in double.
template <class T>
struct Problem {
  Index out, in, r;
  std::vector<T> W, A, B;

  Problem(Index o, Index i, Index rank, double size_of_b = 0.3, double cancelled_at = 0)
      : out(o), in(i), r(rank), W(values<T>(o * i, 1, 0.1)), A(values<T>(rank * i, 2, 0.2)), B(values<T>(o * rank, 3, size_of_b)) {
    if (cancelled_at != 0)  // 95 % of W is then undone by the update
      for (Index n = 0; n < out; ++n)
        for (Index k = 0; k < in; ++k) W[n * in + k] = T(0.05 * W[n * in + k] - 0.95 * cancelled_at * delta(n, k));
  }
  double delta(Index o, Index i) const {
    double sum = 0;
    for (Index j = 0; j < r; ++j) sum += double(B[o * r + j]) * double(A[j * in + i]);
    return sum;
  }
  double norm(Index o, double s) const {
    double sum = 0;
    for (Index i = 0; i < in; ++i) {
      const double v = double(W[o * in + i]) + s * delta(o, i);
      sum += v * v;
    }
    return std::sqrt(sum);
  }
};

template <class T>
Norms<T> by_rows(const Problem<T>& p) {
  Norms<T> norms(p.out);
  const Index needed = kernels::row_norms_scratch<T>(p.in, p.r);
  std::vector<T> scratch(std::size_t(needed) + 1, T(99));
  kernels::row_norms<T>(
      p.out, p.in, p.r, [&](Index begin, Index) { return p.W.data() + begin * p.in; }, p.A.data(), p.B.data(), norms.parts,
      scratch.data());
  CHECK(scratch.back() == T(99));
  return norms;
}
template <class T>
Norms<T> by_columns(const Problem<T>& p) {
  Norms<T> norms(p.out);
  std::vector<T> turned(p.W.size());
  for (Index o = 0; o < p.out; ++o)
    for (Index i = 0; i < p.in; ++i) turned[std::size_t(i * p.out + o)] = p.W[std::size_t(o * p.in + i)];
  std::vector<T> scratch(std::size_t(kernels::column_norms_scratch<T>(p.out, p.r)) + 1, T(99));
  std::vector<double> sums(std::size_t(kernels::column_norms_sums(p.out, p.r)) + 1, 99.0);
  kernels::column_norms<T>(
      p.in, p.out, p.r, [&](Index begin, Index) { return turned.data() + begin * p.out; }, p.A.data(), p.B.data(), norms.parts,
      scratch.data(), sums.data());
  CHECK(scratch.back() == T(99));
  CHECK(sums.back() == 99.0);
  return norms;
}

template <class T>
double worst(const Problem<T>& p, const Norms<T>& norms, std::vector<double> scales) {
  double error = 0;
  for (Index o = 0; o < p.out; ++o)
    for (const double s : scales) error = std::max(error, std::abs(kernels::norm_at(norms.parts, o, s) / p.norm(o, s) - 1));
  return error;
}

}  // namespace

// float: W's own rounding and sums of products in float, 1e-6 as the formed norm has; double: 1e-13 of 1e-12 that results may lose.
TEST_CASE("norms of W + s B A, of rows and of columns, for every s") {
  const std::vector<double> scales{0, 0.5, 1.75, -2, 40};
  for (const Index r : {1, 3, 8, 16, 33})
    for (const auto& [out, in] : {std::pair<Index, Index>{7, 13}, {1, 1}, {37, 301}, {5, 2500}}) {
      CAPTURE(r);
      CAPTURE(in);
      const Problem<float> narrow(out, in, r);
      CHECK(worst(narrow, by_rows(narrow), scales) < 1e-6);
      CHECK(worst(narrow, by_columns(narrow), scales) < 1e-6);
      const Problem<double> wide(out, in, r);
      CHECK(worst(wide, by_rows(wide), scales) < 1e-13);
      CHECK(worst(wide, by_columns(wide), scales) < 1e-13);
    }
}

TEST_CASE("a norm keeps its digits where the update undoes the weight") {
  for (const Index r : {1, 8, 64})
    for (const double size : {0.01, 0.3, 3.0}) {
      CAPTURE(r);
      const Problem<float> narrow(37, 301, r, size, 1.75);
      CHECK(worst(narrow, by_rows(narrow), {1.75, 1.6, -3, 0}) < 1e-6);
      CHECK(worst(narrow, by_columns(narrow), {1.75, 1.6, -3, 0}) < 1e-6);
      const Problem<double> wide(37, 301, r, size, 1.75);
      CHECK(worst(wide, by_rows(wide), {1.75, 1.6, -3, 0}) < 1e-13);
      CHECK(worst(wide, by_columns(wide), {1.75, 1.6, -3, 0}) < 1e-13);
    }
}

TEST_CASE("a norm keeps its digits where the update cancels in itself") {
  Problem<float> p(7, 301, 2);  // B A of two nearly equal rows with opposite factors
  for (Index i = 0; i < p.in; ++i) p.A[std::size_t(p.in + i)] = p.A[std::size_t(i)] * 1.001F;
  for (Index o = 0; o < p.out; ++o) {
    p.B[std::size_t(2 * o)] = 1000;
    p.B[std::size_t(2 * o + 1)] = -1000;
  }
  CHECK(worst(p, by_rows(p), {1, -20}) < 1e-6);
  CHECK(worst(p, by_columns(p), {1, -20}) < 1e-6);
}

TEST_CASE("an update of zeros leaves the weight's own norm, exactly the same at every scale") {
  Problem<float> p(7, 13, 3, 0);
  for (const Norms<float>& norms : {by_rows(p), by_columns(p)})
    for (Index o = 0; o < p.out; ++o) {
      CHECK(kernels::norm_at(norms.parts, o, 0) == kernels::norm_at(norms.parts, o, 17));
      CHECK(std::abs(kernels::norm_at(norms.parts, o, 17) / p.norm(o, 0) - 1) < 1e-6);
    }
}

TEST_CASE("factors are magnitudes over norms: 1 for the norm itself, 1 for a row of zeros, NaN where something is") {
  Problem<float> p(7, 13, 3);
  for (Index i = 0; i < p.in; ++i) p.W[std::size_t(2 * p.in + i)] = 0;
  for (Index j = 0; j < p.r; ++j) p.B[std::size_t(2 * p.r + j)] = 0;
  p.B[std::size_t(4 * p.r)] = std::nanf("");
  const Norms<float> norms = by_rows(p);
  std::vector<float> magnitude, factors(7);
  for (Index o = 0; o < p.out; ++o) magnitude.push_back(float(kernels::norm_at(norms.parts, o, 1.75)));
  magnitude[1] *= 3;
  kernels::magnitude_factors<float>(7, norms.parts, 1.75, magnitude.data(), factors.data());
  for (const std::size_t o : {0u, 2u, 3u, 5u, 6u}) CHECK(factors[o] == 1.0F);
  CHECK(factors[1] == doctest::Approx(3));
  CHECK(std::isnan(factors[4]));
}

TEST_CASE("rows are read in turn, in parts that a buffer can hold") {
  const Problem<float> p(301, 2500, 3);
  Norms<float> norms(p.out);
  std::vector<float> scratch(std::size_t(kernels::row_norms_scratch<float>(p.in, p.r)));
  Index next = 0, most = 0;
  kernels::row_norms<float>(
      p.out, p.in, p.r,
      [&](Index begin, Index count) {
        CHECK(begin == next);
        next = begin + count;
        most = std::max(most, count);
        return p.W.data() + begin * p.in;
      },
      p.A.data(), p.B.data(), norms.parts, scratch.data());
  CHECK(next == p.out);
  CHECK(most <= kernels::norm_rows<float>(p.in));
  CHECK(kernels::norm_rows<float>(p.in) * p.in * 4 <= 262144);
}

// Golden vector 4 of the specification, from PEFT: W [[1,2],[3,4]], A [[1,-1]], B [[2],[1]], scaling 3.
TEST_CASE("DoRA's norms are PEFT's") {
  Problem<double> p(2, 2, 1);
  p.W = {1, 2, 3, 4};
  p.A = {1, -1};
  p.B = {2, 1};
  for (const Norms<double>& norms : {by_rows(p), by_columns(p)}) {
    CHECK(kernels::norm_at(norms.parts, 0, 0) == doctest::Approx(2.2360680));
    CHECK(kernels::norm_at(norms.parts, 1, 0) == doctest::Approx(5));
    CHECK(kernels::norm_at(norms.parts, 0, 3) == doctest::Approx(std::sqrt(65)));
    CHECK(kernels::norm_at(norms.parts, 1, 3) == doctest::Approx(std::sqrt(37)));
  }
}
