#include <graft/io/narrow_kernels.hpp>

#include <doctest/doctest.h>

#include <vector>

using graft::Dtype;
using graft::Index;

TEST_CASE("the table that programs with files have widens and updates both narrow types") {
  const auto* const table = graft::detail::narrow_kernels;
  REQUIRE(table == &graft::detail::all_narrow_kernels);
  const auto check = [&]<class W>(W, Dtype dtype) {
    const std::vector<W> ones(std::size_t{33}, W(1.5F));
    std::vector<float> wide(std::size_t{33});
    table->widen(dtype, 33, reinterpret_cast<const std::byte*>(ones.data()), wide.data());
    CHECK(wide == std::vector<float>(std::size_t{33}, 1.5F));

    // y += 2 · (x·Aᵀ)·Bᵀ + 2 · beta, with A (1, 3) and B (5, 1) of 1.5
    const std::vector<float> x{1, 2, 4}, beta{0, 1, 2, 3, 4};
    std::vector<float> y{1, 1, 1, 1, 1};
    float scratch = 0;
    const auto* bytes = reinterpret_cast<const std::byte*>(ones.data());
    table->update(dtype, graft::in(x.data(), 1, 3), 1, bytes, bytes, nullptr, 2, beta.data(), graft::out(y.data(), 1, 5), &scratch);
    for (std::size_t o = 0; o < 5; ++o) CHECK(y[o] == 1 + 2 * 7 * 1.5F * 1.5F + 2 * float(o));
  };
  check(graft::bf16(), Dtype::bf16);
  check(graft::f16(), Dtype::f16);
}
