#include <graft/state_dict/hotswap.hpp>

#include <doctest/doctest.h>

#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using graft::Matrix;
using graft::StateDict;
using results::everything;
using results::same_bits;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed{11, 7};
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5}, head{5, 3};
  graft::Linear<> plain{3, 3};
  auto operator()(const auto& ids) const { return plain(head(q(p(embed(ids))))); }
  GRAFT_MODULE(embed, p, q, head, plain)
};
Net base() {
  Net net;
  graft::initialise(net, 3);
  return net;
}
const std::vector<int> ids{1, 4, 10, 0};
const graft::TargetModules targets{"embed", "p", "q"};
const LoraConfig first{.r = 3, .lora_alpha = 7, .target_modules = targets, .modules_to_save = {"head"}};

/// What a fresh model holds with an adapter of this config and these values.
template <class Config>
std::pair<Net, StateDict> loaded(const Config& config, double seed, const std::string& name = "default") {
  Net net = base();
  trained::inject(config, net, name, seed);
  StateDict values = graft::get_peft_model_state_dict(net, name).clone();
  return {std::move(net), std::move(values)};
}

template <class E>
void refused(Net& net, const StateDict& values, const graft::PeftConfig& config, const std::string& name = "default") {
  const std::string before = everything(net);
  const Matrix<float> y = net(ids);
  CHECK_THROWS_AS(graft::hotswap_adapter(net, values, config, name), E);
  CHECK(everything(net) == before);
  CHECK(same_bits(net(ids), y));
}

}  // namespace

TEST_CASE("hotswap: a swapped adapter is one that was freshly loaded, bit for bit") {
  const std::vector<graft::PeftConfig> others{
      first,
      LoraConfig{.r = 5, .lora_alpha = 2, .target_modules = targets, .rank_pattern = {{"q", 2}}, .alpha_pattern = {{"p", 9}}, .modules_to_save = {"head"}},
      LoraConfig{.r = 2, .bias = graft::Bias::lora_only, .target_modules = targets, .use_rslora = true, .use_dora = true, .modules_to_save = {"head"}},
      LoraConfig{.r = 4, .target_modules = {"p", "q"}, .modules_to_save = {"head"}, .trainable_token_indices = {{"embed", {1, 10}}}}};
  for (const auto& config : others) {
    Net net = loaded(first, 1).first;
    graft::set_scale(net, "default", 0.5);
    const Matrix<float> before = net(ids);
    auto [fresh, values] = loaded(config, 2);
    graft::set_scale(fresh, "default", 0.5);
    const auto report = graft::hotswap_adapter(net, values, config);
    CHECK(report.loaded.size() == values.size());
    CHECK_FALSE(results::same_values(net(ids), before));
    CHECK(same_bits(net(ids), fresh(ids)));
    CHECK(everything(net) == everything(fresh));
    const graft::ModelSites sites = graft::sites_of(net);
    const auto record = graft::detail::find_record(sites, "default");
    CHECK(record->generation.own()->number == 1);
    CHECK(record->config().index() == 0);
    CHECK(std::get<LoraConfig>(record->config()).r == std::get<LoraConfig>(config).r);
  }
}

TEST_CASE("hotswap: IA3 and AdaLoRA") {
  const graft::Ia3Config ia3{.target_modules = {"p", "q"}, .feedforward_modules = {"q"}};
  const graft::AdaLoraConfig adalora{.init_r = 4, .target_modules = {"p", "q"}};
  graft::AdaLoraConfig smaller = adalora;
  smaller.init_r = 3;
  {
    Net net = loaded(ia3, 1).first;
    const auto [fresh, values] = loaded(ia3, 2);
    (void)graft::hotswap_adapter(net, values, ia3);
    CHECK(same_bits(net(ids), fresh(ids)));
  }
  Net net = loaded(adalora, 1).first;
  const auto [fresh, values] = loaded(smaller, 2);
  (void)graft::hotswap_adapter(net, values, smaller);
  CHECK(same_bits(net(ids), fresh(ids)));
}

TEST_CASE("hotswap: a selection goes on with the weights that it was made with") {
  Net net = loaded(first, 1).first;
  const Matrix<float> old = net(ids);
  graft::Batch batch;
  batch.add(4, graft::select(net, {{"default"}}));
  auto [fresh, values] = loaded(first, 2);
  (void)graft::hotswap_adapter(net, values, first);
  CHECK(same_bits(net(batch.input(ids)), old));
  batch.clear();
  batch.add(4, graft::select(net, {{"default"}}));
  CHECK(same_bits(net(batch.input(ids)), fresh(ids)));
}

TEST_CASE("hotswap: what does not fit changes nothing") {
  auto [net, own] = loaded(first, 1);
  const auto values = loaded(first, 2).second;
  refused<graft::AdapterError>(net, values, first, "unknown");
  refused<graft::AdapterError>(net, values, graft::Ia3Config{.target_modules = {"p"}, .feedforward_modules = {"p"}});

  StateDict missing = values.clone(), surplus = values.clone();
  missing.erase(std::string(values.keys().front()));
  refused<graft::StateDictError>(net, missing, first);
  surplus.insert("other.lora_A.weight", graft::TensorView(surplus.begin()->second));
  refused<graft::StateDictError>(net, surplus, first);

  LoraConfig larger = first, fewer = first, more = first;
  larger.r = 4;
  refused<graft::StateDictError>(net, values, larger);
  fewer.target_modules = {"embed", "p"};
  refused<graft::AdapterError>(net, loaded(fewer, 2).second, fewer);
  more.target_modules = {"embed", "p", "q", "head"};
  more.modules_to_save = {};
  fewer.modules_to_save = {};
  fewer.target_modules = targets;
  refused<graft::AdapterError>(net, loaded(fewer, 2).second, fewer);
  Net small = loaded(fewer, 1).first;
  refused<graft::AdapterError>(small, loaded(more, 2).second, more);

  graft::merge_adapter(small, {}, {.unmerge = graft::Unmerge::backup});
  refused<graft::MergeError>(small, loaded(fewer, 2).second, fewer);
}

TEST_CASE("hotswap: biases that stand in plain layers do not change under running threads") {
  LoraConfig config = first;
  config.bias = graft::Bias::all;
  auto [net, own] = loaded(config, 1);
  auto [fresh, values] = loaded(config, 2);
  refused<graft::AdapterError>(net, values, config);
  refused<graft::AdapterError>(net, loaded(first, 2).second, first);
  StateDict kept = values.clone();
  kept.erase("plain.bias");
  kept.insert("plain.bias", graft::TensorView(own.at("plain.bias")));
  (void)graft::hotswap_adapter(net, kept, config);  // the rest may
  graft::set_adapter(net, graft::Names(std::vector<std::string>{}));
  CHECK(same_bits(net(ids), base()(ids)));
  (void)graft::hotswap_adapter(net, values, config);
  graft::set_adapter(net, "default");
  CHECK(same_bits(net(ids), fresh(ids)));
}
