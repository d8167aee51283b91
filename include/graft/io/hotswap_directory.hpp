#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../state_dict/hotswap.hpp"
#include "pretrained.hpp"

namespace graft {

namespace detail {
template <class = OnDemand>
LoadReport hotswap_directory(const ModelSites& model, const std::filesystem::path& dir, std::string_view adapter_name) {
  const auto record = need_record(model, adapter_name);
  const bool inference = is_inference(record->config());
  std::vector<std::string> warnings;
  PeftConfig config = load_peft_config(dir, &warnings);
  std::visit([&](auto& c) { c.inference_mode = inference; }, config);
  const StateDict weights = read_weights(dir, false);
  LoadReport report =
      naming_source("'" + dir.string() + "'", [&] { return hotswap(model, weights, config, adapter_name, true); });
  report.warnings.insert(report.warnings.begin(), warnings.begin(), warnings.end());
  return report;
}
GRAFT_SHARED_FUNCTION(hotswap_directory<>)
}  // namespace detail

/// Exchanges an adapter's weights for those of a PEFT directory, as `hotswap_adapter` does with a state dict. Whether
/// its parameters want gradients stays. @throws FileError, and what that throws; nothing has changed then.
template <class M>
LoadReport hotswap_adapter(M& model, const std::filesystem::path& dir, std::string_view adapter_name = "default") {
  return detail::hotswap_directory(sites_of(model), dir, adapter_name);
}

}  // namespace graft
