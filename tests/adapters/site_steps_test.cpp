#include <graft/adapters/site_steps.hpp>

#include <doctest/doctest.h>

#include <graft/modules/norm.hpp>

using graft::Index;
using graft::Matrix;

TEST_CASE("a layer's bias is exchanged for a trained one: a norm's features repeat, others do not") {
  graft::ParameterData trained(graft::Dtype::f64, {2});
  trained.allocate();
  reinterpret_cast<double*>(trained.data())[0] = 10;
  reinterpret_cast<double*>(trained.data())[1] = 20;
  graft::Linear<double> linear(3, 2);
  linear.bias.view() << 1, 2;
  graft::LayerNorm<double> norm(2);
  norm.bias.view() << 1, 2;
  Matrix<double> y = Matrix<double>::Zero(1, 4), want(1, 4);
  graft::detail::exchange_bias(linear, graft::out(y), trained);
  want << 9, 9, 18, 18;
  CHECK(y == want);
  y.setZero();
  graft::detail::exchange_bias(norm, graft::out(y), trained);
  want << 9, 18, 9, 18;
  CHECK(y == want);
}
TEST_CASE("an adapter's copy of a layer is found, of a slice as a slice of it") {
  graft::SiteAdapter here;
  here.copy = std::make_unique<graft::detail::ModuleCopy<graft::Linear<double>>>(graft::Linear<double>(3, 2));
  const graft::detail::Selected one{.adapter = &here};
  const graft::Linear<double> layer(3, 2);
  CHECK(&graft::detail::copy_of(layer, one) == &static_cast<graft::detail::ModuleCopy<graft::Linear<double>>&>(*here.copy).layer);
  using Packed = graft::PackedProjection<double>;
  const Packed packed(3, 6, true);
  here.copy = std::make_unique<graft::detail::ModuleCopy<Packed>>(packed);
  const auto slice = graft::detail::copy_of(graft::detail::ProjectionSlice<Packed>{&packed, 2, 3}, one);
  CHECK(slice.whole == &static_cast<graft::detail::ModuleCopy<Packed>&>(*here.copy).layer);
  CHECK(slice.begin == 2);
  CHECK(slice.count == 3);
}
