#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include <graft/graft.hpp>
#include <graft/io/safetensors.hpp>
#include <graft/tensor/convert.hpp>
#include <graft/training/optimizer.hpp>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

/// What torch and PEFT recorded: tests/data/training.
namespace recorded {

using graft::Index;

inline const graft::StateDict& file(std::string_view name) {
  static std::vector<std::pair<std::string, std::unique_ptr<graft::StateDict>>> files;
  for (const auto& [known, values] : files)
    if (known == name) return *values;
  const std::string path = GRAFT_TEST_DATA "/training/" + std::string(name) + ".safetensors";
  files.emplace_back(name, std::make_unique<graft::StateDict>(graft::safetensors::load_file(path)));
  return *files.back().second;
}
inline const graft::StateDict& optimizers() { return file("optimizers"); }

inline double at(const graft::TensorView& view, Index i) {
  if (view.dtype != graft::Dtype::i64) return graft::element_as<double>(view.dtype, view.data, std::size_t(i));
  std::int64_t value;
  std::memcpy(&value, view.data + std::size_t(i) * sizeof value, sizeof value);
  return double(value);
}

/// Writes a tensor into a gradient, which begins at zero.
template <class T>
void add_gradient(graft::Gradients& gradients, const graft::ParameterData& parameter, const graft::TensorView& values) {
  const graft::Out<T> gradient = gradients.at<T>(parameter);
  REQUIRE(gradient.size() == values.size());
  for (Index i = 0; i < gradient.size(); ++i) const_cast<T*>(gradient.data())[i] += T(at(values, i));
}

/// The largest difference of two tensors of one shape.
inline double error(const graft::TensorView& got, const graft::TensorView& expected) {
  REQUIRE(got.shape == expected.shape);
  double largest = 0;
  for (Index i = 0; i < got.size(); ++i) {
    const double difference = std::abs(at(got, i) - at(expected, i));
    largest = difference <= largest ? largest : difference;  // NaN is the largest
  }
  return largest;
}
inline double error(const graft::ParameterData& got, const graft::TensorView& expected) { return error(got.view(), expected); }

/// Two parameters without a model: "weight" (3, 5) and "bias" (7).
struct TwoParameters {
  graft::ParameterData weight, bias;
  explicit TwoParameters(graft::Dtype dtype) : weight(dtype, {3, 5}), bias(dtype, {7}) {
    graft::detail::assign(weight, optimizers().at("sgd.f64.weight.0"), false);
    graft::detail::assign(bias, optimizers().at("sgd.f64.bias.0"), false);
  }
  TwoParameters(const TwoParameters&) = delete;
  graft::TrainableParameters list() {
    return graft::TrainableParameters({{"a.weight", "weight", &weight, {}}, {"a.bias", "bias", &bias, {}}});
  }
  /// Those that every optimiser was recorded with: "bias" has none in step 2.
  template <class T>
  void add_gradients(graft::Gradients& gradients, int step) const {
    add_gradient<T>(gradients, weight, optimizers().at("gradient.weight." + std::to_string(step)));
    if (step != 2) add_gradient<T>(gradients, bias, optimizers().at("gradient.bias." + std::to_string(step)));
  }
};

/// Makes the six recorded steps, the last two with half the learning rate, and compares after each.
template <class T>
void follow(graft::Optimizer& optimizer, TwoParameters& parameters, const std::string& name, double tolerance) {
  CAPTURE(name);
  const std::string prefix = name + (sizeof(T) == 8 ? ".f64." : ".f32.");
  graft::Gradients gradients;
  for (int step = 0; step < 6; ++step) {
    CAPTURE(step);
    gradients.clear();
    parameters.add_gradients<T>(gradients, step);
    if (step == 4) optimizer.set_lr(optimizer.lr() * 0.5);
    optimizer.step(gradients);
    const std::string after = "." + std::to_string(step + 1);
    CHECK(error(parameters.weight, optimizers().at(prefix + "weight" + after)) <= tolerance);
    CHECK(error(parameters.bias, optimizers().at(prefix + "bias" + after)) <= tolerance);
  }
  CHECK(error(parameters.weight, optimizers().at(prefix + "weight.0")) > 100 * tolerance);
}
template <class MakeOptimizer>
void follow_both(const std::string& name, const MakeOptimizer& make) {
  TwoParameters doubles(graft::Dtype::f64), floats(graft::Dtype::f32);
  follow<double>(*make(doubles.list()), doubles, name, 1e-12);
  // values below 4, whose last place is 2^-22: torch contracts products and sums where it has FMA, once or twice in a step
  follow<float>(*make(floats.list()), floats, name, 6 * 0x1p-22);
}

}  // namespace recorded
