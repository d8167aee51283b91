#include "graft/kernels/conv_geometry.hpp"

#include <doctest/doctest.h>

using graft::PaddingMode;
using graft::kernels::ConvGeometry;

TEST_CASE("the output's size is torch's, axis by axis") {
  ConvGeometry g;
  g.input = {5, 11, 8};
  g.kernel = {1, 3, 2};
  g.stride = {2, 2, 1};
  g.dilation = {1, 2, 3};
  g.padding_before = {0, 2, 1};
  g.padding_after = {0, 2, 0};
  CHECK(g.output() == ConvGeometry::Axes{3, 6, 6});
  CHECK(g.output_positions() == 108);
  CHECK(g.input_positions() == 440);
  g.in = 6;
  g.groups = 3;
  CHECK(g.weight_columns() == 12);
}

TEST_CASE("padding same keeps the size and puts the odd element behind") {
  ConvGeometry g;
  g.input = {1, 7, 9};
  g.kernel = {1, 4, 3};
  g.dilation = {1, 1, 2};
  g.pad_same();
  CHECK(g.padding_before == ConvGeometry::Axes{0, 1, 2});
  CHECK(g.padding_after == ConvGeometry::Axes{0, 2, 2});
  CHECK(g.output() == g.input);
}

TEST_CASE("a geometry that cannot be is a ShapeError") {
  ConvGeometry good;
  good.in = good.out = 4;
  good.input = {1, 1, 5};
  good.kernel = {1, 1, 3};
  CHECK_NOTHROW(good.check());
  const auto refused = [&](auto&& change) {
    ConvGeometry g = good;
    change(g);
    CHECK_THROWS_AS(g.check(), graft::ShapeError);
  };
  refused([](ConvGeometry& g) { g.groups = 3; });
  refused([](ConvGeometry& g) { g.groups = 0; });
  refused([](ConvGeometry& g) { g.kernel[2] = 6; });
  refused([](ConvGeometry& g) { g.dilation[2] = 3; });
  refused([](ConvGeometry& g) { g.stride[2] = 0; });
  refused([](ConvGeometry& g) { g.padding_before[2] = -1; });
  const auto pads = [&](PaddingMode mode, std::ptrdiff_t padding) {
    ConvGeometry g = good;
    g.padding_mode = mode;
    g.padding_before[2] = padding;
    g.check();
  };
  CHECK_NOTHROW(pads(PaddingMode::reflect, 4));
  CHECK_THROWS_AS(pads(PaddingMode::reflect, 5), graft::ShapeError);
  CHECK_NOTHROW(pads(PaddingMode::circular, 5));
  CHECK_THROWS_AS(pads(PaddingMode::circular, 6), graft::ShapeError);
  CHECK_NOTHROW(pads(PaddingMode::replicate, 50));
  CHECK_NOTHROW(pads(PaddingMode::zeros, 50));
}
