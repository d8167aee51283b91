#include <graft/adapters/merge_undo.hpp>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <graft/graft.hpp>

#include "support/awkward_layers.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using graft::Matrix;
using graft::MergeOptions;
using graft::Unmerge;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed_tokens{7, 3};
  graft::Adaptable<graft::Linear<>> p{3, 5};
  auto operator()(const auto& ids) const { return p(embed_tokens(ids)); }
  GRAFT_MODULE(embed_tokens, p)
};
const std::vector<int> ids{5, 1, 2, 5, 0};

Net made() {
  Net net;
  awkward::fill<float>(net.embed_tokens->weight.untyped(), 1);
  awkward::fill<float>(net.p->weight.untyped(), 2);
  trained::inject(LoraConfig{.r = 2, .target_modules = {"embed_tokens", "p"}}, net, "lora", 20);
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}, .trainable_token_indices = {5, 1}}, net, "rows", 21);
  trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}, .trainable_token_indices = {2}}, net, "others", 22);
  graft::set_adapter(net, {"rows", "others", "lora"});
  return net;
}

TEST_CASE("steps of every kind are undone, the latest first, and swapped out where they can be") {
  struct Case {
    std::vector<std::vector<std::string>> steps;
    bool can_be_disabled;
  };
  // the embedding's rows alone are kept where nothing else was written; the whole weight where LoRA was written too
  const std::vector<Case> cases{{{{"rows"}}, true},
                                {{{"rows"}, {"others"}}, true},
                                {{{"rows", "others"}}, true},
                                {{{"rows", "others", "lora"}}, true},
                                {{{"rows"}, {"others"}, {"lora"}}, false}};
  for (const Case& one : cases) {
    Net net = made();
    const std::string base = results::bytes_of(graft::get_base_model_state_dict(net));
    const Matrix<float> y = net(ids);
    for (const auto& step : one.steps) {
      (void)graft::merge_adapter(net, step, MergeOptions{.unmerge = Unmerge::backup});
      CHECK(results::same_values(net(ids), y));
      CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) != base);
    }
    if (one.can_be_disabled) {
      for (int i = 0; i < 2; ++i) {
        const auto guard = graft::disable_adapter(net);
        CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == base);
      }
      CHECK(results::same_values(net(ids), y));
    } else {
      CHECK_THROWS_AS((void)graft::disable_adapter(net), graft::MergeError);
    }
    (void)graft::unmerge_adapter(net);
    CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == base);
    CHECK(results::same_bits(net(ids), y));
  }
}

TEST_CASE("rows keep no more than the rows") {
  Net net = made();
  graft::set_adapter(net, {"rows"});
  (void)graft::merge_adapter(net);
  const auto sites = graft::sites_of(net);
  const graft::SiteTable& table = *sites.sites[0]->table();
  REQUIRE(table.steps.size() == 1);
  CHECK_FALSE(table.steps[0].weight);
  REQUIRE(table.steps[0].rows);
  CHECK(table.steps[0].rows->ids() == std::vector<graft::Index>{5, 1});
}

}  // namespace
