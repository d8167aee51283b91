#pragma once

#include <string>
#include <utility>
#include <vector>

#include "../core/compile_once.hpp"
#include "load.hpp"
#include "start_marks.hpp"

namespace graft {

namespace detail {
/// Lets the base's keys stand under every name that their modules have. Among them PEFT writes those of adapters that stand under a
/// second name: they are no base's.
template <class = OnDemand>
void add_second_names(const ModelSites& model, const WrappedModules& modules, Loader<>& loader) {
  if (model.second_names.empty()) return;
  for (const SecondName& name : model.second_names)
    loader.add_again({{name.first, name.path}, {modules.inside(name.first), modules.inside(name.path)}});
  for (const auto& [key, view] : whole_state_dict(model))
    for (const SecondName& name : model.second_names)
      if (is_key_of(key, modules.inside(name.path))) loader.leave_out(key);
}

template <class = OnDemand>
LoadReport load_base_state(const ModelSites& model, const StateDict& state_dict, const LoadOptions& options) {
  check_none_merged(model, "set_base_model_state_dict");
  Loader<> loader(options, "the base model", "model");
  const WrappedModules modules = wrapped_modules(model);
  const std::vector<std::string> infixes{"base_layer", "original_module", std::string(token_base), "base_layer.base_layer"};
  const auto add = [&](const std::string& path, BaseTensor& tensor) {
    std::vector<std::string> others;
    for (const std::string& from : {path, modules.inside(path)})
      for (const std::string& infix : infixes) others.push_back(join_path(join_path(from, infix), tensor.key));
    others.push_back(modules.inside(join_path(path, tensor.key)));
    loader.add({join_path(path, tensor.key), tensor.dtype, tensor.shape, std::move(tensor.write)}, others);
  };
  const auto records = records_of(model);
  for (const auto& tensor : model.plain) {
    BaseTensor copy = tensor;
    for (const auto& record : records)  // an adapter's bias stands in the layer: the base's own is kept aside
      for (PlainBias& bias : record->plain_biases)
        if (record->plain_biases_in_place && bias.key == tensor.key)
          copy.write = [values = &bias.values](const TensorView& source, bool) { assign(*values, source, false); };
    add("", copy);
  }
  for (const auto& site : model.sites)
    for (BaseTensor& tensor : site->tensors()) {
      add(site->path(), tensor);
      for (unsigned above = 1; above < segment_count(site->path()); ++above)
        loader.add_spellings({join_path(copied_module(*site, "original_module", above), tensor.key)});
      if (!site->outer()) continue;
      const std::string inside = module_inside(site->outer()->path(), site->path());
      loader.add_spellings({join_path(inside, tensor.key), join_path(join_path(inside, "base_layer"), tensor.key)});
    }
  add_second_names(model, modules, loader);
  const StartMarks<> starts(model);
  LoadReport report = std::move(loader).load(state_dict);
  for (std::string& warning : starts.warnings()) report.warnings.push_back(std::move(warning));
  return report;
}
GRAFT_SHARED_FUNCTION(load_base_state<>)
}  // namespace detail

/// Loads the base model's tensors under their original names; `base_layer` and `original_module` may stand in them. A module that
/// shared pointers reach under several names may be loaded by any of them: of other values the last one's in the model count.
/// Adapters that started from the base (PiSSA, OLoRA) keep the start that they took: a warning where these weights become others.
/// @throws StateDictError for keys or shapes that do not fit, MergeError while an adapter is merged.
template <class M>
LoadReport set_base_model_state_dict(M& model, const StateDict& state_dict, const LoadOptions& options = {}) {
  return detail::load_base_state(sites_of(model), state_dict, options);
}

}  // namespace graft
