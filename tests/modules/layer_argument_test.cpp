#include <doctest/doctest.h>

#include <graft/modules/layer_argument.hpp>

#include "support/ramp.hpp"

using graft::Ids;
using graft::Index;
using graft::Shape;
using graft::detail::AnyTensor;
using graft::detail::BothIds;
using Tensor3 = Eigen::Tensor<float, 3, Eigen::RowMajor>;
using Tensor4 = Eigen::Tensor<float, 4, Eigen::RowMajor>;

namespace {
struct NoTraits {
  void operator()(int) const {}
};
struct Template {
  void operator()(const auto&) const {}
};
struct PlainTraits {};
struct TemplateTraits {
  void operator()(int) const {}
};

float at_the_end(const Tensor3& x) { return x(1, 2, 4); }
Index axes_of(const Eigen::TensorMap<const Tensor4>& x) { return x.dimension(0) * x.dimension(3); }

int sum(const std::vector<int>& ids) { return ids[0] + ids[1]; }
std::int64_t sum_wide(std::span<const std::int64_t> ids) { return ids[0] + ids[1]; }
std::int64_t sum_wide_vector(const std::vector<std::int64_t>& ids) { return ids[0] + ids[1]; }
int sum_span(std::span<const int> ids) { return ids[0] + ids[1]; }
int sum_eigen(const Eigen::VectorXi& ids) { return ids.sum(); }
}  // namespace

template <>
struct graft::layer_traits<PlainTraits> {
  static int forward(const PlainTraits&, int x) { return x; }
};
template <>
struct graft::layer_traits<TemplateTraits> {
  static int forward(const TemplateTraits&, const auto&) { return 0; }
};

TEST_CASE("a forward that is one function is told from a template") {
  using graft::detail::has_forward, graft::detail::has_plain_forward, graft::layer_traits;
  static_assert(!has_forward<layer_traits<NoTraits>> && has_forward<layer_traits<PlainTraits>> &&
                has_forward<layer_traits<TemplateTraits>>);
  static_assert(has_plain_forward<NoTraits> && has_plain_forward<PlainTraits>);
  static_assert(!has_plain_forward<Template> && !has_plain_forward<TemplateTraits>);
}

TEST_CASE("ids convert to what a lookup takes") {
  const std::vector<std::int64_t> wide{7, 4};
  const BothIds ids{Ids(std::span<const std::int64_t>(wide))};
  CHECK(sum(ids) == 11);
  CHECK(sum_span(ids) == 11);
  CHECK(sum_wide(ids) == 11);
  CHECK(sum_wide_vector(ids) == 11);
  CHECK(sum_eigen(ids) == 11);
  int all = 0;
  for (const auto id : ids) all += int(id);
  CHECK(all == 11);
}

TEST_CASE("a tensor of a rank known at run time becomes one of that rank") {
  std::vector<float> memory(2 * 3 * 5);
  support::fill_ramp(memory, 1);
  const AnyTensor<float> tensor(Shape{2, 3, 5}, memory.data());
  CHECK(at_the_end(tensor) == memory.back());
  CHECK(tensor(1, 2, 4) == memory.back());
  CHECK(tensor(0, 1, 0) == memory[5]);
  CHECK(tensor.dimension(1) == 3);
  CHECK(tensor.rank() == 3);
  CHECK(tensor.size() == 30);
  CHECK_THROWS_AS((void)axes_of(tensor), graft::ShapeError);
  CHECK(axes_of(AnyTensor<float>(Shape{2, 3, 1, 5}, memory.data())) == 10);
}

TEST_CASE("it is a tensor to graft's own layers too") {
  using traits = graft::tensor_traits<AnyTensor<double>>;
  AnyTensor<double> made = traits::make(Shape{2, 2});
  traits::data(made)[3] = 4;
  const AnyTensor<double> moved = std::move(made);
  CHECK(moved(1, 1) == 4);
  CHECK(moved(0, 1) == 0);
  CHECK(traits::shape(moved) == Shape{2, 2});
}
