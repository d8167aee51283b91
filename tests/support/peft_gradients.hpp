#pragma once

#include <algorithm>
#include <graft/io/safetensors.hpp>
#include <string>

#include "ramp.hpp"
#include "site_gradients.hpp"

/// The gradients that torch's autograd found of what PEFT computes: tests/data/gradients.
namespace peft_gradients {

using graft::Index;
using graft::Matrix;

inline const graft::StateDict& file() {
  static const graft::StateDict values = graft::safetensors::load_file(std::string(GRAFT_TEST_DATA) + "/gradients/values.safetensors");
  return values;
}
inline bool is_close(const double* got, Index size, const std::string& key, double tolerance) {
  const graft::TensorView& view = file().at(key);
  const auto* want = reinterpret_cast<const double*>(view.data);
  if (view.size() != size || !got) return false;
  double largest = 0, error = 0;
  for (Index i = 0; i < size; ++i) {
    largest = std::max(largest, std::abs(want[i]));
    error = std::max(error, std::isfinite(got[i]) ? std::abs(got[i] - want[i]) : 1e9);
  }
  return largest > 0.1 && error <= tolerance * (1 + largest);
}

/// A site with the numbers of the Python beside the file, and its gradients against those in it.
template <class Case>
void check(const std::string& name, const auto& config, const std::vector<int>& ids = {}, double tolerance = 1e-12) {
  site_gradients::Probe<Case> probe;
  support::fill_ramp(probe.x.rows);
  if (!ids.empty()) probe.x.ids = ids;
  for (const graft::detail::BaseTensor& tensor : graft::detail::base_tensors(probe.net.inner.site.base_layer())) {
    graft::ParameterData values(graft::Dtype::f64, tensor.shape);
    values.allocate();
    support::fill_ramp(std::span(reinterpret_cast<double*>(values.data()), std::size_t(tensor.shape.size())), tensor.key == "bias" ? 2 : 1);
    tensor.write(values.view(), false);
  }
  (void)graft::inject_adapter_in_model(config, probe.net, "a");
  auto parameters = probe.parameters("a");
  std::sort(parameters.begin(), parameters.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  int salt = 3;
  for (const auto& values : parameters) {
    const std::span<double> all(values.data, std::size_t(values.size));
    support::fill_ramp(all, salt++);
    for (double& value : all)
      value = values.name.ends_with("ia3_l") ? value + 1 : values.name.ends_with("magnitude_vector") ? std::abs(value) + 0.5 : value;
  }
  if (!probe.x.experts.empty() || graft::detail::traits_of<typename Case::Layer>::kind == graft::LayerKind::parameter)
    probe.x.experts = {2, 0, 2, 1, 2};
  const Matrix<double> y = probe.forward();
  CAPTURE(name);
  CHECK(is_close(y.data(), y.size(), name + "/y", tolerance));
  probe.dy = support::ramp<double>(y.rows(), y.cols(), 13);
  probe.backward();
  if (probe.dx.size()) CHECK(is_close(probe.dx.data(), probe.dx.size(), name + "/dx", tolerance));
  for (const auto& values : probe.parameters("a")) {
    const std::size_t site = values.name.find("site.");
    const std::string key = values.name.substr(site == std::string::npos ? std::string("a.inner.").size() : site + 5);
    CAPTURE(key);
    CHECK(is_close(values.gradient, values.size, name + "/" + key, tolerance));
  }
}

}  // namespace peft_gradients
