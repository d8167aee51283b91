#include <graft/injection/base_values.hpp>

#include <doctest/doctest.h>

#include "support/awkward_layers.hpp"

using namespace graft;

TEST_CASE("a linear weight is (out, in) whatever its layout, scalar and owner") {
  const auto values = [](const auto& net) { return detail::base_weight_values(*sites_of(net).sites[0]); };
  const awkward::Net<awkward::LinearCase<bf16>> narrow;
  CHECK(values(narrow).rows() == 7);
  CHECK(values(narrow)(2, 5) == double(float(narrow.site->weight.view()(2, 5))));
  const awkward::Net<awkward::PlainLinearCase<double>> plain;  // column-major
  CHECK(values(plain) == plain.site->kernel);
  const awkward::Net<awkward::TransposedCase<float>> transposed;
  CHECK(values(transposed) == transposed.site->kernel.transpose().cast<double>());
}

TEST_CASE("a weight with adapters merged into it is not the base's") {
  awkward::Net<awkward::LinearCase<float>> net;
  (void)inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"site"}}, net);
  const ModelSites sites = sites_of(net);
  CHECK_NOTHROW((void)detail::base_weight_view(*sites.sites[0]));
  sites.sites[0]->table()->merged = {0};
  CHECK_THROWS_AS((void)detail::base_weight_view(*sites.sites[0]), MergeError);
}

namespace {
struct Lazy {
  Adaptable<Linear<float, lazy>> site{13, 7};
  GRAFT_MODULE(site)
};
}  // namespace

TEST_CASE("a base without memory is a typed error") {
  const Lazy net;
  CHECK_THROWS_AS((void)detail::base_weight_view(*sites_of(net).sites[0]), MetaError);
}
