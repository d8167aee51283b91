#include <graft/adapters/content_mark.hpp>

#include <doctest/doctest.h>

#include <set>

using graft::ParameterData;
using graft::detail::content_mark;
using graft::detail::write_mark;

namespace {
ParameterData parameter(graft::Index size, graft::Dtype dtype = graft::Dtype::f32) {
  ParameterData made(dtype, {size});
  made.allocate();
  return made;
}
}  // namespace

TEST_CASE("any other byte, place or length is another mark; equal values have one") {
  for (const graft::Index size : {1, 3, 7, 8, 9, 13, 31, 32, 67, 101}) {  // from 32 on eight words at a time
    ParameterData values = parameter(size, graft::Dtype::bf16);
    const ParameterData same = parameter(size, graft::Dtype::bf16);
    CHECK(content_mark(values) == content_mark(same));
    std::set<std::uint64_t> marks{content_mark(values), content_mark(parameter(size + 1, graft::Dtype::bf16))};
    for (std::size_t i = 0; i < values.bytes(); ++i) {
      values.data()[i] = std::byte{1};
      marks.insert(content_mark(values));
      values.data()[i] = std::byte{0};
    }
    CHECK(marks.size() == values.bytes() + 2);
  }
  CHECK(content_mark(ParameterData(graft::Dtype::f32, {3})) == content_mark(ParameterData(graft::Dtype::f32, {5})));
}

TEST_CASE("without a view writes are counted, with one they are looked for") {
  ParameterData values = parameter(5);
  const std::uint64_t counted = write_mark(values);
  values.data()[3] = std::byte{7};
  CHECK(write_mark(values) == counted);  // not announced
  values.touch();
  CHECK(write_mark(values) != counted);
  auto view = graft::ParameterView(values).view<float>();
  const std::uint64_t seen = write_mark(values);
  CHECK(write_mark(values) == seen);
  view(0, 2) = 3;
  CHECK(write_mark(values) != seen);
}
