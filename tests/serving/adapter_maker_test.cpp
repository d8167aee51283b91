#include <graft/serving/adapter_maker.hpp>

#include <doctest/doctest.h>

#include "support/trained.hpp"

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5};
  GRAFT_MODULE(p, q)
};
}  // namespace

TEST_CASE("adapter maker: every site has a table of its own number, and weights count while somebody holds them") {
  Net net;
  graft::inject_adapter_in_model(graft::LoraConfig{.r = 2, .target_modules = {"q"}}, net, "own");
  const graft::detail::AdapterMaker maker(graft::sites_of(net));
  const graft::ModelSites sites = graft::sites_of(net);
  REQUIRE(sites.sites[0]->table());
  CHECK(sites.sites[0]->table()->number != sites.sites[1]->table()->number);
  CHECK(sites.sites[0]->table()->selected == sites.sites[1]->table()->selected);
  CHECK(graft::active_adapters(net) == std::vector<std::string>{"own"});

  Net other;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"p"}}, other, "default");
  graft::detail::AdapterSource source;
  source.config = graft::LoraConfig{.r = 3, .target_modules = {"p"}};
  source.weights = graft::get_peft_model_state_dict(other).clone();
  const auto entry = maker.read("x", source, {});
  CHECK(entry->rank == 3);
  CHECK(entry->bytes == 4 * 3 * 20);
  CHECK(maker.bytes_alive() == 0);
  auto weights = maker.make(*entry);
  CHECK(maker.bytes_alive() == entry->bytes);
  CHECK(weights->find(*sites.sites[0]->table()));
  CHECK_FALSE(weights->find(*sites.sites[1]->table()));
  weights.reset();
  CHECK(maker.bytes_alive() == 0);
}
