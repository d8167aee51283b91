#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <variant>
#include <vector>

#include "../core/compile_once.hpp"
#include "../core/on_demand.hpp"
#include "../injection/inject.hpp"
#include "../state_dict/load.hpp"
#include "adapter_config.hpp"
#include "as_file.hpp"
#include "python_names.hpp"
#include "safetensors.hpp"

namespace graft {

/// How `load_adapter` loads.
struct LoadAdapterOptions {
  bool low_cpu_mem_usage = true;         ///< parameters take the file's memory over instead of being filled twice
  bool mapped = false;                   ///< parameters are views of the file itself, copied when they are written
  bool strict = true;                    ///< missing and unexpected keys are errors
  bool activate = true;                  ///< the adapter becomes the only active one
  bool is_trainable = false;             ///< its parameters want gradients
  bool ignore_mismatched_sizes = false;  ///< tensors of another shape are left out and count as missing
  bool replace = false;                  ///< an adapter of that name is deleted once the new one is complete
  AdapterDtype dtype = AdapterDtype::compute;
};

namespace detail {
inline constexpr const char* config_file = "adapter_config.json";
inline constexpr const char* weights_file = "adapter_model.safetensors";

template <class = OnDemand>
[[nodiscard]] StateDict read_weights(const std::filesystem::path& dir, bool mapped) {
  const std::filesystem::path path = dir / weights_file;
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    const bool has_pickle = std::filesystem::exists(dir / "adapter_model.bin", ignored);
    fail<FileError>("'" + path.string() + "' does not exist",
                    has_pickle ? "the directory has adapter_model.bin, a pickle, which can run any code when it is read"
                               : "an adapter's weights are in that file",
                    has_pickle ? "load it in Python and save it with safe_serialization=True" : "check the path");
  }
  return safetensors::load_file(path, {.mapped = mapped});
}
GRAFT_SHARED_FUNCTION(read_weights<>)

/// Takes an injection that is not finished out again, as if it had never been: no tombstone, no empty table.
class PendingInjection {
 public:
  /// To be made before the injection.
  PendingInjection(const ModelSites& model, unsigned id, std::vector<unsigned> selected)
      : model_(&model), id_(id), selected_(std::move(selected)) {
    for (const auto& site : model.sites) had_table_.push_back(site->table() != nullptr);
  }
  PendingInjection(const PendingInjection&) = delete;
  PendingInjection& operator=(const PendingInjection&) = delete;
  ~PendingInjection() {
    if (!model_) return;
    AdapterDirectory* directory = directory_of(*model_);
    if (directory) directory->remove(id_);
    for (std::size_t i = 0; i < model_->sites.size(); ++i) {
      SiteTable* table = model_->sites[i]->table();
      if (!table) continue;
      std::erase_if(table->entries, [&](const SiteEntry& entry) { return entry.id == id_; });
      if (had_table_[i]) continue;
      if (directory && --directory->tables == 0) directory = nullptr;  // it goes with the last table
      model_->sites[i]->drop_table();
    }
    select_everywhere(*model_, selected_);
  }
  void keep() { model_ = nullptr; }

 private:
  const ModelSites* model_;
  unsigned id_;
  std::vector<unsigned> selected_;
  std::vector<bool> had_table_;
};

/// Gives an adapter that is to be replaced a name that none can have, as long as both are there.
class HiddenName {
 public:
  explicit HiddenName(std::shared_ptr<AdapterRecord> record) : record_(std::move(record)) {
    if (record_) record_->rename(record_->name() + '\n');
  }
  HiddenName(const HiddenName&) = delete;
  HiddenName& operator=(const HiddenName&) = delete;
  ~HiddenName() {
    if (record_) record_->rename(record_->name().substr(0, record_->name().size() - 1));
  }

 private:
  std::shared_ptr<AdapterRecord> record_;
};

/// Parameters that a lenient load left without memory get the values that an injection would have given them.
inline void initialise_missing(const ModelSites& model, unsigned id) {
  for (const auto& site : model.sites) {
    SiteTable* table = site->table();
    SiteEntry* entry = table ? table->find(id) : nullptr;
    if (!entry || !entry->state() || !entry->state()->is_meta()) continue;
    const std::unique_ptr<AnyAdapterState> fresh = entry->state()->clone();
    site->initialise(*fresh, 0);
    auto from = fresh->parameters();
    auto to = entry->state()->parameters();
    for (std::size_t i = 0; i < to.size(); ++i)
      if (to[i].data->is_meta()) *to[i].data = std::move(*from[i].data);
  }
}

/// @throws ConfigError for an adapter that would be kept narrow and trained.
inline void check_dtype(const StateDict& weights, const LoadAdapterOptions& options) {
  if (options.dtype == AdapterDtype::compute || !options.is_trainable) return;
  for (const auto& [key, view] : weights)
    if (is_floating(view.dtype) && size_of(view.dtype) == 2)
      fail<ConfigError>("AdapterDtype::as_file with is_trainable for '" + key + "', which is " + std::string(tag_of(view.dtype)),
                        "small steps of an optimiser would be rounded away in it",
                        "leave the dtype at AdapterDtype::compute: PEFT trains in float too");
}

/// Injects and loads what was read: all of it, or nothing.
template <class = OnDemand>
LoadReport load_weights(const ModelSites& model, const PeftConfig& config, const StateDict& weights,
                        const std::string& name, const LoadAdapterOptions& options, std::vector<std::string> warnings) {
  check_dtype(weights, options);
  check_adapter_name(name);
  share_records(model);
  const auto old = find_record(model, name);
  if (old && !options.replace)
    fail<AdapterError>("the model has an adapter '" + name + "' already", "loading another into it would overwrite its weights",
                       "choose another name, delete_adapter() it first, or set LoadAdapterOptions::replace");
  const std::vector<unsigned> selected = selected_of(model);
  const unsigned id = next_id(model);
  if (old) check_not_merged(model, *old, "load_adapter");
  if (options.activate) check_selection(model, {id}, "load_adapter");
  const HiddenName hidden(old);
  PendingInjection pending(model, id, selected);
  // without memory at first: what a config claims of ranks is believed only once the weights have them
  InjectReport injected = inject(model, config, name,
                                 {.low_cpu_mem_usage = true, .activate = false, .file = &weights, .instead_of = old.get()});
  LoadReport report = load_adapter_state(model, weights, name,
                                         {.low_cpu_mem_usage = options.low_cpu_mem_usage, .strict = options.strict,
                                          .ignore_mismatched_sizes = options.ignore_mismatched_sizes},
                                         options.dtype == AdapterDtype::as_file ? &keep_dtypes : nullptr);
  initialise_missing(model, id);
  pending.keep();
  if (old) remove_everywhere(model, *old);
  if (options.activate) select_everywhere(model, {id});

  for (const std::string& target : injected.unmatched_targets)
    warnings.push_back("the target '" + target + "' matches no module of this model");
  warnings.insert(warnings.end(), injected.warnings.begin(), injected.warnings.end());
  report.warnings.insert(report.warnings.begin(), warnings.begin(), warnings.end());
  return report;
}
GRAFT_SHARED_FUNCTION(load_weights<>)

template <class = OnDemand>
LoadReport load_directory(const ModelSites& model, const std::filesystem::path& dir, const std::string& name,
                          const LoadAdapterOptions& options) {
  std::vector<std::string> warnings;
  PeftConfig config = load_peft_config(dir, &warnings);
  std::visit([&](auto& c) { c.inference_mode = !options.is_trainable; }, config);
  const StateDict weights = read_weights(dir, options.mapped);
  // appended: g++ 12 takes a literal before a temporary for an overlapping copy, and warns
  return naming_source(std::string("'").append(dir.string()).append("'"),
                       [&] { return load_weights(model, config, weights, name, options, std::move(warnings)); });
}
GRAFT_SHARED_FUNCTION(load_directory<>)

/// A saved adapter is for Python too, where its name is a folder's and a component of parameters' names.
inline void check_saved_name(const AdapterRecord& record, std::vector<std::string>* warnings) {
  const std::string& name = record.name();
  const std::string problem = "an adapter called '" + name + "' cannot be saved";
  if (name.find_first_of("/\\") != name.npos)
    fail<AdapterError>(problem, "its name becomes a folder's", "inject it under a name without slashes");
  if (is_python_attribute(name))
    fail<AdapterError>(problem, "torch's containers have an attribute of that name, and PEFT cannot inject such an adapter",
                       "inject it under another name");
  const std::string_view prefix = record.type() == PeftType::ia3 ? "ia3_" : "lora_";
  if (warnings && prefix.find(name) != prefix.npos)
    warnings->push_back("the adapter's name '" + name + "' is part of '" + std::string(prefix) +
                        "', PEFT's prefix of its parameters: loaded under that name, PEFT warns and may initialise it anew");
  const auto* adalora = std::get_if<AdaLoraConfig>(&record.config());
  if (warnings && adalora && adalora->total_step == 0)
    warnings->push_back("total_step is not set: graft needs it to train only, PEFT to load an AdaLoRA adapter at all");
}

/// A file does not hold what a random start took out of the base: it would load as another adapter.
inline void check_start_is_in_file(const AdapterRecord& record) {
  const auto* lora = std::get_if<LoraConfig>(&record.config());
  if (lora && init_scheme(lora->init_lora_weights) == InitScheme::iterated_pissa)
    fail<AdapterError>("adapter '" + record.name() + "' started as \"" + lora->init_lora_weights.scheme() + "\" and cannot be saved as it is",
                       "its start came of random numbers that a file does not hold",
                       "subtract_mutated_init() makes a plain LoRA adapter of it: save that one");
}

template <class = OnDemand>
std::filesystem::path save_pretrained(const ModelSites& model, const std::filesystem::path& dir, std::string_view name,
                                      std::vector<std::string>* warnings) {
  const auto record = need_record(model, name);
  check_saved_name(*record, warnings);
  check_start_is_in_file(*record);
  const std::filesystem::path folder = name == "default" ? dir : dir / std::filesystem::path(std::string(name));
  StateDict prefixed;
  for (const auto& [key, view] : adapter_state_dict(model, name)) {
    if (view.device() == Device::meta)
      fail<MetaError>("'" + key + "' of adapter '" + record->name() + "' has no values to save", "it is on the meta device",
                      "load or initialise the adapter first");
    prefixed.insert(std::string(peft_prefix) + key, view);
  }
  const std::string config = config_text(record->config());
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    fail<FileError>("the folder '" + folder.string() + "' cannot be made", error.message(), "choose a folder that can be written to");
  // both are complete on disk before either has its name
  AtomicFile config_out(folder / config_file);
  config_out.write(config.data(), config.size());
  safetensors::save_file(prefixed, folder / weights_file, {{"format", "pt"}});
  config_out.commit();
  return folder;
}
GRAFT_SHARED_FUNCTION(save_pretrained<>)
}  // namespace detail

/// Saves an adapter as PEFT does: `dir` for "default", `dir/name` otherwise, the folder being returned. Files
/// appear whole or not at all. `warnings`, where given, receives what Python will stumble over.
/// @throws AdapterError for an unknown adapter or a name that PEFT cannot have, MetaError for one without values, FileError when the disk refuses.
template <class M>
std::filesystem::path save_pretrained(const M& model, const std::filesystem::path& dir, std::string_view adapter_name = "default",
                                      std::vector<std::string>* warnings = nullptr) {
  return detail::save_pretrained(sites_of(model), dir, adapter_name, warnings);
}

/// Injects and loads the adapter of a PEFT directory. Nothing has changed when it throws.
/// @throws FileError for files that cannot be read, and what injection and loading throw.
template <class M>
LoadReport load_adapter(M& model, const std::filesystem::path& dir, std::string adapter_name = "default",
                        const LoadAdapterOptions& options = {}) {
  return detail::load_directory(sites_of(model), dir, adapter_name, options);
}

/// The tensors of a PEFT directory under the keys of the file: views of a mapping of it.
/// @throws FileError
[[nodiscard]] inline StateDict load_peft_weights(const std::filesystem::path& dir) { return detail::read_weights(dir, true); }

}  // namespace graft
