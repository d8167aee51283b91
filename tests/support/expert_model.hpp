#pragma once

#include <graft/graft.hpp>
#include <string>
#include <utility>
#include <vector>

#include "awkward_layers.hpp"

/// A module with stacks of weights of its own that have room for adapters, and what is computed of them by plain loops.
namespace experts {

using graft::Index;
using graft::Matrix;

/// Three experts; 7 features become 5 and 7 again. `up` may store (experts, in, out).
template <class T, template <class...> class Up = graft::Parameter>
struct Experts {
  graft::Adaptable<Up<T>> up{up_shape()};
  graft::Adaptable<graft::Parameter<T>> down{graft::Shape{3, 7, 5}};

  static graft::Shape up_shape() {
    if constexpr (std::is_same_v<Up<T>, graft::TransposedParameter<T>>) return {3, 7, 5};
    else return {3, 5, 7};
  }
  auto operator()(const auto& x, const graft::ExpertIds& ids) const { return down(graft::tanh(up(x, ids)), ids); }
  GRAFT_MODULE(up, down)
};

template <class T, template <class...> class Up = graft::Parameter>
struct Net {
  Experts<T, Up> experts;
  std::vector<int> chosen{2, 0, 2, 1, 1, 0, 2, 2, 0, 1};

  Net() {
    awkward::fill(experts.up->view(), 1);
    awkward::fill(experts.down->view(), 2);
  }
  auto operator()(const auto& x) const {
    return experts(x, graft::ExpertIds(std::span<const int>(chosen.data(), std::size_t(x.rows()))));
  }
  GRAFT_MODULE(experts)
};

inline graft::LoraConfig config(int r = 3) {
  graft::LoraConfig config{.r = r, .lora_alpha = 7, .init_lora_weights = false};
  config.target_parameters = {"experts.up", "experts.down"};
  return config;
}

/// No parameter of the adapter keeps the value that it started with.
template <class M>
void train(M& model, const std::string& name, double seed) {
  for (auto& site : graft::sites_of(model).sites)
    if (const graft::SiteTable* table = site->table())
      if (const graft::SiteEntry* entry = table->find(name); entry && entry->state())
        for (const graft::AdapterParameter& parameter : entry->state()->parameters()) {
          if (parameter.data->dtype() == graft::Dtype::f64) awkward::fill<double>(*parameter.data, seed += 0.37);
          else awkward::fill<float>(*parameter.data, seed += 0.37);
          parameter.data->touch();
        }
}

/// PEFT's delta of a stack (experts, out, in): scaling · Σ B[o, ρ · E + e] · A[e · r + ρ, i], in double.
template <class T>
std::vector<Matrix<double>> deltas(const graft::ParameterView& a, const graft::ParameterView& b, Index count, Index r, double scaling) {
  const Matrix<double> A = a.view<T>().template cast<double>(), B = b.view<T>().template cast<double>();
  std::vector<Matrix<double>> all(std::size_t(count), Matrix<double>::Zero(B.rows(), A.cols()));
  for (Index e = 0; e < count; ++e)
    for (Index o = 0; o < B.rows(); ++o)
      for (Index i = 0; i < A.cols(); ++i)
        for (Index k = 0; k < r; ++k) all[std::size_t(e)](o, i) += scaling * B(o, k * count + e) * A(e * r + k, i);
  return all;
}

}  // namespace experts
