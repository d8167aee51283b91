#include <graft/adapters/packed_stack.hpp>

#include <doctest/doctest.h>

#include <vector>

using graft::Index;

namespace {

/// (span, r · experts) of numbers that say where they stand: 100 · span + column.
graft::ParameterData numbered(Index span, Index columns) {
  graft::ParameterData b(graft::Dtype::f32, graft::Shape{span, columns});
  b.allocate();
  for (Index i = 0; i < span * columns; ++i) reinterpret_cast<float*>(b.data())[i] = float(100 * (i / columns) + i % columns);
  return b;
}

}  // namespace

TEST_CASE("the columns of an expert stand experts apart") {
  const graft::ParameterData b = numbered(2, 6);  // 2 experts of rank 3
  const graft::detail::PackedStack<float> packed;
  const float* all = packed.get(b, 2, 3);
  REQUIRE(all);
  const std::vector<float> expected{0, 100, 2, 102, 4, 104, 1, 101, 3, 103, 5, 105};
  CHECK(std::vector<float>(all, all + 12) == expected);
  std::vector<float> one(6);
  graft::detail::PackedStack<float>::pack_one(b, 2, 3, 1, one.data());
  CHECK(one == std::vector<float>(expected.begin() + 6, expected.end()));
}

TEST_CASE("it is packed anew when B was written, and not at all where somebody may write unannounced") {
  graft::ParameterData b = numbered(2, 6);
  const graft::detail::PackedStack<float> packed;
  CHECK(packed.get(b, 2, 3) == packed.get(b, 2, 3));
  reinterpret_cast<float*>(b.data())[0] = 7;
  CHECK(packed.get(b, 2, 3)[0] == 0);
  b.touch();
  CHECK(packed.get(b, 2, 3)[0] == 7);
  const graft::detail::PackedStack<float> copy(packed);
  CHECK(copy.get(b, 2, 3) != packed.get(b, 2, 3));
  b.set_viewed();
  CHECK(packed.get(b, 2, 3) == nullptr);
}
