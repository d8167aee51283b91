#include <graft/injection/control.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>

#include <graft/state_dict/status.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"
#include "support/tree_model.hpp"

using graft::LoraConfig;
using graft::Matrix;
using results::everything;
using results::same_bits;
using Strings = std::vector<std::string>;

namespace {

/// A site, and a plain layer whose bias bias = all trains too.
struct Net {
  graft::Adaptable<graft::Linear<>> p{3, 3}, head{3, 2};
  graft::Linear<> plain{3, 3};
  auto operator()(const auto& x) const { return head(plain(p(x))); }
  GRAFT_MODULE(p, head, plain)
};
Net filled() {
  Net net;
  int seed = 1;
  for (auto* layer : {&net.p.base_layer(), &net.head.base_layer(), &net.plain}) {
    awkward::fill<float>(layer->weight.untyped(), seed++);
    awkward::fill<float>(layer->bias.untyped(), seed++);
  }
  return net;
}
const LoraConfig biased{
    .r = 2, .bias = graft::Bias::all, .target_modules = {"p"}, .modules_to_save = {"head"}};
const LoraConfig simple{.r = 2, .target_modules = {"p"}};
const Matrix<float> x = awkward::rows<float>(4, 3);

Net two() {
  Net net = filled();
  trained::inject(biased, net, "a", 20);
  trained::inject(simple, net, "b", 21);
  return net;
}
Matrix<float> of(Net& net, const graft::Names& names) {
  graft::set_adapter(net, names);
  return net(x);
}

}  // namespace

TEST_CASE("names are one, a list, a vector, or nothing") {
  CHECK_FALSE(graft::Names{}.is_given());
  CHECK(graft::Names("a").list() == Strings{"a"});
  CHECK(graft::Names(std::string_view("a")).list() == Strings{"a"});
  CHECK(graft::Names{"a", "b"}.list() == Strings{"a", "b"});
  CHECK(graft::Names(Strings{}).is_given());
  CHECK(graft::Names(Strings{}).list().empty());
}

TEST_CASE("switching restores each adapter's biases and copies, also those in plain layers") {
  Net net = two();
  const Matrix<float> base = filled()(x), a = of(net, "a"), b = of(net, "b");
  CHECK_FALSE(results::same_values(a, base));
  CHECK_FALSE(results::same_values(b, base));
  CHECK_FALSE(results::same_values(a, b));
  for (int round = 0; round < 3; ++round) {
    CHECK(same_bits(of(net, "a"), a));
    CHECK(same_bits(of(net, {}), base));
    CHECK(same_bits(of(net, "b"), b));
  }
  (void)of(net, {"a", "b"});
  CHECK(graft::active_adapters(net) == Strings{"a", "b"});
  CHECK(same_bits(of(net, Strings{}), base));
  graft::delete_adapter(net, "a");
  CHECK(same_bits(net(x), base));
  CHECK(results::bytes_of(graft::get_base_model_state_dict(net)) ==
        results::bytes_of(graft::get_base_model_state_dict(filled())));
}

TEST_CASE("disabled is the base, bit for bit, whatever happens meanwhile") {
  Net net = two();
  const Matrix<float> base = filled()(x), a = of(net, "a"), b = of(net, "b");
  graft::set_adapter(net, "a");
  const std::string before = everything(net);
  {
    const auto outer = graft::disable_adapter(net);
    CHECK(same_bits(net(x), base));
    {
      const auto inner = graft::disable_adapter(net);
      CHECK(same_bits(net(x), base));
    }
    CHECK(same_bits(net(x), base));
    CHECK(graft::active_adapters(net) == Strings{"a"});
  }
  CHECK(everything(net) == before);
  CHECK(same_bits(net(x), a));
  {
    const auto off = graft::disable_adapter(net);
    graft::set_adapter(net, "b");
    CHECK(same_bits(net(x), base));
    graft::set_adapter(net, "a");
    CHECK(same_bits(net(x), base));
    graft::set_adapter(net, "b");
  }
  CHECK(same_bits(net(x), b));
  graft::set_adapter(net, "a");
  {
    const auto off = graft::disable_adapter(net);
    graft::delete_adapter(net, "a");
    CHECK(same_bits(net(x), base));
  }
  CHECK(same_bits(net(x), b));  // which deleting made active
}

TEST_CASE("what is injected while disabled acts afterwards") {
  Net net = filled();
  const Matrix<float> base = net(x);
  {
    const auto off = graft::disable_adapter(net);
    trained::inject(biased, net, "late");
  }
  CHECK_FALSE(results::same_values(net(x), base));
  CHECK(graft::active_adapters(net) == Strings{"late"});
  Net other = two();
  {
    const auto off = graft::disable_adapter(other);
    {
      const auto inner = graft::disable_adapter(other);
      trained::inject(LoraConfig{.target_modules = {"head"}}, other, "late");
      CHECK(same_bits(other(x), base));
    }
    CHECK(same_bits(other(x), base));
  }
  CHECK_FALSE(results::same_values(other(x), base));
}

TEST_CASE("a guard that was moved restores once") {
  Net net = two();
  const Matrix<float> b = net(x), base = filled()(x);
  {
    auto first = graft::disable_adapter(net);
    const auto second = std::move(first);
    CHECK(same_bits(net(x), base));
  }
  CHECK(same_bits(net(x), b));
}

namespace {
struct Twin {
  graft::Adaptable<graft::Linear<double>> p{5, 4};
  GRAFT_MODULE(p)

  Twin(const graft::PeftConfig& config, int salt = 4) {
    support::fill_ramp(p->weight.view(), 1);
    support::fill_ramp(p->bias.view(), 2);
    add(config, "a", salt);
  }
  void add(const graft::PeftConfig& config, const char* name, int salt) {
    (void)graft::inject_adapter_in_model(config, *this, name, {.activate = false});
    for (const char* parameter : {"lora_A", "lora_B", "lora_magnitude_vector", "ia3_l", "lora_E"}) {
      for (const auto& [key, view] : graft::state_dict(*this))
        if (key.starts_with(std::string("p.") + parameter + "." + name)) support::fill_ramp(p.parameter(name, parameter).view<double>(), salt);
      ++salt;
    }
  }
  Matrix<double> of(const graft::Names& names) {
    graft::set_adapter(*this, names);
    return p(input);
  }
  const Matrix<double> input = support::ramp<double>(2, 5, 3);
};
}  // namespace

// Every number is what PEFT 0.21.2 computes with the same values.
TEST_CASE("an adapter that is named twice is added twice, by every method") {
  const auto is = [](const Matrix<double>& y, const std::vector<double>& expected) { return support::close(y, expected, 1e-12); };
  const LoraConfig lora{.r = 3, .lora_alpha = 6, .target_modules = {"p"}};
  Twin two(lora);
  two.add(LoraConfig{.r = 2, .lora_alpha = 2, .target_modules = {"p"}}, "b", 6);
  CHECK(is(two.of({"a", "b", "a"}), {12.263671875, 3.544921875, 6.8203125, 1.380859375, 11.21484375, 4.037109375, 6.787109375, 2.21484375}));
  CHECK(graft::active_adapters(two) == Strings{"a", "b", "a"});
  CHECK(graft::get_layer_status(two)[0].active_adapters == Strings{"a", "b", "a"});

  LoraConfig other = lora;
  other.use_dora = true;
  CHECK(is(Twin(other).of({"a", "a"}), {2.291599119943223, 0.25, -1.6736918275873587, 0.8147619604608561,  //
                                        2.1832239344395536, 0.25, -1.6982563161134532, 0.8604285347057968}));
  CHECK(is(Twin(graft::Ia3Config{.target_modules = {"p"}, .feedforward_modules = {"p"}}).of({"a", "a"}),
           {5.369140625, 3.998291015625, 0.151123046875, 1.6552734375, 5.179931640625, 3.86572265625, -0.199951171875, 1.36083984375}));
  CHECK(is(Twin(graft::AdaLoraConfig{.init_r = 3, .target_r = 2, .lora_alpha = 6, .target_modules = {"p"}}).of({"a", "a"}),
           {8.007801848993836, 8.726545546931511, 3.6952976302578993, -14.812447500174999,  //
            8.268543271522429, 8.400375123749587, 2.669909850300499, -15.099556230645897}));

  SUBCASE("merged too") {
    const Matrix<double> weight = two.p->weight.view(), before = two.p(two.input);
    CHECK(graft::merge_adapter(two, "a").merged_adapters == Strings{"a"});
    CHECK(graft::get_layer_status(two)[0].merged_adapters == Strings{"a", "a"});
    CHECK(is(two.p(two.input), {before.data(), before.data() + before.size()}));
    (void)graft::merge_adapter(two);
    CHECK(graft::get_layer_status(two)[0].merged_adapters == Strings{"a", "a", "b"});
    CHECK(is(two.p.base_layer()(two.input), {before.data(), before.data() + before.size()}));
    CHECK_THROWS_WITH_AS(graft::set_adapter(two, {"a", "b"}), doctest::Contains("another number of times"), graft::MergeError);
    CHECK_NOTHROW(graft::set_adapter(two, {"a", "a", "b"}));
    (void)graft::unmerge_adapter(two);
    CHECK((two.p->weight.view() - weight).cwiseAbs().maxCoeff() == 0);  // multiples of 1/8
    (void)graft::merge_and_unload(two);
    CHECK(is(two.p(two.input), {before.data(), before.data() + before.size()}));
  }
  SUBCASE("its bias takes the place of the layer's once") {
    other = lora;
    other.bias = graft::Bias::lora_only;
    Twin net(other);
    graft::set_adapter(net, "a");
    graft::StateDict bias;
    const Matrix<double> values = support::ramp<double>(1, 4, 9);
    bias.insert("p.base_layer.bias", {graft::Dtype::f64, {4}, reinterpret_cast<const std::byte*>(values.data()), nullptr});
    (void)graft::set_peft_model_state_dict(net, bias, "a", {.strict = false});
    const std::vector<double> expected{12.109375, 3.46875, 8.84375, -2.1328125, 10.9375, 4.0390625, 8.8203125, -1.3125};
    CHECK(is(net.of({"a", "a"}), expected));
    graft::Batch batch;
    batch.add(2, graft::select(net, {{"a"}, {"a"}}));
    CHECK(is(net.p(net.input, batch), expected));
    (void)graft::merge_adapter(net);
    CHECK(is(net.p(net.input), expected));
  }
  SUBCASE("deleting it takes both out") {
    graft::set_adapter(two, {"a", "a"});
    CHECK(graft::delete_adapter(two, "a") == Strings{"b"});
    two.add(lora, "a", 4);
    graft::set_adapter(two, {"a", "b", "a"});
    CHECK(graft::delete_adapter(two, "a") == Strings{"b"});
  }
  SUBCASE("what replaces a module cannot be named twice, as in PEFT") {
    Net net = ::two();
    CHECK_THROWS_AS(graft::set_adapter(net, {"a", "a"}), graft::AdapterError);
  }
}

TEST_CASE("unknown names are errors that name what is there, and change nothing") {
  Net net = two();
  const std::string before = everything(net);
  const auto refuse = [&](auto verb) {
    CHECK_THROWS_AS(verb(), graft::AdapterError);
    CHECK(everything(net) == before);
  };
  refuse([&] { graft::set_adapter(net, "c"); });
  refuse([&] { graft::set_adapter(net, {"a", "c"}); });
  refuse([&] { graft::delete_adapter(net, "c"); });
  refuse([&] { graft::set_scale(net, "c", 2); });
  refuse([&] { graft::set_scale(net, "a", std::nan("")); });
  refuse([&] { (void)graft::select(net, {{"a", HUGE_VAL}}); });
  refuse([&] { graft::set_requires_grad(net, {"a", "c"}, false); });
  refuse([&] { (void)graft::select(net, {{"a"}, {"c"}}); });
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, "c"), doctest::Contains("its adapters are a, b"),
                       graft::AdapterError);
  Net empty;
  CHECK_THROWS_WITH_AS(graft::set_adapter(empty, "c"), doctest::Contains("nothing was injected"),
                       graft::AdapterError);
  CHECK(graft::active_adapters(empty).empty());
  CHECK_NOTHROW(graft::set_adapter(empty, {}));
}

TEST_CASE("two adapters with a copy of one module cannot be active together") {
  Net net = two();
  LoraConfig second = biased;
  second.bias = graft::Bias::none;
  trained::inject(second, net, "c", 23);
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, {"a", "c"}), doctest::Contains("'head'"), graft::AdapterError);
  CHECK(everything(net) == before);
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, {"c", "c"}), doctest::Contains("c is named twice"), graft::AdapterError);
  CHECK_NOTHROW(graft::set_adapter(net, {"b", "c"}));
  graft::Batch batch;
  batch.add(4, graft::select(net, {{"a"}, {"c"}}));
  CHECK_THROWS_AS((void)net.head(batch.input(awkward::rows<float>(4, 3))), graft::AdapterError);
  graft::Batch rows;
  rows.add(2, graft::select(net, {{"a"}})).add(2, graft::select(net, {{"c"}}));
  CHECK_NOTHROW((void)net.head(rows.input(awkward::rows<float>(4, 3))));
}

// As real PEFT 0.21.2 answers for the same three.
TEST_CASE("deleting the only active adapter activates the first by name of those that are left") {
  Net net = filled();
  for (const char* name : {"c", "b", "a"}) trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}}, net, name, unsigned(name[0]));
  const Matrix<float> base = filled()(x), a = of(net, "a"), b = of(net, "b");
  graft::set_adapter(net, "c");
  CHECK(graft::delete_adapter(net, "c") == Strings{"a"});
  CHECK(graft::active_adapters(net) == Strings{"a"});
  CHECK(same_bits(net(x), a));
  CHECK_FALSE(results::same_values(a, b));
  CHECK(graft::get_layer_status(net)[0].requires_grad == std::map<std::string, bool>{{"a", true}, {"b", false}});
  CHECK(graft::delete_adapter(net, "b") == Strings{"a"});
  CHECK(graft::delete_adapter(net, "a").empty());
  CHECK(same_bits(net(x), base));

  trained::inject(simple, net, "d", 22);
  trained::inject(simple, net, "e", 23);
  graft::set_adapter(net, Strings{});
  CHECK(graft::delete_adapter(net, "d").empty());  // it was not active
  LoraConfig for_inference = simple;
  for_inference.inference_mode = true;
  trained::inject(for_inference, net, "d", 24);
  graft::set_adapter(net, "e");
  CHECK(graft::delete_adapter(net, "e") == Strings{"d"});
  CHECK(graft::get_layer_status(net)[0].requires_grad == std::map<std::string, bool>{{"d", false}});
}

TEST_CASE("PEFT's name for no adapter selects none") {
  Net net = two();
  CHECK(graft::select(net, {{"__base__"}}).list().empty());
  CHECK(graft::select(net, {{"a"}, {"__base__"}, {"b", 0.5}}).list().size() == 2);
}

TEST_CASE("deleting the active adapter leaves the other active ones, or none") {
  Net net = two();
  graft::set_adapter(net, {"a", "b"});
  graft::delete_adapter(net, "a");
  CHECK(graft::active_adapters(net) == Strings{"b"});
  CHECK(graft::adapter_names(net) == Strings{"b"});
  graft::delete_adapter(net, "b");
  CHECK(graft::active_adapters(net).empty());
  CHECK(graft::adapter_names(net).empty());
  CHECK_THROWS_AS(graft::delete_adapter(net, "b"), graft::AdapterError);
  CHECK(same_bits(net(x), filled()(x)));
}

TEST_CASE("gradients are wanted of active adapters that were not made for inference, or as one says") {
  Net net = two();
  LoraConfig frozen = simple;
  frozen.inference_mode = true;
  (void)graft::inject_adapter_in_model(frozen, net, "f");
  const auto wants = [&] {
    std::array<bool, 3> all{};
    const std::array<const char*, 3> names{"a", "b", "f"};
    for (std::size_t i = 0; i < 3; ++i) all[i] = net.p.parameter(names[i], "lora_A").requires_grad();
    return all;
  };
  CHECK(wants() == std::array{true, true, false});
  graft::set_adapter(net, "b");
  CHECK(wants() == std::array{false, true, false});
  graft::set_adapter(net, {"a", "f"});
  CHECK(wants() == std::array{true, false, false});
  { const auto off = graft::disable_adapter(net); }
  CHECK(wants() == std::array{true, false, false});  // S-11
  graft::set_requires_grad(net, {}, false);
  CHECK(wants() == std::array{false, false, false});
  graft::set_requires_grad(net, {"b", "f"}, true);
  CHECK(wants() == std::array{false, true, true});
  graft::set_requires_grad(net, Strings{}, false);
  CHECK(wants() == std::array{false, true, true});
}

TEST_CASE("copies of a model with biases in plain layers switch apart") {
  Net net = two();
  const Matrix<float> a = of(net, "a"), base = filled()(x);
  Net copy = net;
  graft::set_adapter(copy, {});
  CHECK(same_bits(copy(x), base));
  CHECK(same_bits(net(x), a));
  graft::set_adapter(copy, "a");
  CHECK(same_bits(copy(x), a));
  {
    const auto off = graft::disable_adapter(copy);
    CHECK(same_bits(copy(x), base));
    CHECK(same_bits(net(x), a));
  }
  graft::delete_adapter(net, "a");
  CHECK(graft::active_adapters(net) == Strings{"b"});
  CHECK(same_bits(of(net, {}), base));
  CHECK(same_bits(copy(x), a));
}

TEST_CASE("trained biases of plain layers stay trainable, wherever they stand") {
  Net net = filled();
  trained::inject(biased, net, "a", 20);
  // p: A and B of r = 2, and a bias; head's copy; plain's bias
  constexpr graft::Index all = 2 * 3 + 3 * 2 + 3 + (2 * 3 + 2) + 3;
  const auto trainable = [&] { return graft::get_nb_trainable_parameters(net).trainable; };
  CHECK(trainable() == all);
  { const auto off = graft::disable_adapter(net); }
  CHECK(trainable() == all);
  graft::set_adapter(net, Strings{});
  graft::set_adapter(net, "a");
  CHECK(trainable() == all);
  graft::set_requires_grad(net, "a", false);
  CHECK(trainable() == 0);
  { const auto off = graft::disable_adapter(net); }
  CHECK(trainable() == 0);
}
