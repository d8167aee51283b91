#include <graft/factorise.hpp>

#include <graft/io.hpp>

#include "io/temporary_directory.hpp"
#include "support/awkward_layers.hpp"
#include "support/derived_values.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Index;
using graft::LoraConfig;
using graft::Matrix;

namespace {

template <class Layer>
auto recorded(const std::string& tag) {
  const auto weight = derived::values(tag + "weight");
  constexpr bool is_transposed = std::is_same_v<Layer, awkward::StoredTransposed<float>>;
  derived::One<Layer> net{std::in_place, is_transposed ? weight.rows() : weight.cols(),
                          is_transposed ? weight.cols() : weight.rows()};
  if constexpr (is_transposed) {
    net.lin->kernel = weight.cast<float>();
  } else {
    net.lin->weight.view() = weight.cast<float>();
    net.lin->bias.view() = derived::values(tag + "bias").cast<float>();
  }
  return net;
}

/// PEFT takes the start out of the base; here the base stays, and everything else is the same.
template <class Layer>
void equals_peft(const std::string& kind, const char* scheme, bool rslora, bool dora = false) {
  const std::string tag = kind + "." + scheme + (rslora ? ".rslora." : ".");
  CAPTURE(tag);
  constexpr double tolerance = 2e-5;  // PEFT's SVD and QR are float's, of weights up to 3
  auto net = recorded<Layer>(tag);
  const Matrix<float> x = derived::values(tag + "x").cast<float>();
  const auto base = net(x);
  const std::string bytes = results::bytes_of(graft::get_base_model_state_dict(net));
  const LoraConfig config{.r = 3,
                          .lora_alpha = 5,
                          .target_modules = {"lin"},
                          .use_rslora = rslora,
                          .use_dora = dora,
                          .init_lora_weights = scheme};
  const double scaling = rslora ? 5 / std::sqrt(3.0) : 5.0 / 3;
  (void)graft::inject_adapter_in_model(config, net);
  CHECK(derived::error(scaling * derived::product(net.lin, "default"), derived::values(tag + "start")) <
        tolerance);
  CHECK(results::same_values(net(x), base));

  for (const char* letter : {"A", "B"})
    derived::write(net.lin.parameter("default", std::string("lora_") + letter),
                   derived::values(tag + letter));
  derived::Values expected = derived::values(tag + (dora ? "dora.y" : "y"));
  if (dora) {
    const auto magnitude = net.lin.parameter("default", "lora_magnitude_vector");
    CHECK(derived::error(magnitude.template view<float>().template cast<double>(), derived::values(tag + "dora.start")) <
          tolerance);
    derived::write(magnitude, derived::values(tag + "dora.magnitude"));
  }
  if (kind == "transposed")
    expected.rowwise() -= derived::values(tag + "bias").row(0);  // the layer here has none
  const auto y = net(x);
  CHECK(derived::error(y.template cast<double>(), expected) < tolerance);
  REQUIRE_FALSE(results::same_values(y, base));
  CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) == bytes);

  // the weights alone, as a file has them, into memory that was never filled
  auto loaded = recorded<Layer>(tag);
  (void)graft::inject_adapter_in_model(config, loaded, "default", {.low_cpu_mem_usage = true});
  (void)graft::set_peft_model_state_dict(loaded, graft::get_peft_model_state_dict(net));
  CHECK(results::same_bits(loaded(x), y));
  const auto copy = loaded;
  CHECK(results::same_bits(copy(x), y));
  {
    const auto off = graft::disable_adapter(loaded);
    CHECK(results::same_bits(loaded(x), base));
  }
  // the whole update has a strength, so that 0 is the base; DoRA's magnitudes stay
  graft::set_scale(loaded, "default", 0);
  CHECK(results::same_values(loaded(x), base) != dora);

  // folded into the weight: B·A and what is subtracted, at once
  (void)graft::merge_adapter(net);
  CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) != bytes);
  CHECK(derived::error(net(x).template cast<double>(), expected) < tolerance);
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(config, net, "second", {.activate = false}),
                  graft::MergeError);
  (void)graft::unmerge_adapter(net);
  CHECK(results::same_values(net(x), y));

  // as the plain adapter of twice the rank that any base takes
  (void)graft::subtract_mutated_init(net, "default", "plain");
  graft::set_adapter(net, "plain");
  CHECK(derived::error(net(x).template cast<double>(), expected) < tolerance);
}

}  // namespace

TEST_CASE("PiSSA and OLoRA equal PEFT, and leave the base alone") {
  for (const bool rslora : {false, true}) {
    for (const char* scheme : {"pissa", "olora"}) {
      equals_peft<graft::Linear<>>("linear", scheme, rslora);
      equals_peft<graft::Linear<>>("tall", scheme, rslora);
    }
    equals_peft<awkward::StoredTransposed<float>>("transposed", "pissa", rslora);
  }
}

TEST_CASE("DoRA over PiSSA and OLoRA equals PEFT") {
  for (const bool rslora : {false, true})
    for (const char* scheme : {"pissa", "olora"}) equals_peft<graft::Linear<>>("linear", scheme, rslora, true);
}

TEST_CASE("OLoRA respects the layout of a weight, which PEFT does not") {
  using Case = awkward::TransposedCase<double>;
  awkward::Net<Case> net;
  const auto x = Case::input(4);
  const auto base = net(x);
  (void)graft::inject_adapter_in_model(
      LoraConfig{.r = 3, .lora_alpha = 5, .target_modules = {"site"}, .init_lora_weights = "olora"}, net);
  CHECK(results::same_values(net(x), base));
}

TEST_CASE("starts that are random come of the seed; all of them leave the outputs alone") {
  using Case = awkward::LinearCase<double>;
  const auto x = Case::input(4);
  const auto base = awkward::Net<Case>{}(x);
  for (const char* scheme : {"pissa_niter_2", "orthogonal", "eva"}) {
    CAPTURE(scheme);
    const LoraConfig config{.r = 4, .lora_alpha = 5, .target_modules = {"site"}, .init_lora_weights = scheme};
    awkward::Net<Case> first, again, other;
    (void)graft::inject_adapter_in_model(config, first, "default", {.seed = 1});
    (void)graft::inject_adapter_in_model(config, again, "default", {.seed = 1});
    (void)graft::inject_adapter_in_model(config, other, "default", {.seed = 2});
    CHECK(results::same_values(first(x), base));
    CHECK(results::everything(first) == results::everything(again));
    CHECK(results::everything(first) != results::everything(other));
    CHECK(first.site.parameter("default", "lora_A").view<double>().norm() > 0.1);
    CHECK((first.site.parameter("default", "lora_B").view<double>().norm() > 0.1) ==
          (std::string(scheme) != "eva"));
    CHECK(first.site.parameter("default", "lora_A").requires_grad());
  }
}

TEST_CASE("a weight that is not finite is an error before anything changes") {
  awkward::Net<awkward::LinearCase<float>> net;
  net.site->weight.view()(2, 3) = std::numeric_limits<float>::infinity();
  const std::string before = results::everything(net);
  CHECK_THROWS_AS((void)graft::inject_adapter_in_model(
                      LoraConfig{.r = 3, .target_modules = {"site"}, .init_lora_weights = "pissa"}, net),
                  graft::AdapterError);
  CHECK(results::everything(net) == before);
}

TEST_CASE(
    "a file that names PiSSA or OLoRA is the adapter that was saved; one with a random start is refused") {
  using Case = awkward::LinearCase<float>;
  const auto x = Case::input(4);
  for (const char* scheme : {"pissa", "olora"}) {
    const TemporaryDirectory dir;
    awkward::Net<Case> net, loaded;
    trained::inject(
        LoraConfig{.r = 3, .lora_alpha = 5, .target_modules = {"site"}, .init_lora_weights = scheme}, net,
        "default", 6);
    (void)graft::save_pretrained(net, dir.path());
    (void)graft::load_adapter(loaded, dir.path());
    CHECK(results::same_bits(loaded(x), net(x)));
    REQUIRE_FALSE(results::same_values(net(x), awkward::Net<Case>{}(x)));
  }
  const TemporaryDirectory dir;
  awkward::Net<Case> net;
  LoraConfig config{
      .r = 3, .lora_alpha = 5, .target_modules = {"site"}, .init_lora_weights = "pissa_niter_4"};
  trained::inject(config, net, "default", 6);
  const auto y = net(x);
  CHECK_THROWS_AS((void)graft::save_pretrained(net, dir.path()), graft::AdapterError);
  (void)graft::subtract_mutated_init(net, "default", "plain");
  awkward::Net<Case> loaded;
  (void)graft::load_adapter(loaded, graft::save_pretrained(net, dir.path(), "plain"));
  CHECK(results::same_values(loaded(x), y));
}
