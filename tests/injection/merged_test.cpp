#include <graft/injection/merged.hpp>

#include "support/merging.hpp"

TEST_CASE("which adapters are merged, and what that forbids") {
  auto net = merging::two_active<awkward::LinearCase<double>, laws::Ia3Method>();
  const graft::ModelSites sites = graft::sites_of(net);
  const auto record = graft::detail::need_record(sites, "a");
  CHECK(graft::detail::merged_of(sites).empty());
  CHECK_NOTHROW(graft::detail::check_none_merged(sites, "verb"));
  (void)graft::merge_adapter(net, "a");
  CHECK(graft::detail::merged_of(sites) == std::vector<unsigned>{record->id});
  CHECK(graft::detail::is_merged(sites, record->id));
  CHECK_FALSE(graft::detail::is_merged(sites, record->id + 1));
  CHECK_THROWS_WITH_AS(graft::detail::check_not_merged(sites, *record, "some_verb"), doctest::Contains("some_verb"), graft::MergeError);
  CHECK_THROWS_AS(graft::detail::check_none_merged(sites, "verb"), graft::MergeError);
  CHECK_THROWS_AS(graft::detail::check_selection(sites, {}, "verb"), graft::MergeError);
  CHECK_NOTHROW(graft::detail::check_selection(sites, {1, 0}, "verb"));
  CHECK_THROWS_AS(graft::detail::check_base_is_pristine(sites.sites[0]->table(), "verb"), graft::MergeError);
  CHECK_NOTHROW(graft::detail::check_base_is_pristine(nullptr, "verb"));
  CHECK_NOTHROW(graft::detail::check_swap_out(sites));  // what scales is kept by itself
}
