#include <graft/adapters/fold.hpp>

#include "support/laws.hpp"

namespace {
struct Net {
  graft::Adaptable<graft::Linear<float>> p{13, 200};  // more rows than one block holds
  graft::Adaptable<graft::Linear<float>> wide{9000, 30};
  GRAFT_MODULE(p, wide)
};
}  // namespace

TEST_CASE("block by block: the same bits as in one piece, there and back") {
  Net net;
  awkward::fill<float>(net.wide->weight.untyped(), 1);
  for (const char* name : {"a", "b"})
    trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"wide"}}, net, name, *name);
  const graft::ModelSites sites = graft::sites_of(net);
  const graft::SiteTable& table = *sites.sites[1]->table();
  const auto door = sites.sites[1]->door();
  const graft::Matrix<float> before = std::as_const(net.wide->weight).view();
  graft::Matrix<float> delta = graft::Matrix<float>::Zero(30, 9000);
  for (const graft::SiteEntry& entry : table.entries)
    static_cast<const graft::AdapterState<float>*>(entry.state())->add_delta(0, graft::out(delta), 1, nullptr);
  std::optional<graft::WeightBound> bound;
  graft::Workspace workspace;
  const auto fold = graft::detail::make_fold(*door, graft::Dtype::f32, bound, {&table.entries[0], &table.entries[1]}, workspace);
  CHECK(fold->stays_finite());
  CHECK(results::same_bits(graft::Matrix<float>(std::as_const(net.wide->weight).view()), before));
  fold->fold_weight();
  const graft::Matrix<float> merged = std::as_const(net.wide->weight).view();
  CHECK(results::same_bits(merged, graft::Matrix<float>(before + delta)));
  CHECK_FALSE(results::same_values(merged, before));
  fold->subtract();
  CHECK(results::same_bits(graft::Matrix<float>(std::as_const(net.wide->weight).view()), graft::Matrix<float>(merged - delta)));
}

TEST_CASE("an adapter's parameters have another mark when one bit of them changes") {
  Net net;
  trained::inject(graft::LoraConfig{.r = 3, .target_modules = {"p"}}, net, "a");
  const graft::ModelSites sites = graft::sites_of(net);
  graft::AnyAdapterState& state = *sites.sites[0]->table()->find("a")->state();
  const std::uint64_t mark = graft::detail::mark_of(state);
  CHECK(graft::detail::mark_of(state) == mark);
  for (const graft::AdapterParameter& parameter : state.parameters()) {
    std::byte& last = parameter.data->data()[parameter.data->bytes() - 1];
    last ^= std::byte{1};
    CHECK(graft::detail::mark_of(state) != mark);
    last ^= std::byte{1};
  }
  CHECK(graft::detail::mark_of(state) == mark);
}
