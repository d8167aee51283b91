#pragma once

#include <string>
#include <unordered_map>

#include "../core/keys.hpp"
#include "../state_dict/slots.hpp"
#include "narrow_kernels.hpp"

namespace graft {

/// The dtype that a loaded adapter is kept in.
enum class AdapterDtype {
  compute,  ///< the activations'
  as_file   ///< that of the file: bf16 and f16 stay as they are, in half the memory, and are widened where they are used
};

namespace detail {

/// Lets the parameters of an adapter without memory have the dtypes of the tensors that will be loaded into them. Copies of
/// modules, trained rows and biases of plain layers have those of their layers. @throws ConfigError
inline void keep_dtypes(const ModelSites& model, const AdapterParts& parts, const StateDict& weights) {
  std::unordered_map<std::string, Dtype> dtypes;
  for (const auto& [key, view] : weights) dtypes.emplace(strip_peft_prefix(key), view.dtype);
  const auto find = [&](const AdapterSlot& slot) {
    auto found = dtypes.find(slot.key);
    for (const std::string& key : slot.other_keys)
      if (found == dtypes.end()) found = dtypes.find(key);
    return found == dtypes.end() ? slot.dtype : found->second;
  };
  for (const AdapterSlot& slot : adapter_slots(model, parts)) {
    const Dtype dtype = find(slot);
    if (!slot.parameter || dtype == slot.dtype || !is_floating(dtype)) continue;
    if (slot.dtype != Dtype::f32 || size_of(dtype) != 2)
      fail<ConfigError>("AdapterDtype::as_file for '" + slot.key + "', which is " + std::string(tag_of(dtype)) + ", under activations of " +
                            std::string(tag_of(slot.dtype)),
                        "BF16 and F16 under activations of F32 can be kept as they are, nothing else",
                        "leave the dtype at AdapterDtype::compute: the values are converted, and the report lists them");
    slot.parameter->reset(slot.shape, dtype);
  }
}

}  // namespace detail
}  // namespace graft
