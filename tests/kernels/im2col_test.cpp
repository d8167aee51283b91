#include "graft/kernels/im2col.hpp"

#include <doctest/doctest.h>

#include "conv_reference.hpp"

using namespace reference;

TEST_CASE("im2col lays out what every output position reads, from any position on") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    const Matrix<float> x(1, g.in * g.input_positions(), 1);
    const Index rows = g.in * g.kernel_positions(), positions = g.output_positions();
    for (const Index first : {Index(0), positions / 3, positions - 1}) {
      const Index count = std::min<Index>(positions - first, 50);
      Matrix<float> columns(rows, count, 2);
      graft::kernels::im2col(g, g.in, x.data(), first, count, columns.data(), columns.ld);
      bool equal = true;
      for (Index c = 0; c < g.in; ++c)
        for_each_place(g.kernel, [&](Index element, ConvGeometry::Axes at) {
          for_each_place(g.output(), [&](Index position, ConvGeometry::Axes output) {
            if (position < first || position >= first + count) return;
            const double expected = read_through(g, x.data() + c * g.input_positions(), output, at);
            equal = equal && columns.at(c * g.kernel_positions() + element, position - first) == expected;
          });
        });
      CHECK(equal);
      CHECK(columns.gaps_are_intact());
    }
  }
}
