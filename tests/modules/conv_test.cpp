#include <graft/modules/conv.hpp>

#include <cmath>
#include <vector>

#include <doctest/doctest.h>

#include "support/cutting_host.hpp"
#include "support/recorded_shape.hpp"

namespace {

// torch in float64, with values of weight, bias and x that are ramps: element k is sin(0.7 k + phase).
//
//     def ramp(*shape, phase): return torch.sin(0.7 * torch.arange(math.prod(shape)).double() + phase).reshape(shape)
//     conv.weight.copy_(ramp(*conv.weight.shape, phase=0.1)); conv.bias.copy_(ramp(*conv.bias.shape, phase=0.2))
//     y = conv(ramp(*shape, phase=0.3)).flatten(); n = y.numel()
//     y[[0, n // 3, n // 2, n - 1]], y.abs().sum()
struct Golden {
  std::vector<graft::Index> shape;
  double picked[4];
  double sum;
};

template <class T>
void ramp(T* data, graft::Index count, double phase) {
  for (graft::Index k = 0; k < count; ++k) data[k] = T(std::sin(0.7 * double(k) + phase));
}

template <int N, class Layer>
void check(Layer layer, std::vector<graft::Index> input, const Golden& golden) {
  using T = double;
  ramp(layer.weight.data(), layer.weight.size(), 0.1);
  if (layer.bias.size()) ramp(layer.bias.data(), layer.bias.size(), 0.2);
  Eigen::array<graft::Index, std::size_t(N) + 2> dimensions{};
  std::copy(input.begin(), input.end(), dimensions.begin());
  Eigen::Tensor<T, N + 2, Eigen::RowMajor> x(dimensions);
  ramp(x.data(), x.size(), 0.3);

  const Eigen::Tensor<T, N + 2, Eigen::RowMajor> y = layer(x);

  const graft::Shape shape = graft::tensor_traits<Eigen::Tensor<T, N + 2, Eigen::RowMajor>>::shape(y);
  REQUIRE(shape.to_vector() == golden.shape);
  const graft::Index n = y.size(), places[4] = {0, n / 3, n / 2, n - 1};
  for (int i = 0; i < 4; ++i) CHECK(y.data()[places[i]] == doctest::Approx(golden.picked[i]).epsilon(1e-12));
  double sum = 0;
  for (graft::Index i = 0; i < n; ++i) sum += std::abs(y.data()[i]);
  CHECK(sum == doctest::Approx(golden.sum).epsilon(1e-12));

  graft::Batch batch;  // and the same bits as Rows
  batch.add(input[0]);
  const graft::Rows<T> rows = layer(batch.input(x));
  CHECK(rows.row_shape() == shape.tail());
  CHECK(std::equal(y.data(), y.data() + n, rows.value().data()));
}

}  // namespace

TEST_CASE("convolutions: torch's outputs with every option") {
  using graft::Conv1d, graft::Conv2d, graft::Conv3d, graft::PaddingMode;
  check<1>(Conv1d<double>(3, 5, {.kernel = 3, .stride = 2, .padding = 1, .dilation = 2}), {2, 3, 11},
           {{2, 5, 5}, {3.00074797780306, 2.83166305357363, -1.30303593200743, -2.01055525038004}, 93.1136203298428});
  check<2>(Conv2d<double>(4, 6, {.kernel = {3, 2}, .stride = {2, 1}, .padding = {1, 0}, .groups = 2, .bias = false}), {2, 4, 7, 5},
           {{2, 6, 4, 4}, {0.801642918136357, -1.5363022840235, -0.316427678583438, 0.43762495705581}, 121.355225593378});
  check<2>(Conv2d<double>(2, 3, {.kernel = 3, .padding = graft::same, .dilation = 2, .padding_mode = PaddingMode::reflect}), {1, 2, 7, 6},
           {{1, 3, 7, 6}, {-0.0463615609023161, 0.579815665874627, 1.00055928327789, 1.3239957852738}, 247.310653065446});
  check<2>(Conv2d<double>(2, 3, {.kernel = {2, 3}, .padding = graft::same}), {1, 2, 5, 6},
           {{1, 3, 5, 6}, {1.93708089534588, 1.99424811621194, -0.290237417499281, -0.917031341387338}, 170.021974663941});
  check<3>(Conv3d<double>(2, 4, {.kernel = {1, 2, 2}, .padding = 1, .padding_mode = PaddingMode::replicate}), {1, 2, 3, 4, 3},
           {{1, 4, 5, 5, 4}, {0.227619295278218, 0.328379577669784, 1.36358798148798, 0.767329027742404}, 303.566720678393});
  check<3>(Conv3d<double>(2, 4, {.kernel = 2, .padding = 1, .padding_mode = PaddingMode::circular}), {1, 2, 3, 4, 3},
           {{1, 4, 4, 5, 4}, {-3.85531604727784, -4.72694041787157, 6.87714480414343, -1.3594267878302}, 1071.5019451618});
}

TEST_CASE("convolutions: options that contradict themselves are errors") {
  CHECK_THROWS_AS(graft::Conv2d<>(3, 4, {.kernel = 3, .groups = 2}), graft::ConfigError);
  CHECK_THROWS_AS(graft::Conv2d<>(3, 4, graft::Conv2dOptions{}), graft::ConfigError);
  CHECK_THROWS_AS(graft::Conv2d<>(3, 4, {.kernel = 3, .stride = 2, .padding = graft::same}), graft::ConfigError);
  CHECK_THROWS_AS((graft::Conv3dOptions{.kernel = {3, 2}}), graft::ShapeError);
  graft::Conv2d<> conv(3, 4, {.kernel = 3});
  CHECK_THROWS_AS((void)conv(Eigen::Tensor<float, 4, Eigen::RowMajor>(1, 2, 5, 5)), graft::ShapeError);
  CHECK_THROWS_AS((void)conv(Eigen::Tensor<float, 4, Eigen::RowMajor>(1, 3, 2, 5)), graft::ShapeError);
}

TEST_CASE("axes: one number, a list or an array") {
  const graft::Axes<2> all = 3, list{3, 2}, array = std::array<int, 2>{5, 4};
  CHECK(all[1] == 3);
  CHECK(list[1] == 2);
  CHECK(array[0] == 5);
  CHECK(graft::Padding<2>(graft::same).is_same());
}

namespace {

/// The result of a layer over rows, cut into pieces for a host; and how many pieces there were.
template <class Layer, int N>
std::vector<float> convolved(const Layer& layer, const Eigen::Tensor<float, N, Eigen::RowMajor>& x, support::CuttingHost* host) {
  graft::Batch batch;
  if (host) batch.set_parallel_for(*host);
  batch.add(x.dimension(0));
  const graft::Rows<float> y = layer(batch.input(x));
  return {y.value().data(), y.value().data() + y.value().size()};
}
template <int N, class Layer>
void check_pieces(Layer layer, const Eigen::array<graft::Index, std::size_t(N)>& size) {
  ramp(layer.weight.data(), layer.weight.size(), 0.1);
  if (layer.bias.size()) ramp(layer.bias.data(), layer.bias.size(), 0.2);
  Eigen::Tensor<float, N, Eigen::RowMajor> x(size);
  ramp(x.data(), x.size(), 0.3);
  const std::vector<float> whole = convolved(layer, x, nullptr);
  for (const graft::Index threads : {2, 3, 7}) {
    support::CuttingHost host(threads);
    CHECK(convolved(layer, x, &host) == whole);
    CHECK(host.calls == 1);
    CHECK(host.pieces > 1);
    CHECK(host.pieces <= threads);
  }
}

}  // namespace

TEST_CASE("convolutions: pieces of samples or of positions have the bits of the whole") {
  using graft::Conv1d, graft::Conv2d, graft::Conv3d, graft::PaddingMode;
  check_pieces<4>(Conv2d<>(13, 17, {.kernel = 3, .padding = 1}), {1, 13, 37, 41});   // positions of one sample
  check_pieces<4>(Conv2d<>(13, 17, {.kernel = 3, .padding = 1}), {5, 13, 23, 19});   // across the samples' borders
  check_pieces<4>(Conv2d<>(13, 17, {.kernel = 3, .stride = 2}), {40, 13, 13, 13});   // whole samples
  check_pieces<4>(Conv2d<>(64, 70, {.kernel = 1}), {1, 64, 25, 33});                 // its own column matrix
  check_pieces<4>(Conv2d<>(12, 18, {.kernel = 5, .groups = 3, .padding_mode = PaddingMode::circular}), {3, 12, 30, 30});
  check_pieces<3>(Conv1d<>(30, 33, {.kernel = 7, .padding = 3}), {1, 30, 700});
  check_pieces<5>(Conv3d<>(5, 9, {.kernel = 3}), {2, 5, 13, 14, 15});
}

TEST_CASE("convolutions: a larger picture needs no more scratch, and the workspace says so") {
  graft::Conv2d<> layer(3, 5, {.kernel = 3, .padding = 1});
  const auto scratch_of = [&](graft::Index side) {
    Eigen::Tensor<float, 4, Eigen::RowMajor> x(1, 3, side, side);
    x.setZero();
    graft::Batch batch;
    batch.add(1);
    const graft::Rows<float> rows = batch.input(x);
    const graft::Rows<float> y = layer(rows);
    const std::size_t values = batch.workspace().in_use();
    CHECK(values >= std::size_t(8 * side * side) * sizeof(float));
    CHECK(batch.workspace().peak() > values);
    return batch.workspace().peak() - values;
  };
  CHECK(scratch_of(512) == scratch_of(64));
  // the columns of a block: 27 of them for each of at most 768 positions, in a block that is a power of two
  CHECK(scratch_of(512) <= 2 * sizeof(float) * 27 * (768 + 32));
}

TEST_CASE("convolutions: a value of training goes with the op to whoever records it") {
  CHECK(graft::Conv2d<>(3, 5, {.kernel = 3})(support::ShapedRecording{}));
}
