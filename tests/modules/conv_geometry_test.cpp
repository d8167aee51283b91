#include <graft/modules/conv_geometry.hpp>

#include <doctest/doctest.h>

TEST_CASE("conv geometry: axes stand at the end, and lists are completed from one number") {
  graft::ConvShape shape;
  shape.in = 3;
  shape.out = 5;
  shape.kernel = {3, 2};
  shape.stride = {2, 1};
  shape.padding = 1;
  const graft::ConvShape full = shape.completed();
  CHECK(full.padding == graft::Shape{1, 1});
  const graft::kernels::ConvGeometry geometry = graft::detail::conv_geometry(full, {3, 7, 4});
  CHECK(geometry.input == graft::kernels::ConvGeometry::Axes{1, 7, 4});
  CHECK(geometry.kernel == graft::kernels::ConvGeometry::Axes{1, 3, 2});
  CHECK(geometry.padding_before == graft::kernels::ConvGeometry::Axes{0, 1, 1});
  // torch: floor((7 + 2 - 2 - 1) / 2) + 1 = 4, floor((4 + 2 - 1 - 1) / 1) + 1 = 5
  CHECK(graft::detail::conv_row_shape(full, {3, 7, 4}) == graft::Shape{5, 4, 5});
}

TEST_CASE("conv geometry: same padding puts the odd element behind") {
  graft::ConvShape shape;
  shape.in = 1;
  shape.out = 1;
  shape.kernel = {4};
  shape.same = true;
  const graft::kernels::ConvGeometry geometry = graft::detail::conv_geometry(shape.completed(), {1, 9});
  CHECK(geometry.padding_before[2] == 1);
  CHECK(geometry.padding_after[2] == 2);
  CHECK(graft::detail::conv_row_shape(shape.completed(), {1, 9}) == graft::Shape{1, 9});
}

TEST_CASE("conv geometry: rows of another rank or number of channels are a ShapeError") {
  graft::ConvShape shape;
  shape.in = 3;
  shape.out = 5;
  shape.kernel = {3, 3};
  CHECK_THROWS_AS((void)graft::detail::conv_geometry(shape.completed(), {3, 7}), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::detail::conv_geometry(shape.completed(), {2, 7, 7}), graft::ShapeError);
}
