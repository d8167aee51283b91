#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "slots.hpp"

namespace graft::detail {

template <class S = double>
[[nodiscard]] Matrix<S> values_of(const ParameterData& parameter) {
  Matrix<S> values(parameter.shape().rows(), parameter.shape().cols());
  for (Index i = 0; i < values.size(); ++i)
    values.data()[i] = element_as<S>(parameter.dtype(), parameter.data(), std::size_t(i));
  return values;
}

/// A tensor with bytes of its own.
template <class S>
[[nodiscard]] TensorView tensor_of(Dtype dtype, const Shape& shape, const Matrix<S>& values) {
  const std::shared_ptr<std::byte> bytes = zeroed(std::size_t(shape.size()) * size_of(dtype));
  convert(dtype_of<S>, reinterpret_cast<const std::byte*>(values.data()), dtype, bytes.get(), values.size());
  return {dtype, shape.to_vector(), bytes.get(), bytes};
}

/// An adapter of the LoRA family at one site, as matrices: ΔW = scale · b·a.
template <class S = double>
struct SiteFactors {
  LowRank<S> product;  ///< a (r, in·k…), b (out, r / groups). AdaLoRA's E stands in a; what PiSSA and OLoRA
                       ///< subtract follows as further ranks
  double scale = 1;  ///< its strength included
  Matrix<S> beta{};  ///< lora_bias, (1, out); empty without
};

[[nodiscard]] inline Index groups_of(const LayerFacts& facts) {
  return facts.kind == LayerKind::conv ? facts.conv.groups : 1;
}
/// The columns of ΔW as a matrix: in, or in · kernel.
[[nodiscard]] inline Index width_of(const LayerFacts& facts) {
  return facts.in * (facts.kind == LayerKind::conv ? facts.conv.kernel.size() : 1);
}

/// What an adapter has at a site, or null.
[[nodiscard]] inline const SiteEntry* entry_at(const AnySite& site, const AdapterRecord& record) {
  const SiteTable* table = site.table();
  const SiteEntry* entry = table ? table->find(record.id) : nullptr;
  return entry && entry->record ? entry : nullptr;
}

/// Nothing where the adapter is not at this site. @throws MetaError for parameters without memory.
template <class S = double>
[[nodiscard]] std::optional<SiteFactors<S>> factors_at(const AnySite& site, const AdapterRecord& record) {
  const SiteEntry* entry = entry_at(site, record);
  if (!entry || !entry->state()) return std::nullopt;
  AnyAdapterState& state = *entry->state();
  if (state.is_meta()) adapter_is_meta(record.name(), site.path());
  const LayerFacts facts = site.facts();
  if (facts.max_norm)
    fail<AdapterError>("adapter '" + record.name() + "' at '" + site.path() + "', an embedding with max_norm",
                       "it cuts the columns of lora_A, so that updates do not add up",
                       "leave the embedding out of the adapters");
  if (state.type() == PeftType::adalora && facts.kind == LayerKind::conv &&
      facts.conv.padding_mode != PaddingMode::zeros)
    fail<AdapterError>("adapter '" + record.name() + "' at '" + site.path() +
                           "', a convolution that does not pad with zeros",
                       "AdaLoRA pads with zeros, whatever the layer does, and LoRA as the layer does",
                       "leave it out");
  SiteFactors<S> factors;
  factors.scale = state.scaling() * record.strength();
  Matrix<S> e;
  for (const AdapterParameter& parameter : state.parameters()) {
    if (parameter.suffix == ".bias")
      factors.beta = values_of<S>(*parameter.data);
    else if (parameter.name == "lora_A" || parameter.name == "lora_embedding_A")
      factors.product.a = values_of<S>(*parameter.data);
    else if (parameter.name == "lora_B" || parameter.name == "lora_embedding_B")
      factors.product.b = values_of<S>(*parameter.data);
    else if (parameter.name == "lora_E")
      e = values_of<S>(*parameter.data);
    else if (parameter.name == "ranknum")
      factors.scale /= values_of<S>(*parameter.data)(0, 0) + 1e-5;
  }
  if (e.size()) factors.product.a.array().colwise() *= e.col(0).array();
  if (const InitialFactors* initial = state.initial_factors()) {
    LowRank<S> both{Matrix<S>(factors.product.b.rows(), 2 * state.rank()),
                    Matrix<S>(2 * state.rank(), factors.product.a.cols())};
    both.a << factors.product.a, values_of<S>(initial->a);
    both.b << factors.product.b, -values_of<S>(initial->b);
    factors.product = std::move(both);
  }
  return factors;
}

/// Puts LoRA matrices of rank a.rows() into a state dict, with the keys and shapes that the site's kind has.
template <class S>
void insert_factors(StateDict& tensors, const AnySite& site, const LowRank<S>& product,
                    const Matrix<S>& beta = {}) {
  const LayerFacts facts = site.facts();
  const Index r = product.rank();
  const bool is_embedding = facts.kind == LayerKind::embedding;
  Shape a{r, facts.in}, b{facts.out, r / groups_of(facts)};
  if (facts.kind == LayerKind::conv)
    for (const Index size : facts.conv.kernel) {
      a.push_back(size);
      b.push_back(1);
    }
  const auto insert = [&](std::string_view name, std::string_view suffix, const Shape& shape,
                          const Matrix<S>& values) {
    tensors.insert(file_key(adapter_module(site, 0, is_inside_adapted(site)), name, suffix), tensor_of(site.dtype(), shape, values));
  };
  insert(is_embedding ? "lora_embedding_A" : "lora_A", is_embedding ? "" : ".weight", a, product.a);
  insert(is_embedding ? "lora_embedding_B" : "lora_B", is_embedding ? "" : ".weight", b, product.b);
  if (beta.size()) insert("lora_B", ".bias", Shape{facts.out}, beta);
}

}  // namespace graft::detail
