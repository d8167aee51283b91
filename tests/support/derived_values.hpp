#pragma once

#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <graft/io/safetensors.hpp>
#include <string>
#include <utility>
#include <variant>

/// What PEFT made of adapters that were initialised from weights, combined and converted: tests/data/derived.
namespace derived {

using graft::Index;
using Values = graft::Matrix<double>;

inline const graft::StateDict& file() {
  static const graft::StateDict values =
      graft::safetensors::load_file(std::string(GRAFT_TEST_DATA) + "/derived/values.safetensors");
  return values;
}

/// (first dimension, the rest); a vector is one row.
inline Values values(const graft::TensorView& view) {
  const graft::Shape shape(view.shape);
  Values all(shape.rows(), shape.cols());
  for (Index i = 0; i < all.size(); ++i)
    all.data()[i] = graft::element_as<double>(view.dtype, view.data, std::size_t(i));
  return all;
}
inline Values values(const std::string& key) { return values(file().at(key)); }

inline void write(const graft::ParameterView& parameter, const Values& wanted) {
  const auto put = [&](auto view) {
    REQUIRE(view.rows() == wanted.rows());
    REQUIRE(view.cols() == wanted.cols());
    view = wanted.cast<typename decltype(view)::Scalar>();
  };
  if (parameter.dtype() == graft::Dtype::f64)
    put(parameter.view<double>());
  else
    put(parameter.view<float>());
}

/// The largest difference, over 1 + the largest expected value.
inline double error(const Values& got, const Values& expected) {
  if (got.rows() != expected.rows() || got.cols() != expected.cols()) return 1e9;
  return (got - expected).cwiseAbs().maxCoeff() / (1 + expected.cwiseAbs().maxCoeff());
}

/// A parameter of an adapter at a site that is called "lin", by its letter; embeddings have other names.
inline Values matrix(const auto& site, const std::string& adapter, const std::string& letter) {
  using Site = std::remove_cvref_t<decltype(site)>;
  constexpr bool is_embedding =
      graft::detail::traits_of<typename Site::layer_type>::kind == graft::LayerKind::embedding;
  const graft::ParameterView parameter =
      site.parameter(adapter, (is_embedding ? "lora_embedding_" : "lora_") + letter);
  Values all(parameter.dtype() == graft::Dtype::f64
                 ? Values(parameter.view<double>())
                 : Values(parameter.view<float>().template cast<double>()));
  return all;
}
inline Values product(const auto& site, const std::string& adapter) {
  return matrix(site, adapter, "B") * matrix(site, adapter, "A");
}

template <class Config>
Config config_of(const auto& net, const std::string& adapter) {
  return std::get<Config>(graft::detail::need_record(graft::sites_of(net), adapter)->config());
}

template <class Layer>
struct One {
  using Site = graft::Adaptable<Layer>;
  One() = default;
  explicit One(std::in_place_t, auto&&... arguments) : lin(std::forward<decltype(arguments)>(arguments)...) {}
  Site lin;
  auto operator()(const auto& x) const { return lin(x); }
  GRAFT_MODULE(lin)
};

}  // namespace derived
