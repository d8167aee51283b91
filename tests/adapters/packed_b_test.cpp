#include <doctest/doctest.h>

#include <graft/adapters/packed_b.hpp>

#include <thread>
#include <vector>

using graft::Index;
using graft::ParameterData;
using graft::detail::PackedB;

namespace {

constexpr Index out = 301, r = 3;

ParameterData parameter(float first) {
  ParameterData b(graft::Dtype::f32, {out, r});
  b.allocate();
  for (Index i = 0; i < out * r; ++i) reinterpret_cast<float*>(b.data())[i] = first + float(i);
  return b;
}
std::vector<float> packed(const ParameterData& b) {
  std::vector<float> values(std::size_t(out * r));
  graft::kernels::pack_b(out, r, reinterpret_cast<const float*>(b.data()), values.data());
  return values;
}
bool equal(const float* values, const std::vector<float>& expected) { return std::equal(expected.begin(), expected.end(), values); }

}  // namespace

TEST_CASE("B is packed once for every write") {
  ParameterData b = parameter(1);
  const PackedB<float> cache;
  const float* first = cache.get(b, 1, out, r);
  CHECK(equal(first, packed(b)));
  CHECK(first[1] == 1.0f + float(r));  // column by column
  reinterpret_cast<float*>(b.data())[0] = 77;
  CHECK(cache.get(b, 1, out, r)[0] == 1);  // the write was not announced: nothing was packed anew
  b.touch();
  CHECK(cache.get(b, 1, out, r)[0] == 77);
  CHECK(cache.get(b, 1, out, r) == first);
  CHECK(cache.get(b, 31, out, r) == first);
  CHECK(!cache.get(b, 32, out, r));
}

TEST_CASE("another size takes other memory, and a copy starts empty") {
  const PackedB<float> cache;
  const ParameterData b = parameter(1);
  const float* first = cache.get(b, 1, out, r);
  const PackedB<float> copy(cache);
  CHECK(copy.get(b, 1, out, r) != first);
  CHECK(equal(copy.get(b, 1, out, r), packed(b)));
  ParameterData small(graft::Dtype::f32, {2, 1});
  small.allocate();
  reinterpret_cast<float*>(small.data())[1] = 5;
  for (int i = 0; i < 3; ++i) small.touch();
  CHECK(cache.get(small, 1, 2, 1)[1] == 5);
}

TEST_CASE("a view that was handed out may be written at any time: nothing is kept until the memory is another") {
  ParameterData b = parameter(1);
  const PackedB<float> cache;
  REQUIRE(cache.get(b, 1, out, r));
  auto held = graft::ParameterView(b).view<float>();
  CHECK(!cache.get(b, 1, out, r));
  held(0, 0) = 5;
  CHECK(!cache.get(b, 1, out, r));
  const ParameterData copy = b;  // memory of its own, which nobody has seen
  REQUIRE(cache.get(copy, 1, out, r));
  CHECK(cache.get(copy, 1, out, r)[0] == 5);
  const ParameterData tied = b.share();
  CHECK(!cache.get(tied, 1, out, r));
  ParameterData moved = std::move(b);  // the view sees the same memory
  CHECK(!cache.get(moved, 1, out, r));
  b = std::move(moved);
  CHECK(!cache.get(b, 1, out, r));
  b.allocate();
  REQUIRE(cache.get(b, 1, out, r));
  CHECK(cache.get(b, 1, out, r)[0] == 0);
}

TEST_CASE("threads that find B unpacked get it packed") {
  for (int round = 0; round < 20; ++round) {
    const ParameterData b = parameter(float(round));
    const std::vector<float> expected = packed(b);
    const PackedB<float> cache;
    std::vector<char> right(4, 0);
    std::vector<std::thread> threads;
    for (char& mine : right) threads.emplace_back([&] { mine = equal(cache.get(b, 1, out, r), expected); });
    for (std::thread& thread : threads) thread.join();
    CHECK(right == std::vector<char>(4, 1));
  }
}
