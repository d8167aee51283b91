#include <graft/state_dict/site_factors.hpp>

#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using graft::Matrix;

namespace {
template <class Case>
std::optional<graft::detail::SiteFactors<>> factors(const awkward::Net<Case>& net, const char* name = "a") {
  const graft::ModelSites sites = graft::sites_of(net);
  return graft::detail::factors_at(*sites.sites[0], *graft::detail::need_record(sites, name));
}
}  // namespace

TEST_CASE("an adapter as matrices: its scale, its strength, and AdaLoRA's E in A") {
  awkward::Net<awkward::LinearCase<double>> net;
  trained::inject(LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"site"}, .lora_bias = true}, net,
                  "a", 1);
  trained::inject(graft::AdaLoraConfig{.init_r = 3, .lora_alpha = 5, .target_modules = {"site"}}, net, "ada",
                  2);
  graft::set_scale(net, "a", 0.5);
  const auto lora = factors(net);
  REQUIRE(lora);
  CHECK(lora->scale == doctest::Approx(7.0 / 6));
  CHECK(lora->product.a == derived::matrix(net.site, "a", "A"));
  CHECK(lora->product.b == derived::matrix(net.site, "a", "B"));
  CHECK(lora->beta.cols() == 7);
  const auto ada = factors(net, "ada");
  REQUIRE(ada);
  CHECK(ada->scale == doctest::Approx(5 / (3 + 1e-5)));
  const auto e = net.site.parameter("ada", "lora_E").view<double>();
  CHECK(ada->product.a.row(1) == e(1, 0) * derived::matrix(net.site, "ada", "A").row(1));
  CHECK(ada->beta.size() == 0);
}

TEST_CASE("matrices go back into a state dict under the keys and shapes of the layer") {
  const graft::detail::SiteFactors<> none;
  const auto shapes = [](const auto& net, graft::Index r, graft::Index out, graft::Index width,
                         graft::Index groups) {
    graft::StateDict tensors;
    graft::detail::insert_factors<double>(
        tensors, *graft::sites_of(net).sites[0],
        {Matrix<double>::Ones(out, r / groups), Matrix<double>::Ones(r, width)});
    std::string text;
    for (const auto& [key, view] : tensors)
      text += key + graft::to_string(std::span<const graft::Index>(view.shape));
    return text;
  };
  CHECK(shapes(awkward::Net<awkward::LinearCase<double>>{}, 3, 7, 13, 1) ==
        "site.lora_A.weight(3, 13)site.lora_B.weight(7, 3)");
  CHECK(shapes(awkward::Net<awkward::LookupCase<float>>{}, 3, 7, 13, 1) ==
        "site.lora_embedding_A(3, 13)site.lora_embedding_B(7, 3)");
  CHECK(shapes(awkward::Net<awkward::GroupedConv2dCase<float>>{}, 4, 6, 24, 2) ==
        "site.lora_A.weight(4, 4, 3, 2)site.lora_B.weight(6, 2, 1, 1)");
}

TEST_CASE("what has no such matrices is a typed error") {
  awkward::Net<awkward::EmbeddingCase<float>> cut;  // with max_norm
  trained::inject(LoraConfig{.r = 3, .target_modules = {"site"}}, cut, "a", 1);
  CHECK_THROWS_AS((void)factors(cut), graft::AdapterError);
  awkward::Net<awkward::LinearCase<float>> meta;
  (void)graft::inject_adapter_in_model(LoraConfig{.r = 3, .target_modules = {"site"}}, meta, "a",
                                       {.low_cpu_mem_usage = true});
  CHECK_THROWS_AS((void)factors(meta), graft::MetaError);
}
