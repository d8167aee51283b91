#include "graft/kernels/column_panels.hpp"

#include <vector>

#include <doctest/doctest.h>

#include "graft/kernels/quantize.hpp"
#include "reference.hpp"

#define GRAFT_KERNELS "kernels/column_panels_checks.inc"
#include "graft/kernels/for_each_isa.inc"

using namespace reference;

namespace graft::kernels {

/// value(k, i) is what stands in row k and column i.
template <int registers, class T, class Rows, class Value>
static void check_panels(Index rows, Index first, Index cols, Rows w, Index ldw, Value value) {
  CAPTURE(registers);
  CAPTURE(rows);
  CAPTURE(cols);
  std::vector<T> packed(std::size_t(rows * (cols + 64 * registers)), T(99));
  const Index width = GRAFT_DISPATCH(column_panels_checks::pack<registers>(rows, first, cols, w, ldw, packed.data()));
  REQUIRE(width > 0);
  std::size_t at = 0;
  bool is_packed = true;
  for (Index p = 0; p < cols; p += width)
    for (Index k = 0; k < rows; ++k)
      for (Index i = p; i < p + width; ++i) is_packed = is_packed && packed.at(at++) == (i < cols ? value(k, first + i) : T(0));
  CHECK(is_packed);
  for (; at < packed.size(); ++at) CHECK(packed[at] == T(99));
}

template <int registers, class T, class W>
static void check_matrix() {
  for (const Index rows : {1, 3, 13})
    for (const Index cols : awkward)
      for (const Index first : {0, 5}) {
        const Matrix<W> w(rows, first + cols, 1);
        check_panels<registers, T, const W*>(rows, first, cols, w.data(), w.ld, [&](Index k, Index i) { return T(w.at(k, i)); });
      }
}

TEST_CASE("columns stand in panels, row by row, with zeros behind the last one") {
  check_matrix<1, float, float>();
  check_matrix<3, float, float>();
  check_matrix<4, double, double>();
  check_matrix<3, float, graft::bf16>();
  check_matrix<2, float, graft::f16>();
}

TEST_CASE("quantised rows are widened") {
  const Index rows = 3, cols = 97;
  const Matrix<float> w(rows, cols, 1, 0);
  std::vector<std::int8_t> values(std::size_t(rows * cols));
  std::vector<float> scales(rows);
  quantize_int8(rows, cols, w.data(), w.ld, values.data(), scales.data());
  check_panels<3, float, Int8View>(rows, 0, cols, {values.data(), scales.data()}, cols, [&](Index k, Index i) {
    return float(values[std::size_t(k * cols + i)]) * scales[std::size_t(k)];
  });
}

}  // namespace graft::kernels
