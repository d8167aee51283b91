#include "graft/kernels/embedding.hpp"

#include <doctest/doctest.h>

#include "reference.hpp"

using namespace reference;
namespace kernels = graft::kernels;

namespace {

const std::vector<std::int64_t> ids = {4, 0, 4, 6, 1, 1, 5};

template <class T, class W>
void check_gather(Index out) {
  const Matrix<W> w(7, out, 1);
  Matrix<T> y(Index(ids.size()), out, 2);
  kernels::gather_rows(y.rows, ids.data(), out, w.data(), w.ld, y.data(), y.ld);
  bool equal = true;
  for (Index i = 0; i < y.rows; ++i)
    for (Index o = 0; o < out; ++o) equal = equal && y.at(i, o) == w.at(ids[std::size_t(i)], o);
  CHECK(equal);
  CHECK(y.gaps_are_intact());
}

}  // namespace

TEST_CASE("gather_rows copies and widens the rows that the ids name") {
  for (const Index out : awkward) {
    check_gather<float, float>(out);
    check_gather<double, double>(out);
    check_gather<float, graft::bf16>(out);
    check_gather<float, graft::f16>(out);
  }
}

TEST_CASE("ids may be any integers, or a function") {
  const Matrix<float> w(7, 5, 1);
  std::vector<float> by_pointer(15), by_function(15);
  const std::int32_t few[] = {3, 0, 6};
  kernels::gather_rows(3, &few[0], 5, w.data(), w.ld, by_pointer.data(), 5);
  kernels::gather_rows(
      3, [](Index i) { return i == 0   ? 3
                              : i == 1 ? 0
                                       : 6; }, 5, w.data(), w.ld, by_function.data(), 5);
  CHECK(by_pointer == by_function);
  CHECK(by_pointer[5] == w(0, 0));
}

TEST_CASE("low_rank_embedding_update adds scale * A[:, id]^T B^T") {
  for (const Index r : {0, 1, 4, 13})
    for (const Index out : {1, 7, 33, 130}) {
      const Matrix<float> A(r, 7, 1, 0), B(out, r, 2, 0);
      Matrix<float> y(Index(ids.size()), out, 3);
      const Matrix<float> before = y;
      std::vector<float> scratch(std::size_t(kernels::low_rank_embedding_scratch(y.rows, out, r)) + 1, 99.0f);
      kernels::low_rank_embedding_update(y.rows, ids.data(), 7, r, out, A.data(), B.data(), 0.75f, y.data(),
                                         y.ld, scratch.data());
      bool all_fit = true;
      for (Index i = 0; i < y.rows; ++i)
        for (Index o = 0; o < out; ++o) {
          Sum sum;
          sum.add(before.at(i, o));
          for (Index j = 0; j < r; ++j) sum.add(0.75 * A.at(j, ids[std::size_t(i)]) * B.at(o, j));
          all_fit = all_fit && sum.fits(y(i, o));
        }
      CHECK(all_fit);
      CHECK(y.gaps_are_intact());
      CHECK(scratch.back() == 99.0f);
    }
}

// Golden vector 2 of the specification, from PEFT: r = 1, alpha = 2.
TEST_CASE("LoRA on an embedding gives PEFT's numbers") {
  const double W[] = {0, 1, 2, 3, 4, 5}, A[] = {1, 0, -1}, B[] = {1, 2};
  const int all[] = {0, 1, 2};
  double y[6], scratch[16];
  kernels::gather_rows(3, &all[0], 2, W, 2, y, 2);
  kernels::low_rank_embedding_update(3, &all[0], 3, 1, 2, A, B, 2.0, y, 2, scratch);
  CHECK(std::vector<double>(y, y + 6) == std::vector<double>{2, 5, 2, 3, 2, 1});
}
