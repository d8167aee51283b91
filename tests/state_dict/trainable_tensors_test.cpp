#include <graft/state_dict/trainable_tensors.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>

using Strings = std::vector<std::string>;

namespace {
struct Net {
  graft::Embedding<> embed{5, 3};
  graft::Adaptable<graft::Linear<>> head{3, 5, false}, p{3, 3};
  graft::LayerNorm<> norm{3};
  Net() { head->weight = embed.weight.share(); }
  GRAFT_MODULE(embed, head, p, norm)
};
}  // namespace

TEST_CASE("each memory that wants gradients is found once, with whose it is") {
  Net net;
  CHECK(graft::detail::trainable_tensors(graft::sites_of(net)).empty());
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 1, .bias = graft::Bias::all, .target_modules = {"p"}}, net);
  net.embed.weight.set_requires_grad(true);
  net.head->weight.set_requires_grad(true);
  net.norm.bias.set_requires_grad(true);  // in which the adapter's stands
  const graft::ModelSites sites = graft::sites_of(net);
  const auto tensors = graft::detail::trainable_tensors(sites);
  Strings names;
  for (const auto& tensor : tensors) names.push_back((tensor.record ? tensor.record->name() : "") + ":" + tensor.name);
  CHECK(names == Strings{"default:lora_A", "default:lora_B", "default:bias", "default:norm.bias", ":embed.weight"});
  REQUIRE(tensors.size() == 5);
  CHECK(tensors[0].site == sites.sites[1].get());
  CHECK(tensors[3].parameter == &net.norm.bias.untyped());
  CHECK(tensors[3].tied.empty());
  CHECK(tensors[4].tied == std::vector<graft::ParameterData*>{&net.head->weight.untyped()});
  CHECK(graft::get_nb_trainable_parameters(net).trainable == 3 + 3 + 3 + 3 + 15);
}
