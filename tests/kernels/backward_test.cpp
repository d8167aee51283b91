#include "graft/kernels/backward.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

/// All sums of low_rank_backward, as plain loops.
template <class T>
struct Problem {
  Index n, in, out, r;
  Matrix<T> x{n, in, 1}, g{n, out, 2}, A{r, in, 3, 0}, B{out, r, 4, 0}, e{1, r, 5, 0};
  T scale = T(0.75);
  bool with_e = true;

  [[nodiscard]] double factor(Index j) const { return double(scale) * (with_e ? e.at(0, j) : 1.0); }
  void add_dA(Sum& sum, Index j, Index k) const {
    for (Index i = 0; i < n; ++i)
      for (Index o = 0; o < out; ++o) sum.add(factor(j) * g.at(i, o) * B.at(o, j) * x.at(i, k));
  }
  void add_dB(Sum& sum, Index o, Index j) const {
    for (Index i = 0; i < n; ++i)
      for (Index k = 0; k < in; ++k) sum.add(factor(j) * g.at(i, o) * x.at(i, k) * A.at(j, k));
  }
  void add_dx(Sum& sum, Index i, Index k) const {
    for (Index o = 0; o < out; ++o)
      for (Index j = 0; j < r; ++j) sum.add(factor(j) * g.at(i, o) * B.at(o, j) * A.at(j, k));
  }
  void add_de(Sum& sum, Index j) const {
    for (Index i = 0; i < n; ++i)
      for (Index o = 0; o < out; ++o)
        for (Index k = 0; k < in; ++k) sum.add(double(scale) * g.at(i, o) * B.at(o, j) * x.at(i, k) * A.at(j, k));
  }
};

template <class T>
struct Gradients {
  explicit Gradients(const Problem<T>& p)
      : dA(p.r, p.in, 6, 0), dB(p.out, p.r, 7, 0), de(1, p.r, 8, 0), dx(p.n, p.in, 9) {}
  Matrix<T> dA, dB, de, dx;
};

template <class T>
void run(const Problem<T>& p, Gradients<T>& to, const T* u, unsigned wanted = 15) {
  const Index needed = kernels::low_rank_backward_scratch<T>(p.n, p.in, p.out, p.r);
  std::vector<T> scratch(std::size_t(needed) + 1, T(99));
  kernels::LowRankGradients<T> where{wanted & 1 ? to.dA.data() : nullptr, wanted & 2 ? to.dB.data() : nullptr,
                                     wanted & 4 ? to.de.data() : nullptr, wanted & 8 ? to.dx.data() : nullptr, to.dx.ld};
  kernels::low_rank_backward<T>(p.n, p.in, p.out, p.r, p.x.data(), p.x.ld, p.A.data(), p.B.data(),
                                p.with_e ? p.e.data() : nullptr, p.scale, p.g.data(), p.g.ld, u, where, scratch.data());
  CHECK(scratch.back() == T(99));
}

template <class T>
void check_backward(Index n, Index in, Index out, Index r, bool with_e) {
  CAPTURE(n);
  CAPTURE(in);
  CAPTURE(out);
  CAPTURE(r);
  Problem<T> p{n, in, out, r};
  p.with_e = with_e;
  Gradients<T> to(p);
  const Gradients<T> before = to;
  run(p, to, static_cast<const T*>(nullptr));
  bool a_fits = true, b_fits = true, e_fits = true, x_fits = true;
  for (Index j = 0; j < r; ++j)
    for (Index k = 0; k < in; ++k) {
      Sum sum;
      sum.add(before.dA.at(j, k));
      p.add_dA(sum, j, k);
      a_fits = a_fits && sum.fits(to.dA(j, k));
    }
  for (Index o = 0; o < out; ++o)
    for (Index j = 0; j < r; ++j) {
      Sum sum;
      sum.add(before.dB.at(o, j));
      p.add_dB(sum, o, j);
      b_fits = b_fits && sum.fits(to.dB(o, j));
    }
  for (Index j = 0; j < r; ++j) {
    Sum sum;
    sum.add(before.de.at(0, j));
    p.add_de(sum, j);
    e_fits = e_fits && sum.fits(to.de(0, j));
  }
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < in; ++k) {
      Sum sum;
      sum.add(before.dx.at(i, k));
      p.add_dx(sum, i, k);
      x_fits = x_fits && sum.fits(to.dx(i, k));
    }
  CHECK(a_fits);
  CHECK(b_fits);
  CHECK(e_fits);
  CHECK(x_fits);
  CHECK(to.dx.gaps_are_intact());

  // with u of the forward: the same bits; and what is not wanted stays
  std::vector<T> u(std::size_t(n * r));
  const T* none = nullptr;
  kernels::product_nt(n, r, in, p.x.data(), p.x.ld, p.A.data(), in, none, u.data(), r, false);
  Gradients<T> kept = before;
  run(p, kept, u.data());
  CHECK(kept.dA.storage == to.dA.storage);
  CHECK(kept.dB.storage == to.dB.storage);
  CHECK(kept.de.storage == to.de.storage);
  CHECK(kept.dx.storage == to.dx.storage);
  for (const unsigned wanted : {1u, 2u, 4u, 8u}) {
    Gradients<T> alone = before;
    run(p, alone, none, wanted);
    CHECK(alone.dA.storage == (wanted & 1 ? to : before).dA.storage);
    CHECK(alone.dB.storage == (wanted & 2 ? to : before).dB.storage);
    CHECK(alone.de.storage == (wanted & 4 ? to : before).de.storage);
    CHECK(alone.dx.storage == (wanted & 8 ? to : before).dx.storage);
  }
}

}  // namespace

TEST_CASE("low_rank_backward adds the gradients of A, B, E and x") {
  for (const Index size : {1, 3, 7, 13, 31, 33}) {
    check_backward<float>(size, 13, 7, 3, size % 4 == 1);
    check_backward<float>(5, size, 13, 4, size % 4 == 3);
    check_backward<float>(7, 9, size, 13, true);
    check_backward<double>(size, 7, 13, 5, true);
    check_backward<float>(3, 5, 7, size, false);
  }
  for (const Index size : {63, 65, 97}) {
    check_backward<float>(size, 3, 5, 3, true);
    check_backward<double>(3, size, 5, 1, false);
    check_backward<double>(3, 5, size, 2, true);
    check_backward<float>(2, 7, 3, size, true);
  }
  check_backward<float>(515, 5, 3, 13, true);  // several passes over the rows
}

TEST_CASE("without rows or ranks low_rank_backward changes nothing") {
  for (const auto& [n, r] : {std::pair<Index, Index>{0, 3}, {4, 0}}) {
    const Problem<float> p{n, 5, 7, r};
    Gradients<float> to(p);
    const Gradients<float> before = to;
    run(p, to, static_cast<const float*>(nullptr));
    CHECK(to.dA.storage == before.dA.storage);
    CHECK(to.dB.storage == before.dB.storage);
    CHECK(to.dx.storage == before.dx.storage);
  }
}

TEST_CASE("rows of dx have the same bits alone and among others") {
  const Problem<float> p{37, 31, 65, 13};
  Gradients<float> together(p);
  Gradients<float> apart = together;
  run(p, together, static_cast<const float*>(nullptr), 8);
  std::vector<float> scratch(std::size_t(kernels::low_rank_backward_scratch<float>(1, p.in, p.out, p.r)));
  for (Index i = 0; i < p.n; ++i)
    kernels::low_rank_backward<float>(1, p.in, p.out, p.r, &p.x(i, 0), p.x.ld, p.A.data(), p.B.data(), p.e.data(), p.scale,
                                      &p.g(i, 0), p.g.ld, nullptr,
                                      {nullptr, nullptr, nullptr, &apart.dx(i, 0), apart.dx.ld}, scratch.data());
  CHECK(together.dx.storage == apart.dx.storage);
}

TEST_CASE("NaN and infinity reach the gradients that read them, and no others") {
  Problem<float> p{14, 9, 21, 3};
  p.g(5, 20) = std::numeric_limits<float>::quiet_NaN();
  p.x(2, 8) = std::numeric_limits<float>::infinity();
  Gradients<float> to(p);
  run(p, to, static_cast<const float*>(nullptr));
  for (Index i = 0; i < p.n; ++i)
    for (Index k = 0; k < p.in; ++k) CHECK(std::isnan(to.dx(i, k)) == (i == 5));
  for (Index o = 0; o < p.out; ++o)
    for (Index j = 0; j < p.r; ++j) {
      if (o == 20) CHECK(std::isnan(to.dB(o, j)));
      else CHECK(std::isinf(to.dB(o, j)));
    }
  for (Index j = 0; j < p.r; ++j)  // g B is NaN in a row that all of x is multiplied with
    for (Index k = 0; k < p.in; ++k) CHECK(std::isnan(to.dA(j, k)));
}

namespace {

template <class T, class W>
void check_dx(Index n, Index out, Index in, bool accumulate) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> g(n, out, 1);
  const Matrix<W> w(out, in, 2);
  Matrix<T> dx(n, in, 3);
  const Matrix<T> before = dx;
  std::vector<T> scratch(std::size_t(kernels::panel_scratch<T>(out, in)) + 1, T(99));
  kernels::product_nt_backward(n, out, in, g.data(), g.ld, w.data(), w.ld, dx.data(), dx.ld, accumulate, scratch.data());
  bool all_fit = true;
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < in; ++k) {
      Sum sum;
      if (accumulate) sum.add(before.at(i, k));
      for (Index o = 0; o < out; ++o) sum.add(g.at(i, o) * w.at(o, k));
      all_fit = all_fit && sum.fits(dx(i, k));
    }
  CHECK(all_fit);
  CHECK(dx.gaps_are_intact());
  CHECK(scratch.back() == T(99));
}

}  // namespace

TEST_CASE("product_nt_backward is g W, for few rows and many") {
  for (const Index n : {1, 3, 7, 13, 31})
    for (const Index size : {1, 3, 7, 13, 31, 33, 63, 65, 97}) {
      check_dx<float, float>(n, size, 13, false);
      check_dx<float, float>(n, 9, size, true);
      check_dx<double, double>(n, size, size, true);
      check_dx<float, graft::bf16>(n, size, 31, true);
    }
  check_dx<float, graft::f16>(13, 700, 97, false);
}
