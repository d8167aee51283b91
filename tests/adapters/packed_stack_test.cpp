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

const float* floats(const std::byte* bytes) { return reinterpret_cast<const float*>(bytes); }

}  // namespace

TEST_CASE("the columns of an expert stand experts apart") {
  const graft::ParameterData b = numbered(2, 6);  // 2 experts of rank 3
  const graft::detail::PackedStack packed;
  const auto* all = floats(packed.get(b, 2, 3));
  REQUIRE(all);
  const std::vector<float> expected{0, 100, 2, 102, 4, 104, 1, 101, 3, 103, 5, 105};
  CHECK(std::vector<float>(all, all + 12) == expected);
  std::vector<float> one(6);
  graft::detail::PackedStack::pack_one(b, 2, 3, 1, reinterpret_cast<std::byte*>(one.data()));
  CHECK(one == std::vector<float>(expected.begin() + 6, expected.end()));
}

TEST_CASE("it is packed anew when B was written, and not at all where somebody may write unannounced") {
  graft::ParameterData b = numbered(2, 6);
  const graft::detail::PackedStack packed;
  CHECK(packed.get(b, 2, 3) == packed.get(b, 2, 3));
  reinterpret_cast<float*>(b.data())[0] = 7;
  CHECK(floats(packed.get(b, 2, 3))[0] == 0);
  b.touch();
  CHECK(floats(packed.get(b, 2, 3))[0] == 7);
  const graft::detail::PackedStack copy(packed);
  CHECK(copy.get(b, 2, 3) != packed.get(b, 2, 3));
  b.set_viewed();
  CHECK(packed.get(b, 2, 3) == nullptr);
}

TEST_CASE("elements keep their dtype") {
  const std::vector<std::size_t> expected{0, 6, 2, 8, 4, 10, 1, 7, 3, 9, 5, 11};  // places in B
  for (const graft::Dtype dtype : {graft::Dtype::bf16, graft::Dtype::f64}) {
    graft::ParameterData b(dtype, graft::Shape{2, 6});
    b.allocate();
    for (std::size_t i = 0; i < b.bytes(); ++i) b.data()[i] = std::byte(i);
    const graft::detail::PackedStack packed;
    const std::byte* all = packed.get(b, 2, 3);
    const std::size_t size = graft::size_of(dtype);
    for (std::size_t i = 0; i < 12; ++i) CHECK(all[i * size] == std::byte(expected[i] * size));
  }
}
