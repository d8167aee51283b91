#include <graft/injection/records.hpp>

#include <doctest/doctest.h>

#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using Strings = std::vector<std::string>;

TEST_CASE("one record per adapter, in the order of injection, shared by its sites and apart from a copy's") {
  tree::Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj"}}, net, "z");
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj", "head"}}, net, "a");
  tree::Net copy = net;
  for (tree::Net* one : {&net, &copy}) {
    graft::set_adapter(*one, "a");
    const graft::ModelSites sites = graft::sites_of(*one);
    const auto records = graft::detail::records_of(sites);
    REQUIRE(records.size() == 2);
    CHECK(records[0]->name() == "z");
    CHECK(records[1]->name() == "a");
    for (const auto& site : sites.sites)
      if (const graft::SiteTable* table = site->table())
        for (const graft::SiteEntry& entry : table->entries) CHECK(entry.record == records[entry.id]);
  }
  CHECK(graft::detail::find_record(graft::sites_of(net), "a") !=
        graft::detail::find_record(graft::sites_of(copy), "a"));
}

TEST_CASE("numbers are never used again") {
  tree::Net net;
  for (unsigned round = 0; round < 3; ++round) {
    trained::inject(LoraConfig{.target_modules = {"head"}}, net, "a");
    const graft::ModelSites sites = graft::sites_of(net);
    CHECK(graft::detail::need_record(sites, "a")->id == round);
    CHECK(graft::detail::next_id(sites) == round + 1);
    graft::delete_adapter(net, "a");
  }
  CHECK(graft::detail::find_record(graft::sites_of(net), "a") == nullptr);
  CHECK(graft::adapter_names(net).empty());
}

TEST_CASE("an unknown name is answered with the nearest") {
  tree::Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"head"}}, net, "shakespeare");
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, "shakespear"),
                       doctest::Contains("did you mean 'shakespeare'?"), graft::AdapterError);
}

TEST_CASE("an adapter goes with the last layer that has it; a layer that was copied in brings its own weights") {
  tree::Net net;
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"model.layers.2.self_attn.q_proj"}}, net, "a");
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"q_proj"}}, net, "b");
  CHECK(graft::detail::directory_of(graft::sites_of(net)) != nullptr);
  CHECK(graft::adapter_names(net) == Strings{"a", "b"});
  net.model.layers.pop_back();
  CHECK(graft::detail::directory_of(graft::sites_of(net)) == nullptr);
  CHECK(graft::adapter_names(net) == Strings{"b"});
  CHECK_THROWS_AS(graft::set_adapter(net, "a"), graft::AdapterError);
  net.model.layers.push_back(net.model.layers[0]);
  trained::fill(net, "b");
  graft::set_adapter(net, "b");
  const graft::ModelSites sites = graft::sites_of(net);
  CHECK(graft::detail::directory_of(sites) != nullptr);
  CHECK(graft::detail::shares_records(sites));
  CHECK(net.model.layers[0].self_attn.q_proj.parameter("b", "lora_A").data() !=
        net.model.layers[2].self_attn.q_proj.parameter("b", "lora_A").data());
}
