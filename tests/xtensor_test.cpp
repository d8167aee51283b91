#include <graft/xtensor.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <doctest/doctest.h>
#if __has_include(<xtensor/containers/xadapt.hpp>)
#include <xtensor/containers/xadapt.hpp>
#include <xtensor/containers/xfixed.hpp>
#else
#include <xtensor/xadapt.hpp>
#include <xtensor/xfixed.hpp>
#endif

namespace {

/// W = [[1, 2, 3], [4, 5, 6]], b = [10, 20].
void set_weights(graft::Linear<>& layer) {
  layer.weight.view() << 1, 2, 3, 4, 5, 6;
  layer.bias.view() << 10, 20;
}

struct Net {
  graft::Adaptable<graft::Linear<>> linear{3, 2};
  GRAFT_MODULE(linear)
};

/// scale · B·A·x with A = [[1, 1, 1]], B = [[1], [2]] and scale 1: adds (s, 2 s) for s = x₀ + x₁ + x₂.
Net net_with_lora() {
  Net net;
  set_weights(*net.linear.operator->());
  const graft::LoraConfig config{.r = 1, .lora_alpha = 1, .target_modules = {"linear"}};
  graft::inject_adapter_in_model(config, net);
  net.linear.parameter("default", "lora_A").view<float>().setConstant(1);
  net.linear.parameter("default", "lora_B").view<float>() << 1, 2;
  return net;
}

template <class X>
std::vector<float> values(const X& x) {
  return {x.begin(), x.end()};
}
template <class X>
std::vector<std::size_t> sizes(const X& x) {
  return {x.shape().begin(), x.shape().end()};
}

const std::vector<float> input{1, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1, 1};
const std::vector<float> base_result{11, 24, 12, 25, 13, 26, 16, 35};
const std::vector<float> lora_result{12, 26, 13, 27, 14, 28, 19, 41};

xt::xtensor<float, 3> cube() {
  auto x = xt::xtensor<float, 3>::from_shape({2, 2, 3});
  std::copy(input.begin(), input.end(), x.begin());
  return x;
}

}  // namespace

TEST_CASE("xtensor: a linear layer collapses the leading dimensions and keeps the kind") {
  graft::Linear<> layer{3, 2};
  set_weights(layer);

  const xt::xtensor<float, 3> fixed_rank = layer(cube());
  CHECK(sizes(fixed_rank) == std::vector<std::size_t>{2, 2, 2});
  CHECK(values(fixed_rank) == base_result);

  const xt::xarray<float> dynamic_rank = layer(xt::xarray<float>(cube()));
  CHECK(sizes(dynamic_rank) == std::vector<std::size_t>{2, 2, 2});
  CHECK(values(dynamic_rank) == base_result);

  const xt::xtensor<float, 1> one = layer(xt::xtensor<float, 1>{1, 1, 1});
  CHECK(values(one) == std::vector<float>{16, 35});

  const xt::xtensor_fixed<float, xt::xshape<1, 3>> in_place{{0, 1, 0}};
  const xt::xtensor<float, 2> of_fixed = layer(in_place);
  CHECK(values(of_fixed) == std::vector<float>{12, 25});
}

TEST_CASE("xtensor: sites take containers and adaptors of somebody's memory, without a copy") {
  const Net net = net_with_lora();
  CHECK(values(net.linear(cube())) == lora_result);

  std::vector<float> memory = input;
  const auto adapted = xt::adapt(memory, std::array<std::size_t, 2>{4, 3});
  const xt::xtensor<float, 2> result = net.linear(adapted);
  CHECK(values(result) == lora_result);

  const std::vector<std::size_t> dynamic_shape{1, 4, 3};
  const auto dynamic = xt::adapt(memory.data(), memory.size(), xt::no_ownership(), dynamic_shape);
  const xt::xarray<float> of_dynamic = net.linear(dynamic);
  CHECK(sizes(of_dynamic) == std::vector<std::size_t>{1, 4, 2});
  CHECK(values(of_dynamic) == lora_result);

  const float* read_only = memory.data();
  const std::array<std::size_t, 2> shape{4, 3};
  const auto constant = xt::adapt(read_only, memory.size(), xt::no_ownership(), shape);
  CHECK(values(net.linear(constant)) == lora_result);

  CHECK(graft::tensor_traits<std::remove_cv_t<decltype(adapted)>>::data(adapted) == memory.data());
}

TEST_CASE("xtensor: the batch routes rows, and y may be an xtensor") {
  const Net net = net_with_lora();
  graft::Batch batch;
  batch.add(2, graft::base_only()).add(2, graft::select(net, {{"default"}}));
  const std::vector<float> mixed{11, 24, 12, 25, 14, 28, 19, 41};

  const xt::xtensor<float, 3> returned = net.linear(cube(), batch);
  CHECK(sizes(returned) == std::vector<std::size_t>{2, 2, 2});
  CHECK(values(returned) == mixed);

  auto y = xt::xtensor<float, 3>::from_shape({2, 2, 2});
  net.linear(cube(), batch, y);
  CHECK(values(y) == mixed);

  std::vector<float> memory = base_result;
  auto product = xt::adapt(memory, std::array<std::size_t, 2>{4, 2});
  net.linear.update(batch, cube(), product);
  CHECK(memory == mixed);

  auto narrow = xt::xtensor<float, 3>::from_shape({2, 2, 1});
  CHECK_THROWS_AS(net.linear(cube(), batch, narrow), graft::ShapeError);
  auto short_result = xt::xtensor<float, 3>::from_shape({1, 2, 2});
  CHECK_THROWS_AS(net.linear.update(batch, cube(), short_result), graft::ShapeError);

  auto rows = batch.input(xt::xtensor<float, 2>(xt::adapt(input, std::array<std::size_t, 2>{4, 3})));
  CHECK(net.linear(rows).value()(2, 0) == 14);
}

TEST_CASE("xtensor: wrong numbers of features and ranks are shape errors") {
  const Net net = net_with_lora();
  CHECK_THROWS_AS(net.linear(xt::xtensor<float, 2>::from_shape({3, 4})), graft::ShapeError);
  CHECK_THROWS_AS(net.linear(xt::xarray<float>(1.f)), graft::ShapeError);
  CHECK_THROWS_AS((void)graft::Linear<>(3, 2)(xt::xarray<float>(1.f)), graft::ShapeError);
  // columns of an N-d tensor would need another rank
  CHECK_THROWS_AS(graft::concat(cube(), cube()), graft::ShapeError);
}

TEST_CASE("xtensor: integer tensors are token ids, and the features become the last dimension") {
  graft::Adaptable<graft::Embedding<>> site{4, 2};
  site->weight.view() << 0, 1, 10, 11, 20, 21, 30, 31;

  const xt::xtensor<std::int64_t, 2> ids{{3, 0, 1}, {1, 2, 3}};
  const xt::xtensor<float, 3> looked_up = (*site.operator->())(ids);
  CHECK(sizes(looked_up) == std::vector<std::size_t>{2, 3, 2});
  CHECK(values(looked_up) == std::vector<float>{30, 31, 0, 1, 10, 11, 10, 11, 20, 21, 30, 31});
  CHECK(values(site(ids)) == values(looked_up));

  const xt::xarray<float> of_narrow = site(xt::xarray<std::int32_t>{2, 1});
  CHECK(sizes(of_narrow) == std::vector<std::size_t>{2, 2});
  CHECK(values(of_narrow) == std::vector<float>{20, 21, 10, 11});
  CHECK(values(site(xt::xtensor<std::uint8_t, 1>{1, 3})) == std::vector<float>{10, 11, 30, 31});

  graft::Batch batch;
  batch.add(6);
  CHECK(site(batch.input(ids)).value()(4, 1) == 21);
  CHECK_THROWS_AS(site(xt::xtensor<int, 1>{4}), graft::ShapeError);
}

TEST_CASE("xtensor: convolutions, pooling and flatten take (n, channels, spatial…)") {
  graft::Adaptable<graft::Conv2d<>> conv{1, 1, graft::Conv2dOptions{.kernel = 2, .bias = false}};
  conv->weight.view() << 1, 10, 100, 1000;
  const xt::xtensor<float, 4> image{{{{1, 2, 3}, {4, 5, 6}, {7, 8, 9}}}};
  const xt::xtensor<float, 4> result = conv(image);
  CHECK(sizes(result) == std::vector<std::size_t>{1, 1, 2, 2});
  CHECK(values(result) == std::vector<float>{5421, 6532, 8754, 9865});
  CHECK(values(conv(xt::xarray<float>(image))) == values(result));

  const xt::xtensor<float, 4> largest = graft::max_pool2d(result, {.kernel = 2});
  CHECK(values(largest) == std::vector<float>{9865});
  const xt::xtensor<float, 2> flat = graft::flatten(graft::relu(result));
  CHECK(sizes(flat) == std::vector<std::size_t>{1, 4});
  CHECK(values(flat) == values(result));
  const xt::xarray<float> flat_array = graft::flatten(xt::xarray<float>(result));
  CHECK(sizes(flat_array) == std::vector<std::size_t>{1, 4});
}

TEST_CASE("xtensor: a weight may be borrowed from xtensor memory") {
  xt::xtensor<float, 2> weight{{1, 2, 3}, {4, 5, 6}};
  graft::Linear<float, graft::mapped> layer{3, 2, false};
  layer.weight.bind(weight.data());
  CHECK(values(layer(xt::xtensor<float, 2>{{1, 1, 1}})) == std::vector<float>{6, 15});
  weight(1, 2) = 0;
  CHECK(values(layer(xt::xtensor<float, 2>{{1, 1, 1}})) == std::vector<float>{6, 9});
}
