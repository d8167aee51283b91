#include <graft/adapters/narrow.hpp>

#include <doctest/doctest.h>

#include <graft/io/narrow_kernels.hpp>

#include "support/awkward_layers.hpp"

using graft::Dtype;
using graft::Index;
using graft::ParameterData;
namespace detail = graft::detail;

namespace {
ParameterData parameter(Dtype dtype, graft::Shape shape, double seed) {
  ParameterData made(dtype, shape);
  made.allocate();
  for (Index i = 0; i < shape.size(); ++i) {
    if (dtype == Dtype::bf16) detail::store<graft::bf16>(made, i, awkward::value(i, seed));
    else if (dtype == Dtype::f16) detail::store<graft::f16>(made, i, awkward::value(i, seed));
    else detail::store<float>(made, i, awkward::value(i, seed));
  }
  return made;
}
std::vector<float> elements(const ParameterData& parameter) {
  std::vector<float> all;
  for (Index i = 0; i < parameter.shape().size(); ++i) all.push_back(graft::element_as<float>(parameter.dtype(), parameter.data(), std::size_t(i)));
  return all;
}
}  // namespace

TEST_CASE("values are the parameter's own memory, or widened for a scope") {
  const ParameterData wide = parameter(Dtype::f32, {3, 5}, 1);
  CHECK(reinterpret_cast<const std::byte*>(detail::Values<float>(wide).data()) == wide.data());
  graft::Workspace workspace;
  for (const Dtype dtype : {Dtype::bf16, Dtype::f16}) {
    const ParameterData narrow = parameter(dtype, {3, 5}, 1);
    CHECK(detail::is_narrow<float>(narrow));
    const detail::Values<float> values(narrow, &workspace);
    CHECK(std::vector<float>(values.data(), values.data() + 15) == elements(narrow));
  }
  CHECK_FALSE(detail::is_narrow<float>(wide));
  CHECK_FALSE(detail::is_narrow<double>(ParameterData(Dtype::f64, {3})));
  CHECK(detail::Values<float>(ParameterData()).data() == nullptr);
}

TEST_CASE("a vector comes whole where it is float, and in parts where it is narrow") {
  for (const Dtype dtype : {Dtype::f32, Dtype::f16}) {
    const ParameterData vector = parameter(dtype, {601}, 2);
    std::vector<float> all;
    int parts = 0;
    detail::for_each_part<float>(vector, [&](Index begin, Index count, const float* values) {
      CHECK(begin == Index(all.size()));
      all.insert(all.end(), values, values + count);
      ++parts;
    });
    CHECK(all == elements(vector));
    CHECK(parts == (dtype == Dtype::f32 ? 1 : 3));
  }
}

TEST_CASE("an update of mixed dtypes is the sum over plain loops, whatever the number of rows") {
  const Index in = 13, out = 7, r = 3;
  const double scale = 0.75;
  for (const auto& [of_a, of_b] : {std::pair{Dtype::bf16, Dtype::bf16}, {Dtype::f16, Dtype::f32}, {Dtype::f32, Dtype::f16}, {Dtype::f32, Dtype::f32}})
    for (const Dtype of_e : {Dtype::f32, Dtype::bf16})
      for (const Index n : {1, 4, 5, 33}) {
        const ParameterData a = parameter(of_a, {r, in}, 1), b = parameter(of_b, {out, r}, 2), e = parameter(of_e, {r, 1}, 3),
                            beta = parameter(of_e, {out}, 4);
        const graft::Matrix<float> x = awkward::rows<float>(n, in, 5);
        graft::Matrix<float> y = awkward::rows<float>(n, out, 6);
        const graft::Matrix<float> before = y;
        const detail::PackedB<float> packed;
        detail::add_narrow_update<float>(graft::in(x), a, b, packed, &e, float(scale), &beta, graft::out(y), nullptr);
        const std::vector<float> va = elements(a), vb = elements(b), ve = elements(e), vbeta = elements(beta);
        double error = 0, change = 0;
        for (Index i = 0; i < n; ++i)
          for (Index o = 0; o < out; ++o) {
            double sum = double(before(i, o)) + scale * double(vbeta[std::size_t(o)]);
            for (Index j = 0; j < r; ++j)
              for (Index k = 0; k < in; ++k)
                sum += scale * double(x(i, k)) * double(va[std::size_t(j * in + k)]) * double(ve[std::size_t(j)]) * double(vb[std::size_t(o * r + j)]);
            error = std::max(error, std::abs(double(y(i, o)) - sum));
            change = std::max(change, std::abs(sum - double(before(i, o))));
          }
        CHECK(error <= 1e-5);
        CHECK(change > 0.1);
      }
}
