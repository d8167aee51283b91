#include "graft/kernels/col2im.hpp"

#include <doctest/doctest.h>

#include "conv_reference.hpp"

using namespace reference;

namespace {

template <class T>
void check(const ConvGeometry& g, Index first, Index count) {
  const Matrix<T> columns(g.in * g.kernel_positions(), count, 1);
  Matrix<T> dx(1, g.in * g.input_positions(), 2);
  std::vector<Sum> sums(std::size_t(dx.cols));
  for (Index i = 0; i < dx.cols; ++i) sums[std::size_t(i)].add(dx.at(0, i));
  for (Index c = 0; c < g.in; ++c)
    for_each_place(g.kernel, [&](Index element, ConvGeometry::Axes kernel) {
      for_each_place(g.output(), [&](Index position, ConvGeometry::Axes at) {
        const Index place = place_through(g, at, kernel);
        if (place < 0 || position < first || position >= first + count) return;
        sums[std::size_t(c * g.input_positions() + place)].add(columns.at(c * g.kernel_positions() + element, position - first));
      });
    });
  graft::kernels::col2im(g, g.in, columns.data(), columns.ld, first, count, dx.data());
  bool all_fit = true;
  for (Index i = 0; i < dx.cols; ++i) all_fit = all_fit && sums[std::size_t(i)].fits(dx(0, i));
  CHECK(all_fit);
  CHECK(dx.gaps_are_intact());
}

}  // namespace

TEST_CASE("col2im adds every column to where im2col reads it, from any position on") {
  int number = 0;
  for (const ConvGeometry& g : geometries()) {
    CAPTURE(number++);
    const Index positions = g.output_positions();
    for (const Index first : {Index(0), positions / 3, positions - 1}) {
      check<float>(g, first, std::min<Index>(positions - first, 50));
      check<double>(g, first, positions - first);
    }
  }
}
