#pragma once

#include <cmath>
#include <string_view>

#include "../adapters/narrow.hpp"
#include "../kernels/products.hpp"
#include "../kernels/transpose.hpp"
#include "../tensor/gradients.hpp"
#include "adalora_layers.hpp"

namespace graft {

namespace detail {
/// The Frobenius norm of rows·rowsᵀ − I, whose gradient by the rows, times `weight`, is left as (that) · rows: `square` (r, r).
template <class T>
[[nodiscard]] double distance_from_orthogonal(Index r, Index cols, const T* rows, double weight, T* square) {
  kernels::product_nt<T, T>(r, r, cols, rows, cols, rows, cols, nullptr, square, r, false);
  double sum = 0;
  for (Index i = 0; i < r; ++i)
    for (Index j = 0; j < r; ++j) {
      T& value = square[i * r + j];
      value -= T(i == j);
      sum += double(value) * double(value);
    }
  const double norm = std::sqrt(sum);
  for (Index i = 0; i < r * r; ++i) square[i] *= norm > 0 ? T(2 * weight / norm) : T(0);
  return norm;
}

template <class T>
[[nodiscard]] double add_layer_penalty(const AdaLoraLayer& layer, double weight, Gradients& gradients, Workspace* workspace) {
  const Index r = layer.rank(), in = layer.a->shape().cols(), out = layer.b->shape().rows();
  if (r == 0) return 0;
  const Values<T> a(*layer.a, workspace), b(*layer.b, workspace);
  const Scratch<T> square(workspace, r * r), turned(workspace, r * out);
  const T* none = nullptr;
  double norms = distance_from_orthogonal<T>(r, in, a.data(), weight, square.data());
  Out<T> da = gradients.at<T>(*layer.a), db = gradients.at<T>(*layer.b);
  kernels::product_nn<T, T>(r, in, r, square.data(), r, a.data(), in, none, da.data(), in, true);
  kernels::transpose<T>(out, r, b.data(), r, turned.data(), out);
  norms += distance_from_orthogonal<T>(r, out, turned.data(), weight, square.data());
  kernels::product_nn<T, T>(out, r, r, b.data(), r, square.data(), r, none, db.data(), r, true);
  return norms;
}
template <class = OnDemand>
[[nodiscard]] double add_penalty(const AdaLoraLayers& all, Gradients& gradients, Workspace* workspace) {
  if (all.layers.empty()) return 0;
  const double weight = all.config().orth_reg_weight / (2 * double(all.layers.size()));
  double norms = 0;
  for (const AdaLoraLayer& layer : all.layers)
    norms += layer.a->dtype() == Dtype::f64 ? add_layer_penalty<double>(layer, weight, gradients, workspace)
                                            : add_layer_penalty<float>(layer, weight, gradients, workspace);
  return weight * norms;
}
}  // namespace detail

/// AdaLoRA's penalty: orth_reg_weight times the mean over all A and B of ‖A·Aᵀ − I‖ and ‖Bᵀ·B − I‖ (Frobenius). Its gradient is
/// added to those of A and B; what it answers belongs to the loss. To be called once a step, beside backward.
/// @throws AdapterError for an unknown name or another method, TrainingError for an adapter that is not trained.
template <class M>
double add_orthogonal_penalty(const M& model, std::string_view adapter_name, Gradients& gradients, Workspace* workspace = nullptr) {
  return detail::add_penalty(detail::adalora_layers(sites_of(model), adapter_name, "add_orthogonal_penalty"), gradients, workspace);
}

}  // namespace graft
