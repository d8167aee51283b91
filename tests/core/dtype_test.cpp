#include <graft/core/dtype.hpp>

#include <cstddef>
#include <cstring>

#include <doctest/doctest.h>

TEST_CASE("dtype: tags and sizes are those of safetensors") {
  using graft::Dtype;
  const std::pair<Dtype, std::string_view> tags[] = {{Dtype::f64, "F64"}, {Dtype::f32, "F32"}, {Dtype::f16, "F16"},
                                                     {Dtype::bf16, "BF16"}, {Dtype::i64, "I64"}, {Dtype::i32, "I32"},
                                                     {Dtype::i16, "I16"}, {Dtype::i8, "I8"}, {Dtype::u8, "U8"},
                                                     {Dtype::boolean, "BOOL"}};
  for (const auto& [dtype, tag] : tags) {
    CHECK(graft::tag_of(dtype) == tag);
    CHECK(graft::dtype_of_tag(tag) == dtype);
  }
  CHECK(!graft::dtype_of_tag("F8_E4M3").has_value());
  CHECK(graft::size_of(Dtype::bf16) == 2);
  CHECK(graft::size_of(Dtype::i64) == 8);
  CHECK(graft::is_floating(Dtype::bf16));
  CHECK(!graft::is_floating(Dtype::i64));
  CHECK(graft::torch_name_of(Dtype::f64) == "Double");
  static_assert(graft::dtype_of<graft::f16> == Dtype::f16);
  static_assert(std::is_same_v<graft::compute_scalar<graft::bf16>, float> && std::is_same_v<graft::compute_scalar<double>, double>);
}

TEST_CASE("dtype: elements are read at any address, as any floating type") {
  std::byte bytes[17] = {};
  const double wide = -2.5;
  std::memcpy(bytes + 1, &wide, sizeof wide);
  CHECK(graft::element_as<float>(graft::Dtype::f64, bytes + 1, 0) == -2.5f);
  const graft::bf16 narrow(1.5f);
  std::memcpy(bytes + 3, &narrow, sizeof narrow);
  CHECK(graft::element_as<double>(graft::Dtype::bf16, bytes + 1, 1) == 1.5);
}
