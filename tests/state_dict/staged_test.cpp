#include <graft/state_dict/staged.hpp>

#include <doctest/doctest.h>

#include "support/results.hpp"
#include "support/trained.hpp"

namespace {
struct Net {
  graft::Adaptable<graft::Embedding<>> embed{11, 7};
  graft::Adaptable<graft::Linear<>> p{7, 13}, head{13, 3};
  auto operator()(const auto& ids) const { return head(p(embed(ids))); }
  GRAFT_MODULE(embed, p, head)
};
}  // namespace

TEST_CASE("staged: an adapter is sized before it has memory, and the model does not notice it") {
  Net other;
  graft::initialise(other, 1);
  const graft::LoraConfig config{.r = 3, .target_modules = {"p", "embed"}, .rank_pattern = {{"p", 5}}, .modules_to_save = {"head"}};
  trained::inject(config, other, "default", 1);
  graft::StateDict values = graft::get_peft_model_state_dict(other).clone();

  Net net;
  graft::initialise(net, 1);
  const std::string before = results::everything(net);
  const graft::ModelSites sites = graft::sites_of(net);
  graft::detail::StagedAdapter staged(sites, config, values, "x", nullptr, "test");
  CHECK(staged.rank() == 5);
  // p: 5·(7 + 13), embed: 3·(11 + 7), head: 13·3 + 3 floats
  CHECK(staged.bytes() == 4 * (5 * 20 + 3 * 18 + 42));
  CHECK(staged.parts().at[1]->state->is_meta());

  // PEFT may save the embedding beside the adapter: it must be the base's own
  graft::StateDict whole = values;
  whole.insert("embed.base_layer.weight", graft::get_base_model_state_dict(net).at("embed.weight"));
  CHECK(staged.load(whole, false).loaded.size() == values.size());
  CHECK_FALSE(staged.parts().at[1]->state->is_meta());
  CHECK(results::everything(net) == before);

  graft::StateDict another = values;
  another.insert("embed.base_layer.weight", values.at("embed.lora_embedding_A"));
  CHECK_THROWS_AS(staged.load(another, false), graft::StateDictError);
}
