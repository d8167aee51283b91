#include "graft/kernels/embedding_backward.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

template <class T>
void check(Index n, Index num, Index r, Index out, Index padding_id) {
  CAPTURE(n);
  CAPTURE(r);
  CAPTURE(out);
  const Matrix<T> A(r, num, 1, 0), B(out, r, 2, 0), g(n, out, 3);
  const auto id = [&](Index i) { return i * i % num; };
  Matrix<T> dA(r, num, 4, 0), dB(out, r, 5, 0);
  const Matrix<T> a_before = dA, b_before = dB;
  const auto run = [&](T* to_a, T* to_b) {
    std::vector<T> scratch(std::size_t(kernels::low_rank_embedding_backward_scratch<T>(n, out, r)) + 1, T(99));
    kernels::low_rank_embedding_backward<T>(n, id, num, r, out, A.data(), B.data(), T(0.75), g.data(), g.ld, {to_a, to_b},
                                            scratch.data(), padding_id);
    CHECK(scratch.back() == T(99));
  };
  run(dA.data(), dB.data());
  bool a_fits = true, b_fits = true;
  for (Index j = 0; j < r; ++j) {
    for (Index c = 0; c < num; ++c) {
      Sum sum;
      sum.add(a_before.at(j, c));
      for (Index i = 0; i < n; ++i)
        for (Index o = 0; o < out; ++o)
          if (id(i) == c && c != padding_id) sum.add(0.75 * g.at(i, o) * B.at(o, j));
      a_fits = a_fits && sum.fits(dA(j, c));
    }
    for (Index o = 0; o < out; ++o) {
      Sum sum;
      sum.add(b_before.at(o, j));
      for (Index i = 0; i < n; ++i) sum.add(0.75 * g.at(i, o) * A.at(j, id(i)));
      b_fits = b_fits && sum.fits(dB(o, j));
    }
  }
  CHECK(a_fits);
  CHECK(b_fits);
  const Matrix<T> both_a = dA, both_b = dB;
  dA = a_before;
  dB = b_before;
  run(dA.data(), nullptr);
  CHECK(dA.storage == both_a.storage);
  CHECK(dB.storage == b_before.storage);
  dA = a_before;
  run(nullptr, dB.data());
  CHECK(dA.storage == a_before.storage);
  CHECK(dB.storage == both_b.storage);
}

}  // namespace

TEST_CASE("low_rank_embedding_backward adds to the columns of A that were looked up, and to B") {
  for (const Index size : {1, 3, 7, 13, 33, 97}) {
    check<float>(7, 11, 3, size, -1);
    check<float>(13, 5, size, 7, 4);
    check<double>(size, 7, 4, 13, 1);
  }
  check<float>(515, 13, 3, 7, 0);  // several passes over the rows
  check<float>(0, 7, 3, 5, -1);
  check<float>(3, 7, 0, 5, -1);
}

// nn.Embedding(7, 3, padding_idx=4) under LoraConfig(r=2, lora_alpha=3), lora_embedding_A = w(2, 7), lora_embedding_B =
// v(3, 2, a=7, b=3, m=11), g = v(7, 3), PEFT 0.21.2: the padding's column of A gets nothing, B gets its share
TEST_CASE("the gradients of LoRA on an embedding are PEFT's") {
  const std::vector<std::int64_t> ids{4, 0, 4, 6, 1, 1, 5};
  const auto A = lattice<double>(14, 29, 5, 13), B = lattice<double>(6, 7, 3, 11), g = lattice<double>(21);
  std::vector<double> dA(14), dB(6), scratch(std::size_t(kernels::low_rank_embedding_backward_scratch<double>(7, 3, 2)));
  kernels::low_rank_embedding_backward<double>(7, ids.data(), 7, 2, 3, A.data(), B.data(), 1.5, g.data(), 3, {dA.data(), dB.data()},
                                               scratch.data(), 4);
  CHECK(close(dA, {1.125, -0.75, 0, 0, 0, -3.75, 1.40625, -1.78125, -1.3125, 0, 0, 0, 5.0625, -1.59375}, 1e-14));
  CHECK(close(dB, {-1.40625, 4.3125, -1.875, 9.28125, 2.4375, -6.46875}, 1e-14));
}
