#include "graft/kernels/four_bit_groups.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <vector>

#include "graft/kernels/quantize.hpp"
#include "reference.hpp"

#define GRAFT_KERNELS "kernels/four_bit_groups_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {

// Nibble n of word l is column 16 n + l, read here one by one; every nibble, and factors that differ in every block.
static void check_groups(const float* code, int shift) {
  CAPTURE(shift);
  constexpr Index group = FourBitView::group, groups = 3;
  std::vector<std::uint32_t> words(std::size_t(groups * FourBitView::words_per_group));
  std::vector<float> scales(std::size_t(groups * group >> shift));
  std::uint32_t bits = 12345;
  for (std::uint32_t& word : words) word = bits = bits * 1664525u + 1013904223u;
  for (std::size_t i = 0; i < scales.size(); ++i) scales[i] = (i % 2 != 0 ? -0.37f : 0.73f) * float(i + 1);
  const FourBitView row{words.data(), scales.data(), code, shift};
  for (Index g = 0; g < groups; ++g) {
    std::vector<float> wide(std::size_t(group) + 1, 99.0f), expected = wide;
    GRAFT_DISPATCH(four_bit_groups_checks::widen_group(row, g * group, wide.data()));
    for (Index c = 0; c < group; ++c) {
      const std::uint32_t word = words[std::size_t(g * FourBitView::words_per_group + c % 16)];
      expected[std::size_t(c)] = code[word >> (c / 16 * 4) & 15u] * scales[std::size_t((g * group + c) >> shift)];
    }
    CHECK(std::memcmp(wide.data(), expected.data(), wide.size() * sizeof(float)) == 0);
  }
}

TEST_CASE("a group is its code's values times the factors of its blocks, to the bit") {
  check_groups(nf4_code, 6);
  check_groups(fp4_code, 6);
  check_groups(int4_code, 5);
}

}  // namespace graft::kernels
