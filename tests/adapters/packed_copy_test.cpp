#include <graft/adapters/packed_copy.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <new>

using graft::ParameterData;
using graft::detail::PackedCopy;

namespace {

ParameterData bytes_of(graft::Index count, unsigned char first) {
  ParameterData parameter(graft::Dtype::f32, graft::Shape{count});
  parameter.allocate();
  for (std::size_t i = 0; i < parameter.bytes(); ++i) parameter.data()[i] = std::byte(first + i);
  return parameter;
}
auto reversed(const ParameterData& of) {
  return [&of](std::byte* to) {
    for (std::size_t i = 0; i < of.bytes(); ++i) to[i] = of.data()[of.bytes() - 1 - i];
  };
}

}  // namespace

TEST_CASE("packed once for every announced write, into the same memory") {
  ParameterData parameter = bytes_of(3, 1);
  const PackedCopy packed;
  const std::byte* first = packed.get(parameter, reversed(parameter));
  CHECK(first[0] == std::byte(12));
  CHECK(first[11] == std::byte(1));
  parameter.data()[0] = std::byte(77);
  CHECK(packed.get(parameter, reversed(parameter))[11] == std::byte(1));
  parameter.touch();
  CHECK(packed.get(parameter, reversed(parameter)) == first);
  CHECK(first[11] == std::byte(77));
}

TEST_CASE("another size takes other memory; a copy starts empty; views can write unannounced") {
  ParameterData small = bytes_of(1, 1), large = bytes_of(200, 3);
  const PackedCopy packed;
  CHECK(packed.get(small, reversed(small))[0] == std::byte(4));
  for (int i = 0; i < 3; ++i) large.touch();
  CHECK(packed.get(large, reversed(large))[799] == std::byte(3));
  const PackedCopy copy(packed);
  CHECK(copy.get(large, reversed(large)) != packed.get(large, reversed(large)));
  large.set_viewed();
  CHECK(packed.get(large, reversed(large)) == nullptr);
}

TEST_CASE("what could not be packed is packed the next time") {
  ParameterData parameter = bytes_of(3, 1);
  const PackedCopy packed;
  CHECK_THROWS_AS((void)packed.get(parameter, [](std::byte*) { throw std::bad_alloc(); }), std::bad_alloc);
  CHECK(packed.get(parameter, reversed(parameter))[0] == std::byte(12));
}
