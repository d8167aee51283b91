#pragma once

#include <string>

#include "merged.hpp"

namespace graft::detail {

/// The weight of a site's layer as its file would hold it.
/// @throws MetaError where it has no memory, MergeError where adapters are merged into it, TargetError where
/// the layer shows none, or one that is no matrix of floating-point numbers.
[[nodiscard]] inline TensorView base_weight_view(const AnySite& site) {
  check_base_is_pristine(site.table(), "a start from the base weight");
  for (const BaseTensor& tensor : site.tensors()) {
    if (tensor.key != "weight") continue;
    TensorView weight = tensor.read();
    if (weight.device() == Device::meta)
      fail<MetaError>("the base weight of '" + site.path() + "' has no memory yet",
                      "the adapter starts from its values", "load the base model before its adapters");
    if (is_floating(weight.dtype)) return weight;
    fail<TargetError>("the base weight of '" + site.path() + "' holds " + std::string(tag_of(weight.dtype)),
                      "the adapter starts from its values, which are not floating-point numbers",
                      "use init_lora_weights true or \"gaussian\"");
  }
  fail<TargetError>("the layer '" + site.path() + "' shows no weight", "the adapter starts from its values",
                    "give its layer_traits weight(), or use init_lora_weights true");
}

/// The weight of a linear layer as (out, in), whatever its layout.
[[nodiscard]] inline Matrix<double> base_weight_values(const AnySite& site) {
  const TensorView weight = base_weight_view(site);
  const LayerFacts facts = site.facts();
  const Index rows = facts.transposed ? facts.in : facts.out, cols = facts.transposed ? facts.out : facts.in;
  check_size(weight.size(), Shape{rows, cols});
  Matrix<double> values(facts.out, facts.in);
  for (Index row = 0; row < rows; ++row)
    for (Index col = 0; col < cols; ++col) {
      const double value = element_as<double>(weight.dtype, weight.data, std::size_t(row * cols + col));
      values.data()[facts.transposed ? col * rows + row : row * cols + col] = value;
    }
  return values;
}

}  // namespace graft::detail
