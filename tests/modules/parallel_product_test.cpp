#include <doctest/doctest.h>

#include <cstring>
#include <graft/kernels/quantize.hpp>
#include <graft/modules/parallel_product.hpp>
#include <vector>

#include "support/cutting_host.hpp"
#include "support/ramp.hpp"

using graft::Index;
using graft::Matrix;
using graft::Workspace;
using support::CuttingHost;
namespace detail = graft::detail;

namespace {

/// Values whose products are not exact, so that another order of summation would show.
template <class T>
T value_at(Index i, int salt) {
  return T(float((i * 2654435761u + unsigned(salt) * 40503u) % 10007u) / 10007.0f - 0.45f);
}
template <class T>
Matrix<T> values(Index rows, Index cols, int salt) {
  Matrix<T> made(rows, cols);
  for (Index i = 0; i < made.size(); ++i) made.data()[i] = value_at<T>(i, salt);
  return made;
}
template <class T>
bool same_bits(const Matrix<T>& a, const Matrix<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), std::size_t(a.size()) * sizeof(T)) == 0;
}

/// One piece against as many as a host asks for, with rows of x and y further apart than they are long.
template <class T, class W>
void check_pieces(const W& w, Index ldw, Index n, Index out, Index in, Index gap, bool has_bias) {
  CAPTURE(n);
  CAPTURE(out);
  CAPTURE(in);
  const Matrix<T> x = values<T>(n, in + gap, 1), bias = values<T>(1, out, 2);
  const T* const b = has_bias ? bias.data() : nullptr;
  Matrix<T> whole = Matrix<T>::Constant(n, out + 3, T(77)), cut = whole;
  const auto run = [&](Matrix<T>& y, Workspace* workspace) {
    detail::parallel_product<T>(w, ldw, graft::in(x.data(), n, in, in + gap), b, graft::out(y.data(), n, out, out + 3), workspace);
  };
  Workspace serial;
  run(whole, &serial);
  CHECK(whole(n - 1, out) == T(77));
  CHECK(whole(0, 0) != T(77));
  for (const Index threads : {2, 3, 5}) {
    CuttingHost host(threads);
    Workspace workspace;
    workspace.set_parallel_for(host);
    cut.setConstant(T(77));
    run(cut, &workspace);
    CHECK(same_bits(cut, whole));
    CHECK(host.calls == 1);
    CHECK(host.pieces > 1);
    CHECK(host.pieces <= threads);
    CHECK(workspace.in_use() == 0);
  }
  Matrix<T> heap = Matrix<T>::Constant(n, out + 3, T(77));
  run(heap, nullptr);
  CHECK(same_bits(heap, whole));
}

template <class T, class W>
std::vector<W> weights(Index count) {
  std::vector<W> made;
  for (Index i = 0; i < count; ++i) made.push_back(W(value_at<T>(i, 3)));
  return made;
}

}  // namespace

TEST_CASE("pieces are whole units that cover everything once, as even as units allow") {
  for (const Index count : {1, 7, 16, 33, 100, 1021})
    for (const Index unit : {1, 12, 16})
      for (Index pieces = 1; pieces <= (count + unit - 1) / unit; ++pieces) {
        Index least = count, largest = 0;
        CHECK(detail::piece_begin(0, pieces, count, unit) == 0);
        CHECK(detail::piece_begin(pieces, pieces, count, unit) == count);
        for (Index i = 0; i < pieces; ++i) {
          const Index begin = detail::piece_begin(i, pieces, count, unit), end = detail::piece_begin(i + 1, pieces, count, unit);
          CHECK(begin % unit == 0);
          least = std::min(least, end - begin);
          largest = std::max(largest, end - begin);
        }
        CHECK(least > 0);
        CHECK(largest - least <= 2 * unit);
      }
}

TEST_CASE("what is too small to pay for a thread is not cut, nor what has no host") {
  CuttingHost host(8);
  Workspace workspace;
  workspace.set_parallel_for(host);
  CHECK(detail::pieces_of(&workspace, 1e6) == 1);
  CHECK(detail::pieces_of(&workspace, 2.2e6) == 2);
  CHECK(detail::pieces_of(&workspace, 1e30) == 8);
  CHECK(detail::pieces_of(nullptr, 1e30) == 1);
  Workspace serial;
  CHECK(detail::pieces_of(&serial, 1e30) == 1);
  const Matrix<> x = values<float>(3, 64, 1), w = values<float>(64, 64, 2);
  Matrix<> y(3, 64);
  detail::parallel_product<float>(w.data(), 64, graft::in(x), static_cast<const float*>(nullptr), graft::out(y), &workspace);
  CHECK(host.calls == 0);
}

TEST_CASE_TEMPLATE("a product in pieces has the bits of one piece", W, float, double, graft::bf16, graft::f16) {
  using T = std::conditional_t<std::is_same_v<W, double>, double, float>;
  struct Size {
    Index n, out, in, gap;
  };
  // one row; few rows; rows of x that are copied (2048 bytes apart); a copied weight; tall results, cut by rows: of
  // uneven length, and with a short row where the copies of all blocks stay; short dots over a packed weight, by columns
  // and by rows, where some pieces are too short to pack
  for (const Size& size : {Size{1, 1021, 523, 0}, {3, 717, 523, 5}, {7, 201, 1024, 0}, {50, 77, 1024, 0}, {70, 37, 1024, 7},
                           {410, 13, 512, 0}, {60, 32, 3072, 0}, {100, 211, 300, 0}, {170, 130, 300, 3}}) {
    const auto w = weights<T, W>(size.out * size.in);
    check_pieces<T>(w.data(), size.in, size.n, size.out, size.in, size.gap, size.n != 3);
  }
}

TEST_CASE_TEMPLATE("a product with a weight that is stored the other way in pieces has the bits of one piece", W, float, double,
                   graft::bf16) {
  using T = std::conditional_t<std::is_same_v<W, double>, double, float>;
  struct Size {
    Index n, out, in;
  };
  for (const Size& size : {Size{1, 1021, 523}, {3, 717, 1029}, {9, 1300, 513}, {50, 77, 1024}, {211, 37, 600}}) {
    CAPTURE(size.n);
    const auto w = weights<T, W>(size.out * size.in);
    const Matrix<T> x = values<T>(size.n, size.in, 1);
    Matrix<T> whole = Matrix<T>::Constant(size.n, size.out + 3, T(77)), cut = whole;
    const auto run = [&](Matrix<T>& y, Workspace* workspace) {
      detail::parallel_product_nn<T>(w.data(), size.out, graft::in(x), graft::out(y.data(), size.n, size.out, size.out + 3), workspace);
    };
    run(whole, nullptr);
    CHECK(whole(size.n - 1, size.out) == T(77));
    CHECK(whole(0, 0) != T(77));
    for (const Index threads : {2, 3, 5}) {
      CuttingHost host(threads);
      Workspace workspace;
      workspace.set_parallel_for(host);
      cut.setConstant(T(77));
      run(cut, &workspace);
      CHECK(same_bits(cut, whole));
      CHECK(host.pieces > 1);
      CHECK(host.pieces <= threads);
    }
  }
}

TEST_CASE("a product over quantised rows in pieces has the bits of one piece") {
  for (const Index n : {1, 5, 50, 300}) {
    const Index in = n == 300 ? 517 : 1031, out = n == 300 ? 41 : 517;
    const Matrix<> w = values<float>(out, in, 4);
    std::vector<std::int8_t> bytes(std::size_t(out * in));
    std::vector<float> factors(static_cast<std::size_t>(out));
    graft::kernels::quantize_int8(out, in, w.data(), in, bytes.data(), factors.data());
    check_pieces<float>(graft::kernels::Int8View{bytes.data(), factors.data()}, in, n, out, in, 0, true);
    const Index columns = graft::kernels::four_bit_columns(in);
    std::vector<std::uint32_t> words(std::size_t(out * columns / 8));
    for (const int shift : {5, 6}) {
      std::vector<float> scales(std::size_t(out * columns >> shift));
      graft::kernels::quantize_four_bit(out, in, w.data(), in, graft::kernels::nf4_code, shift, words.data(), scales.data());
      check_pieces<float>(graft::kernels::FourBitView{words.data(), scales.data(), graft::kernels::nf4_code, shift}, columns, n, out, in,
                          3, false);
    }
  }
}
