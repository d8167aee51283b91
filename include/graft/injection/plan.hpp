#pragma once

#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "../adapters/validate.hpp"
#include "../core/keys.hpp"
#include "../core/sort.hpp"
#include "base_values.hpp"
#include "plan_layout.hpp"
#include "plan_parameters.hpp"
#include "plan_targets.hpp"
#include "plan_ties.hpp"
#include "plan_tokens.hpp"
#include "records.hpp"
#include "report.hpp"

namespace graft {

/// What one injection will do, decided before anything changes: applying it cannot fail.
struct InjectionPlan {
  struct AdaptedSite {
    std::size_t site;
    AdapterPlan adapter;
  };
  std::vector<AdaptedSite> adapted{};
  std::vector<std::size_t> copied{};        ///< sites that are saved whole
  std::vector<std::string> saved_modules{};  ///< the modules that these are part of
  std::vector<TiedEnds> ties{};             ///< sites that share one adapter
  std::vector<TokenSite> tokens{};          ///< sites of which rows are trained
  std::vector<std::size_t> biases{};        ///< sites whose base bias the adapter trains
  std::vector<std::size_t> plain_biases{};  ///< the same outside of sites: places in `ModelSites::plain`
  PeftConfig config;                        ///< as the record will keep it
  InjectReport report{};
};

namespace detail {

/// Fills an `InjectionPlan` that has a config.
class Planner {
 public:
  Planner(const ModelSites& model, const InjectOptions& options, const std::string& name, const AdapterRecord* replaced,
          InjectionPlan& plan)
      : model_(model),
        options_(options),
        name_(name),
        replaced_(replaced),
        nested_(options.file ? options.file : options.state_dict),
        plan_(plan) {}

  void make() && {
    visit_config(plan_.config, [](const auto& config) { config.validate(); });
    InjectReport of_parameters;
    if (const auto* lora = std::get_if<LoraConfig>(&plan_.config))
      parameters_ = ParameterPlanner(model_, *lora, options_, replaced_).make(of_parameters);
    TargetPlan targets = plan_targets(model_, plan_.config, options_, !parameters_.empty());
    ParameterPlanner::check_modules(model_, parameters_, targets);
    plan_.ties = TiePlanner(model_, plan_.config, targets).make();
    plan_.report = std::move(targets.report);
    for (auto list : {&InjectReport::unmatched_targets, &InjectReport::near_misses, &InjectReport::warnings})
      for (std::string& line : of_parameters.*list) (plan_.report.*list).push_back(std::move(line));
    plan_.copied = std::move(targets.copied);
    plan_.saved_modules = std::move(targets.saved_modules);
    visit_config(plan_.config, [&](const auto& config) { plan_sites(config, targets.sites); });
    for (const TargetedParameter& one : parameters_) targets.sites.push_back(one.site);
    visit_config(plan_.config, [&](const auto& config) { plan_biases(bias_of(config), targets.sites); });
    if (const auto* lora = std::get_if<LoraConfig>(&plan_.config))
      plan_.tokens = TokenPlanner(model_, *lora, options_, targets.sites, plan_.copied, plan_.report).make();
    write_back_all_linear();
    for (const auto& [site, adapter] : plan_.adapted) {
      check_shown_weight(*model_.sites[site]);
      follow_layout(*model_.sites[site], adapter, plan_.config, plan_.report.warnings);
      const LayerFacts facts = model_.sites[site]->facts();
      const bool is_path_whole = adapter.parameter.empty() || facts.kind == LayerKind::parameter;
      plan_.report.matched.push_back({is_path_whole ? adapter.path : join_path(adapter.path, adapter.parameter), facts.kind, facts.in,
                                      facts.out, adapter.r});
    }
  }

 private:
  [[nodiscard]] AdapterPlan start(std::size_t site) const {
    AdapterPlan adapter;
    adapter.path = model_.sites[site]->path();
    adapter.low_cpu_mem_usage = options_.low_cpu_mem_usage;
    adapter.seed = options_.seed;
    adapter.depth = nested_.depth(adapter.path);
    return adapter;
  }

  void plan_sites(const LoraConfig& config, const std::vector<std::size_t>& sites) {
    PatternUse<int> ranks(config.rank_pattern, "rank_pattern");
    PatternUse<double> alphas(config.alpha_pattern, "alpha_pattern");
    for (const std::size_t site : sites) {
      AdapterPlan adapter = start(site);
      adapter.with_outer = comes_with_attention(model_, sites, *model_.sites[site]);
      if (adapter.with_outer) adapter.times = 2;  // PEFT adds the update twice, in forwards and in merges
      const std::string& named = adapter.with_outer ? model_.sites[site]->outer()->path() : adapter.path;
      adapter.r = ranks.value(named).value_or(config.r);
      adapter.lora_alpha = alphas.value(named).value_or(config.lora_alpha);
      if (model_.sites[site]->facts().packed) check_attention(config, adapter.path);
      check(config, model_.sites[site]->facts(), adapter);
      check_initialisation(config, *model_.sites[site], adapter);
      if (config.use_dora) check_dora(*model_.sites[site]);
      for (const TiedEnds& ends : plan_.ties)
        if (ends.head == site) tie(config, ends, adapter, ranks);
      plan_.adapted.push_back({site, std::move(adapter)});
    }
    for (const TargetedParameter& one : parameters_) {
      AdapterPlan adapter = start(one.site);
      adapter.parameter = one.name;
      adapter.r = ranks.value(one.key).value_or(config.r);
      adapter.lora_alpha = alphas.value(one.key).value_or(config.lora_alpha);
      const LayerKind kind = model_.sites[one.site]->kind();
      if (kind == LayerKind::parameter) adapter.depth = one.depth;
      if (kind == LayerKind::linear) check_initialisation(config, *model_.sites[one.site], adapter);
      plan_.adapted.push_back({one.site, std::move(adapter)});
    }
    sort_stably(plan_.adapted, [](const auto& a, const auto& b) { return a.site < b.site; });
    ranks.report_idle(options_.strict_targets, plan_.report);
    alphas.report_idle(options_.strict_targets, plan_.report);
  }

  void tie(const LoraConfig& config, const TiedEnds& ends, AdapterPlan& head, PatternUse<int>& ranks) const {
    const std::string& embedding = model_.sites[ends.embedding]->path();
    if (head.r != ranks.value(embedding).value_or(config.r))
      fail<ConfigError>("ensure_weight_tying, and rank_pattern gives '" + head.path + "' another rank than '" + embedding + "'",
                        "both ends of a tie share one adapter", "give both the same rank");
    if (!config.init_lora_weights.is_bool() || config.use_dora || config.lora_bias)
      fail<ConfigError>("ensure_weight_tying at '" + head.path + "' with use_dora, lora_bias or an init_lora_weights that is a name",
                        "what they add has no counterpart at the other end of the tie", "leave one of them out");
  }

  void check(const LoraConfig& config, const LayerFacts& facts, const AdapterPlan& adapter) {
    if (facts.kind == LayerKind::conv && facts.conv.groups > 1 && adapter.r % facts.conv.groups != 0)
      fail<ConfigError>("r = " + std::to_string(adapter.r) + " at '" + adapter.path + "', a convolution of " +
                            std::to_string(facts.conv.groups) + " groups",
                        "lora_B is grouped as the base is, so the rank must be divisible by the groups",
                        "choose a multiple of the groups, for this module alone with rank_pattern");
    if (config.lora_bias && facts.kind == LayerKind::embedding)
      fail<ConfigError>("lora_bias at the embedding '" + adapter.path + "'", "an embedding's lora_B has no bias",
                        "leave lora_bias out, or exclude the embedding");
    if (config.lora_bias && !facts.has_bias)
      plan_.report.warnings.push_back("lora_bias at '" + adapter.path +
                                      "', whose base layer has no bias: it cannot be merged without creating one");
  }

  void check_initialisation(const LoraConfig& config, const AnySite& site, const AdapterPlan& adapter) const {
    const InitScheme scheme = init_scheme(config.init_lora_weights);
    const LayerFacts facts = site.facts();
    const bool is_plain = scheme == InitScheme::identity || scheme == InitScheme::random || scheme == InitScheme::gaussian;
    if (is_plain || facts.kind == LayerKind::embedding) return;  // an embedding starts as with `true`, whatever the scheme
    const std::string problem = "init_lora_weights \"" + config.init_lora_weights.scheme() + "\" at '" + adapter.path + "', ";
    if (facts.kind == LayerKind::conv)
      fail<ConfigError>(problem + "a convolution", "the schemes are made for linear layers",
                        "exclude the convolution, or use true or \"gaussian\"");
    if (scheme == InitScheme::orthogonal && adapter.r % 2 != 0)
      fail<ConfigError>(problem + "r = " + std::to_string(adapter.r), "one half of the ranks goes to A, the other to B",
                        "choose an even rank");
    if (takes_from_base(scheme)) check_start(config, site, adapter, problem);
  }

  void check_start(const LoraConfig& config, const AnySite& site, const AdapterPlan& adapter, const std::string& problem) const {
    const LayerFacts facts = site.facts();
    const InitScheme scheme = init_scheme(config.init_lora_weights);
    if (adapter.r > std::min(facts.in, facts.out))
      fail<ConfigError>(problem + "r = " + std::to_string(adapter.r) + ", a weight of " + facts.shape_text(),
                        "a matrix has no more singular values than its smaller dimension",
                        "lower r, for this module alone with rank_pattern");
    if (scheme != InitScheme::olora && !(adapter.lora_alpha > 0))
      fail<ConfigError>(problem + "lora_alpha = " + std::to_string(adapter.lora_alpha),
                        "singular values are divided by the scaling before their root is taken", "use a positive lora_alpha");
    if (scheme == InitScheme::iterated_pissa && options_.file)
      fail<ConfigError>(problem + "which a file asks for",
                        "its start came of random numbers that the file does not hold, so what PEFT took out of the base "
                        "cannot be computed again; PEFT itself would load something else than was trained",
                        "convert it where it was trained: subtract_mutated_init in graft, "
                        "path_initial_model_for_weight_conversion in PEFT. To accept the nearest start, write \"pissa\" "
                        "into adapter_config.json");
    (void)base_weight_view(site);
  }

  void check_dora(const AnySite& site) const {
    const LayerFacts facts = site.facts();
    if (facts.kind == LayerKind::conv && facts.conv.groups > 1)
      fail<ConfigError>("use_dora at '" + site.path() + "', a convolution of " + std::to_string(facts.conv.groups) + " groups",
                        "DoRA takes the norms of the weight plus B·A, and a grouped weight has another shape than B·A",
                        "leave use_dora out, or exclude the convolution with exclude_modules");
    if (!site.shows_weight())
      fail<TargetError>("use_dora at '" + site.path() + "', a " + std::string(site.layer_name()) + " that does not show its weight",
                        "DoRA takes the norms of the base weight",
                        "give layer_traits<" + std::string(site.layer_name()) + "> a weight(layer), or leave use_dora out");
    if (options_.low_cpu_mem_usage) return;
    for (const BaseTensor& tensor : site.tensors())
      if (tensor.key == "weight" && tensor.read().device() == Device::meta)
        fail<MetaError>("use_dora at '" + site.path() + "', whose base weight has no memory yet",
                        "the magnitudes start as the norms of the base weight",
                        "load the base model before its adapters, or inject with low_cpu_mem_usage and load the adapter");
  }

  void plan_sites(const AdaLoraConfig& config, const std::vector<std::size_t>& sites) {
    std::vector<bool> is_used(config.rank_pattern.size());
    for (const std::size_t site : sites) {
      AdapterPlan adapter = start(site);
      adapter.r = config.init_r;
      adapter.lora_alpha = config.lora_alpha;
      for (std::size_t i = 0; i < config.rank_pattern.size(); ++i) {
        const auto& [key, kept] = config.rank_pattern[i];
        if (rank_pattern_path(key, name_) != adapter.path) continue;
        if (Index(kept.size()) != config.init_r)
          fail<ConfigError>("rank_pattern has " + std::to_string(kept.size()) + " entries for '" + adapter.path +
                                "', init_r is " + std::to_string(config.init_r),
                            "it says of every initial rank whether it was kept", "load the config that belongs to the weights");
        adapter.r = Index(std::count(kept.begin(), kept.end(), true));
        is_used[i] = true;
      }
      check_conv(model_.sites[site]->facts(), adapter);
      plan_.adapted.push_back({site, std::move(adapter)});
    }
    for (std::size_t i = 0; i < is_used.size(); ++i)
      if (!is_used[i]) report_idle_pattern("rank_pattern", config.rank_pattern[i].first, options_.strict_targets, plan_.report);
  }

  static void check_conv(const LayerFacts& facts, const AdapterPlan& adapter) {
    if (facts.kind != LayerKind::conv || (facts.conv.kernel.rank() == 2 && facts.conv.groups == 1)) return;
    fail<TargetError>("AdaLoRA at '" + adapter.path + "', a " + std::to_string(facts.conv.kernel.rank()) +
                          "-d convolution of " + std::to_string(facts.conv.groups) + " groups",
                      "AdaLoRA's matrices fit linear layers and 2-d convolutions without groups",
                      "exclude it with exclude_modules, or use LoRA");
  }

  void plan_sites(const Ia3Config& config, const std::vector<std::size_t>& sites) {
    for (const std::size_t site : sites) {
      AdapterPlan adapter = start(site);
      adapter.is_feedforward = is_feedforward(config, model_.sites[site]->facts(), adapter.path);
      if (!options_.file && !adapter.is_feedforward && ends_plainly(config.feedforward_modules, adapter.path))
        plan_.report.warnings.push_back("PEFT compares feedforward_modules with plain ends, and would scale the input of '" +
                                        adapter.path + "' where graft scales its output");
      plan_.adapted.push_back({site, std::move(adapter)});
    }
  }

  /// The shape in the file decides for linear layers: (1, in) scales the input. Where it cannot, names do: those
  /// of a file by PEFT's plain `endswith`, those of a new adapter by whole components.
  [[nodiscard]] bool is_feedforward(const Ia3Config& config, const LayerFacts& facts, const std::string& path) const {
    const auto& modules = config.feedforward_modules;
    if (!options_.file) return match_index(modules, path) >= 0;
    const std::string key = file_key(nested_path(path, nested_.depth(path)), "ia3_l", "");
    const TensorView* saved = options_.file->find(key);
    if (!saved) saved = options_.file->find(std::string(peft_prefix) + key);
    if (saved && facts.kind == LayerKind::linear && saved->shape.size() == 2 && saved->shape[0] != saved->shape[1])
      return saved->shape[0] == 1;
    if (modules.kind() == TargetModules::Kind::regex) return modules.regex().matches(path);
    return ends_plainly(modules, path);
  }
  [[nodiscard]] static bool ends_plainly(const TargetModules& modules, const std::string& path) {
    for (const std::string& name : modules.names())
      if (path.ends_with(name)) return true;
    return false;
  }

  template <class C>
  [[nodiscard]] static Bias bias_of(const C& config) {
    if constexpr (requires { config.bias; }) return config.bias;
    else return Bias::none;
  }
  void plan_biases(Bias bias, const std::vector<std::size_t>& sites) {
    if (bias == Bias::none) return;
    for (const auto& record : records_of(model_))
      if (record.get() != replaced_ && trains_biases(record->generation.pin()->config))  // a hot-swap may be going on
        fail<AdapterError>("a second adapter with bias != none: '" + record->name() + "' trains biases already",
                           "biases belong to the base, and only one adapter of a model may train them",
                           "inject it with bias = none, or delete the other one");
    if (bias == Bias::lora_only) {
      for (const std::size_t site : sites)
        if (trains_bias_of(site)) plan_.biases.push_back(site);
      return;
    }
    for (std::size_t site = 0; site < model_.sites.size(); ++site)
      if (trains_bias_of(site) &&
          std::find(plan_.copied.begin(), plan_.copied.end(), site) == plan_.copied.end())
        plan_.biases.push_back(site);
    for (std::size_t i = 0; i < model_.plain.size(); ++i) {
      if (last_segment(model_.plain[i].key) != "bias") continue;
      if (model_.plain[i].read().device() == Device::meta)
        fail<MetaError>("bias = all, and '" + model_.plain[i].key + "' has no memory yet",
                        "the trained bias starts from the base's", "load the base model before its adapters");
      if (!model_.plain[i].write)
        fail<TargetError>("bias = all, and '" + model_.plain[i].key + "' can only be read",
                          "the trained bias stands in the layer while its adapter is active",
                          "let the layer's traits answer a writable bias, or use bias = lora_only");
      plan_.plain_biases.push_back(i);
    }
    if (!plan_.plain_biases.empty())
      plan_.report.warnings.push_back(
          "bias = all: the biases of layers without room for adapters stand in the layers while this adapter is active, "
          "for all rows of a batch");
  }

  /// A packed projection's is called `in_proj_bias`, and PEFT goes by the name `bias`.
  [[nodiscard]] bool trains_bias_of(std::size_t site) const {
    const LayerFacts facts = model_.sites[site]->facts();
    return facts.has_bias && !facts.packed;
  }

  [[nodiscard]] static bool trains_biases(const PeftConfig& config) {
    return visit_config(config, [](const auto& one) { return bias_of(one) != Bias::none; });
  }

  /// PEFT's rule: the config names the modules that `all_linear` found, and is saved so.
  void write_back_all_linear() {
    if (target_fields(plan_.config).targets->kind() != TargetModules::Kind::all_linears) return;
    std::vector<std::string> names;
    for (const auto& adapted : plan_.adapted)
      if (adapted.adapter.parameter.empty()) names.push_back(adapted.adapter.path);
    visit_config(plan_.config, [&](auto& config) { config.target_modules = TargetModules(std::move(names)); });
  }

  const ModelSites& model_;
  const InjectOptions& options_;
  const std::string& name_;
  const AdapterRecord* replaced_;
  NestedKeys nested_;
  std::vector<TargetedParameter> parameters_;
  InjectionPlan& plan_;
};

/// Every error of an injection is raised here. `replaced` is the adapter that will go, or null.
[[nodiscard]] inline InjectionPlan plan_injection(const ModelSites& model, const PeftConfig& config, const InjectOptions& options,
                                                  const std::string& name, const AdapterRecord* replaced) {
  InjectionPlan plan{.config = config};
  Planner(model, options, name, replaced, plan).make();
  return plan;
}

}  // namespace detail
}  // namespace graft
