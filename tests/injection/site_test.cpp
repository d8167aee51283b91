#include <graft/injection/site.hpp>

#include <doctest/doctest.h>

#include "support/allocation_counter.hpp"
#include "support/laws.hpp"
#include "support/tree_model.hpp"

using graft::Index;
using graft::LoraConfig;

namespace {

/// 224 sites of 4096², as 32 layers of a 7B model have. The base weights have no memory either.
struct Wide {
  std::vector<graft::Adaptable<graft::Linear<float, graft::lazy>>> projections;
  Wide() {
    projections.reserve(224);
    for (int i = 0; i < 224; ++i) projections.emplace_back(4096, 4096, false);
  }
  GRAFT_MODULE(projections)
};

/// A forward that was made before asks the heap for nothing: through Rows, and through the engine's door.
template <class Case, template <class> class Method>
void warm_forward_allocates_nothing() {
  const awkward::Net<Case> net = laws::adapted_net<Case, Method>();
  const auto x = Case::input(6);
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"a", 1}})).add(1, graft::base_only()).add(3);
  using T = typename Case::Scalar;
  graft::Matrix<T> y;
  {
    const auto input = batch.input(x);
    y = net(input).value();
    net.site(x, batch, y);
    net.site.update(batch, x, y);
    CHECK(support::allocations_of([&] { (void)net(input); }) == 0);
  }
  CHECK(support::allocations_of([&] { net.site(x, batch, y); }) == 0);
  CHECK(support::allocations_of([&] { net.site.update(batch, x, y); }) == 0);
}

/// Holds itself, at first once removed.
struct Ring {
  std::shared_ptr<Ring> next;
  GRAFT_MODULE(next)
};

}  // namespace

TEST_CASE("second names are kept with their places, but not those of what holds itself") {
  struct Names {
    std::string text;
    explicit Names(const graft::ModelSites& all) {
      for (const graft::SecondName& name : all.second_names)
        text += name.path + " is " + name.first + " at " + std::to_string(name.sites_before) + ' ' + std::to_string(name.plain_before) + '\n';
    }
  };
  using Site = graft::Adaptable<graft::Linear<>>;
  const auto plain = std::make_shared<graft::Linear<>>(2, 2);
  const auto site = std::make_shared<Site>(2, 2);
  std::tuple<std::shared_ptr<Site>, std::shared_ptr<graft::Linear<>>, std::shared_ptr<Site>, Site, std::shared_ptr<graft::Linear<>>> net{
      site, plain, site, Site(2, 2), plain};
  CHECK(Names(graft::sites_of(net)).text == "2 is 0 at 1 2\n4 is 1 at 2 2\n");

  auto ring = std::make_shared<Ring>();
  ring->next = std::make_shared<Ring>();
  ring->next->next = ring;
  CHECK(Names(graft::sites_of(*ring)).text.empty());
  ring->next->next.reset();
}

TEST_CASE("a model is read once: nodes, sites and the tensors outside of sites, in order") {
  tree::Partly net;
  const graft::ModelSites all = graft::sites_of(net);
  REQUIRE(all.sites.size() == 2);
  CHECK(all.sites[0]->path() == "first");
  CHECK(all.sites[1]->path() == "scaled");
  CHECK(all.sites[0]->facts().in == 3);
  CHECK(all.sites[0]->lists(graft::PeftType::adalora));
  CHECK_FALSE(all.sites[1]->lists(graft::PeftType::adalora));
  CHECK(all.sites[1]->permits(graft::PeftType::ia3));
  CHECK(all.sites[0]->table() == nullptr);
  std::vector<std::string> plain;
  for (const auto& tensor : all.plain) plain.push_back(tensor.key);
  CHECK(plain == std::vector<std::string>{"plain.weight", "plain.bias", "norm.weight", "norm.bias"});
  CHECK(all.plain_before == std::vector<std::size_t>{0, 4});
}

TEST_CASE("an injection on the meta device asks for no parameter memory") {
  Wide net;
  const LoraConfig config{.r = 64, .target_modules = graft::all_linear};
  const auto inject = [&] {
    (void)graft::inject_adapter_in_model(config, net, "default", {.low_cpu_mem_usage = true});
  };
  // 224 · 64 · 8192 floats would be 470 MB
  const std::size_t bytes = support::bytes_of(inject);
  CHECK(bytes < 4'000'000);
  CHECK(bytes > 10'000);
  CHECK(net.projections[223].parameter("default", "lora_A").device() == graft::Device::meta);
  CHECK(net.projections[223].parameter("default", "lora_A").shape() == std::vector<Index>{64, 4096});
  CHECK(support::bytes_of([&] { CHECK(graft::get_peft_model_state_dict(net).size() == 448); }) < 4'000'000);
}

TEST_CASE("loading takes the memory of a dictionary over") {
  Wide full, meta;
  const LoraConfig config{.r = 2, .target_modules = {"7", "17"}};
  (void)graft::inject_adapter_in_model(config, full);
  const graft::StateDict owned = graft::get_peft_model_state_dict(full).clone();
  (void)graft::inject_adapter_in_model(config, meta, "default", {.low_cpu_mem_usage = true});
  const auto load = [&] {
    (void)graft::set_peft_model_state_dict(meta, owned, "default", {.low_cpu_mem_usage = true});
  };
  CHECK(support::bytes_of(load) < 500'000);
  CHECK(meta.projections[17].parameter("default", "lora_B").data() ==
        owned.at("projections.17.lora_B.weight").data);
}

TEST_CASE("a warm forward allocates nothing") {
  warm_forward_allocates_nothing<awkward::LinearCase<float>, laws::LoraMethod>();
  warm_forward_allocates_nothing<awkward::LinearCase<graft::bf16>, laws::AdaLoraMethod>();
  warm_forward_allocates_nothing<awkward::LinearCase<double>, laws::Ia3FeedforwardMethod>();
  warm_forward_allocates_nothing<awkward::EmbeddingCase<float>, laws::LoraMethod>();
  warm_forward_allocates_nothing<awkward::GroupedConv2dCase<float>, laws::LoraMethod>();
  warm_forward_allocates_nothing<awkward::Conv2dCase<float>, laws::AdaLoraMethod>();
  warm_forward_allocates_nothing<awkward::Conv3dCase<float>, laws::Ia3Method>();
}

namespace {
/// A layer that can be moved only, as one that owns a mapped file is.
struct Owner {
  std::unique_ptr<graft::Matrix<>> weight = std::make_unique<graft::Matrix<>>(graft::Matrix<>::Identity(3, 3));
  graft::Matrix<> operator()(const graft::Matrix<>& x) const { return x * weight->transpose(); }
};
/// A layer whose copies look at the same memory.
struct Borrower {
  std::shared_ptr<graft::Matrix<>> weight = std::make_shared<graft::Matrix<>>(graft::Matrix<>::Identity(3, 3));
  graft::Matrix<> operator()(const graft::Matrix<>& x) const { return x * weight->transpose(); }
};
template <class L>
struct OneSite {
  graft::Adaptable<L> site;
  graft::Adaptable<graft::Linear<>> other{3, 3};
  const graft::Adaptable<graft::Linear<>> frozen{3, 3};
  GRAFT_MODULE(site, other, frozen)
};
template <class L>
struct PointerTraits {
  static constexpr graft::LayerKind kind = graft::LayerKind::linear;
  using scalar = float;
  static graft::Index in_features(const L&) { return 3; }
  static graft::Index out_features(const L&) { return 3; }
  static auto& weight(const L& layer) { return *layer.weight; }
};
}  // namespace
template <>
struct graft::layer_traits<Owner> : PointerTraits<Owner> {};
template <>
struct graft::layer_traits<Borrower> : PointerTraits<Borrower> {};

TEST_CASE("a layer that cannot be copied takes adapters, and no modules_to_save") {
  OneSite<Owner> model;
  const graft::LoraConfig config{.r = 2, .target_modules = {"site"}, .init_lora_weights = false};
  graft::inject_adapter_in_model(config, model);
  const OneSite<Owner> moved = std::move(model);
  const graft::Matrix<> x = graft::Matrix<>::Ones(2, 3);
  CHECK((moved.site(x) - x).norm() > 1e-3f);
  OneSite<Owner> other;
  CHECK_THROWS_WITH_AS(graft::inject_adapter_in_model(
                           graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, other),
                       doctest::Contains("cannot be copied"), graft::TargetError);
}

TEST_CASE("a copy that would share the weight of its original is refused, and nothing has changed") {
  OneSite<Borrower> model;
  CHECK_THROWS_AS(graft::inject_adapter_in_model(
                      graft::LoraConfig{.target_modules = {"other"}, .modules_to_save = {"site"}}, model),
                  graft::AdapterError);
  CHECK(graft::adapter_names(model).empty());
}

TEST_CASE("a const site is a plain layer") {
  OneSite<Owner> model;
  const auto report = graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = graft::all_linear}, model);
  CHECK(report.matched.size() == 2);
  CHECK(report.without_room == std::vector<std::string>{"frozen"});
  CHECK(graft::get_base_model_state_dict(model).keys() ==
        std::vector<std::string>{"site.weight", "other.weight", "other.bias", "frozen.weight", "frozen.bias"});
  graft::StateDict state = graft::get_base_model_state_dict(model).clone();
  CHECK_THROWS_WITH_AS(graft::set_base_model_state_dict(model, state), doctest::Contains("can only be read"),
                       graft::StateDictError);
  state.erase("frozen.weight");
  state.erase("frozen.bias");
  CHECK(graft::set_base_model_state_dict(model, state, {.strict = false}).loaded ==
        std::vector<std::string>{"site.weight", "other.weight", "other.bias"});
}
