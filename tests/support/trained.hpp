#pragma once

#include <graft/graft.hpp>
#include <string>

#include "awkward_layers.hpp"

/// Adapters with values in all of their parameters, as training leaves them.
namespace trained {

/// The adapter's own state dict with other values in it.
template <class M>
graft::StateDict values_for(const M& model, const std::string& name, double seed) {
  graft::StateDict values;
  for (const auto& [key, view] : graft::get_peft_model_state_dict(model, name)) {
    graft::TensorView own = view;
    const auto memory = graft::detail::zeroed(own.bytes());
    graft::ParameterData data(own.dtype, graft::Shape(own.shape));
    data.borrow(memory.get(), memory);
    const auto fill = [&]<class T>(T) {
      for (graft::Index i = 0; i < own.size(); ++i)
        graft::detail::store<T>(data, i, awkward::value(i, seed + double(key.size())));
    };
    switch (own.dtype) {
      case graft::Dtype::f64:
        fill(double{});
        break;
      case graft::Dtype::bf16:
        fill(graft::bf16{});
        break;
      case graft::Dtype::f16:
        fill(graft::f16{});
        break;
      default:
        fill(float{});
    }
    own.data = memory.get();
    own.owner = memory;
    values.insert(key, own);
  }
  return values;
}

/// Puts such values into an adapter that was injected.
template <class M>
void fill(M& model, const std::string& name, double seed = 20) {
  (void)graft::set_peft_model_state_dict(model, values_for(model, name, seed), name);
}

/// Injects an adapter and fills it.
template <class Config, class M>
void inject(const Config& config, M& model, const std::string& name, double seed = 20, bool activate = true) {
  (void)graft::inject_adapter_in_model(config, model, name, {.activate = activate});
  fill(model, name, seed);
}

}  // namespace trained
