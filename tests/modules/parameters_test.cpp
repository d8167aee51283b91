#include <doctest/doctest.h>

#include <graft/modules/parameters.hpp>

using graft::Parameter;
using graft::Shape;

TEST_CASE("parameters, Eigen matrices of floats and maps of them are parameters") {
  static_assert(graft::enable_parameter<Parameter<>> && graft::enable_parameter<Parameter<graft::bf16, graft::mapped>>);
  static_assert(graft::enable_parameter<Eigen::MatrixXf> && graft::enable_parameter<Eigen::Vector3d>);
  static_assert(graft::enable_parameter<Eigen::Map<Eigen::MatrixXf>>);
  static_assert(!graft::enable_parameter<Eigen::MatrixXi> && !graft::enable_parameter<float>);
  static_assert(!graft::enable_parameter<Eigen::Array3f>);
}

TEST_CASE("a widened parameter is read in place where it has the scalar, else copied") {
  const float same[] = {1, 2, 3};
  CHECK(graft::detail::Widened<float>(same, 3, nullptr).data() == same);
  const graft::bf16 narrow[] = {graft::bf16(1.5f), graft::bf16(-2.0f)};
  graft::Workspace workspace;
  const graft::detail::Widened<float> wide(narrow, 2, &workspace);
  CHECK(wide.data()[0] == 1.5f);
  CHECK(wide.data()[1] == -2.0f);
  CHECK(workspace.reserved() > 0);
  const graft::bf16* none = nullptr;
  CHECK(graft::detail::Widened<float>(none, 7, nullptr).data() == nullptr);
}

TEST_CASE("an empty bias is none; one on meta is an error") {
  CHECK(graft::detail::bias_data(Parameter<>(Shape{0})) == nullptr);
  const Parameter<> bias(Shape{3});
  CHECK(graft::detail::bias_data(bias) == bias.data());
  CHECK_THROWS_AS((void)graft::detail::bias_data(Parameter<float, graft::lazy>(Shape{3})), graft::MetaError);
}
