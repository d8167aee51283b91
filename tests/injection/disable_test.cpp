#include <graft/injection/disable.hpp>

#include "support/merging.hpp"

using results::same_bits;

TEST_CASE("scopes nest, and merged adapters are out in all of them") {
  using Case = awkward::LinearCase<double>;
  const auto x = Case::input(4);
  const auto base = awkward::Net<Case>{}(x);
  for (const bool is_merged : {false, true}) {
    auto net = merging::two_active<Case, laws::AdaLoraMethod>();
    const std::string plain = merging::everything(net);
    if (is_merged) (void)graft::merge_adapter(net, "b", {.unmerge = graft::Unmerge::backup});
    const std::string before = merging::everything(net);
    const auto y = net(x);
    {
      const auto outer = graft::disable_adapter(net);
      CHECK(same_bits(net(x), base));
      {
        const auto inner = graft::disable_adapter(net);
        CHECK(same_bits(net(x), base));
      }
      CHECK(same_bits(net(x), base));
      if (is_merged) {
        CHECK_THROWS_AS((void)graft::merge_adapter(net, "a"), graft::MergeError);
        CHECK_THROWS_AS((void)graft::unmerge_adapter(net), graft::MergeError);
        CHECK(same_bits(net(x), base));
      }
    }
    CHECK(merging::everything(net) == before);
    CHECK(same_bits(net(x), y));
    (void)graft::unmerge_adapter(net);
    CHECK(merging::everything(net) == plain);
  }
}

TEST_CASE("without a kept weight a merged model cannot be disabled, and stays as it is") {
  auto net = merging::two_active<awkward::PlainLinearCase<float>, laws::AdaLoraMethod>();
  (void)graft::merge_adapter(net, "b");
  const std::string before = merging::everything(net);
  CHECK_THROWS_WITH_AS((void)graft::disable_adapter(net), doctest::Contains("Unmerge::backup"), graft::MergeError);
  CHECK(merging::everything(net) == before);
}
