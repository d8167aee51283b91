#include <graft/state_dict/load_base.hpp>

#include <doctest/doctest.h>

#include "support/loaded_net.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Matrix;
using graft::StateDict;
using graft::TensorView;
using results::bytes_of;
using results::everything;
using Strings = std::vector<std::string>;

TEST_CASE("the base model loads under its own names, also while an adapter's bias stands in a layer") {
  loaded::Net net;
  graft::initialise(net, 1);
  (void)graft::inject_adapter_in_model(loaded::config, net);
  trained::fill(net, "default");
  const Matrix<float> with = net(loaded::ids);
  StateDict base = graft::get_base_model_state_dict(net).clone();
  CHECK(base.keys() == Strings{"embed.weight", "p.weight", "p.bias", "head.weight", "head.bias",
                               "norm.weight", "norm.bias"});
  const float two[2] = {2, 3};
  base.insert("norm.bias",
              TensorView{graft::Dtype::f32, {2}, reinterpret_cast<const std::byte*>(two), nullptr});
  const auto report = graft::set_base_model_state_dict(net, base);
  CHECK(report.loaded == Strings{"norm.weight", "norm.bias", "embed.weight", "p.weight", "p.bias",
                                 "head.weight", "head.bias"});
  CHECK(results::same_bits(net(loaded::ids), with));  // the adapter's own bias still stands there
  CHECK(bytes_of(graft::get_base_model_state_dict(net)) == bytes_of(base));
  graft::set_adapter(net, {});
  CHECK(net.norm.bias.view()(0, 1) == 3);
  graft::set_adapter(net, "default");
  CHECK(results::same_bits(net(loaded::ids), with));

  StateDict in_memory;
  for (const auto& [key, view] : base)
    in_memory.insert(key == "p.weight" ? "p.base_layer.weight" : key == "head.bias" ? "head.original_module.bias" : key, view);
  CHECK(graft::set_base_model_state_dict(net, in_memory).unexpected_keys.empty());
  const std::string before = everything(net);
  StateDict wrong = base;
  TensorView view = wrong.at("p.bias");
  view.shape = {1, 3};
  wrong.insert("p.bias", view);
  CHECK_THROWS_WITH_AS(graft::set_base_model_state_dict(net, wrong),
                       doctest::Contains("do not fit the base model: 'p.bias' is (1, 3), expected (3,)"), graft::StateDictError);
  base.erase("p.bias");
  CHECK_THROWS_AS(graft::set_base_model_state_dict(net, base), graft::StateDictError);
  CHECK(everything(net) == before);
  CHECK(graft::set_base_model_state_dict(net, base, {.strict = false}).missing_keys == Strings{"p.bias"});
}
