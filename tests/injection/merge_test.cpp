#include <graft/injection/merge.hpp>

#include <algorithm>
#include <random>

#include "support/merging.hpp"

using graft::LoraConfig;
using graft::Matrix;
using graft::MergeError;
using graft::Unmerge;
using merging::base_of;
using results::everything;
using results::same_bits;
using results::same_values;
using Strings = std::vector<std::string>;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<double>> p{5, 7}, q{7, 7, false}, r{7, 3};
  graft::LayerNorm<double> norm{7};
  auto operator()(const auto& x) const { return r(norm(q(p(x)))); }
  GRAFT_MODULE(p, q, r, norm)
};
Net filled() {
  Net net;
  graft::initialise(net, 3);
  awkward::fill<double>(net.p->bias.untyped(), 2);
  awkward::fill<double>(net.norm.bias.untyped(), 3);
  awkward::fill<double>(net.norm.weight.untyped(), 4);
  return net;
}
/// Every method, one that scales, one with a copy, one with biases everywhere.
Net with_all() {
  Net net = filled();
  trained::inject(LoraConfig{.r = 3, .lora_alpha = 5, .target_modules = {"p", "q"}}, net, "lora", 20);
  trained::inject(graft::AdaLoraConfig{.init_r = 2, .lora_alpha = 3, .target_modules = {"q", "r"}}, net, "adalora", 21);
  trained::inject(graft::Ia3Config{.target_modules = {"p", "r"}, .feedforward_modules = {"r"}}, net, "ia3", 22);
  trained::inject(LoraConfig{.r = 1, .lora_alpha = 2, .target_modules = {"p"}, .modules_to_save = {"r"}}, net, "copy", 23);
  trained::inject(LoraConfig{.r = 2, .lora_alpha = 3, .bias = graft::Bias::all, .target_modules = {"p"}}, net, "biased", 24);
  trained::inject(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"p", "q"}, .use_dora = true}, net, "dora", 25);
  trained::inject(LoraConfig{.r = 1, .lora_alpha = 2, .target_modules = {"p", "r"}, .lora_bias = true}, net, "beta", 26);
  graft::set_adapter(net, "lora");
  return net;
}

class Dice {
 public:
  explicit Dice(unsigned seed) : generator_(seed) {}
  unsigned below(unsigned n) { return unsigned(generator_() % n); }
  Strings some_of(const Strings& names) {
    Strings some;
    for (const std::string& name : names)
      if (below(2)) some.insert(some.begin() + below(unsigned(some.size()) + 1), name);
    return some;
  }

 private:
  std::mt19937 generator_;
};

/// A model that merges and a twin that never does: they go the same way, or the first refuses and stays as it is.
class Twins {
 public:
  explicit Twins(unsigned seed) : dice_(seed) {}

  void step() {
    const std::string before = everything(net_);
    try {
      act();
    } catch (const MergeError& error) {
      ++refused;
      CAPTURE(error.what());
      CHECK_FALSE(error.fix.empty());
      CHECK(everything(net_) == before);
      log += '!';
      return;
    } catch (const graft::AdapterError&) {
      CHECK(everything(net_) == before);
      log += '!';
      return;
    }
    compare();
  }
  void compare() {
    CAPTURE(log);
    CHECK(results::close(results::values_of(net_(x_)), results::values_of(twin_(x_)), 1e-10));
  }
  void end() {
    (void)graft::unmerge_adapter(net_);
    compare();
    CHECK(graft::get_layer_status(net_).size() == graft::get_layer_status(twin_).size());
    const Net original = filled();
    const auto a = graft::get_base_model_state_dict(net_), b = graft::get_base_model_state_dict(original);
    for (const auto& [key, view] : b)
      for (graft::Index i = 0; i < view.size(); ++i)
        CHECK(std::abs(graft::element_as<double>(view.dtype, a.at(key).data, std::size_t(i)) -
                       graft::element_as<double>(view.dtype, view.data, std::size_t(i))) < 1e-12);
  }
  int merged = 0, refused = 0;
  std::string log;

 private:
  void act() {
    const Strings names = graft::adapter_names(net_);
    switch (dice_.below(9)) {
      case 0:
      case 1:
      case 2: {
        const Strings some = dice_.some_of(names);
        const graft::MergeOptions options{.safe = dice_.below(2) == 0,
                                          .activate = dice_.below(2) == 0,
                                          .unmerge = dice_.below(2) ? Unmerge::by_delta : Unmerge::backup};
        log += " merge(" + graft::join(some, ",") + (options.unmerge == Unmerge::backup ? ":b)" : ")");
        const std::size_t before = graft::get_model_status(net_).merged_adapters.size();
        const auto report = graft::merge_adapter(net_, some, options);
        merged += int(report.merged_adapters.size() - before);
        graft::set_adapter(twin_, graft::active_adapters(net_));
        return;
      }
      case 3:
        log += " unmerge";
        (void)graft::unmerge_adapter(net_);
        return;
      case 4:
      case 5: {
        const Strings some = dice_.some_of(names);
        log += " set(" + graft::join(some, ",") + ")";
        graft::set_adapter(net_, some);
        graft::set_adapter(twin_, some);
        return;
      }
      case 6: {
        if (names.empty()) return;
        const std::string name = names[dice_.below(unsigned(names.size()))];
        const double factor = dice_.below(4) / 2.0;
        log += " scale(" + name + "," + std::to_string(factor) + ")";
        graft::set_scale(net_, name, factor);
        graft::set_scale(twin_, name, factor);
        return;
      }
      case 7: {
        log += " off";
        const auto guard = graft::disable_adapter(net_);
        const auto other = graft::disable_adapter(twin_);
        compare();
        return;
      }
      default: {
        if (names.empty()) return;
        const std::string name = names[dice_.below(unsigned(names.size()))];
        if (dice_.below(2)) {
          const auto values = trained::values_for(twin_, name, dice_.below(100));
          log += " fill(" + name + ")";
          (void)graft::set_peft_model_state_dict(net_, values, name);
          (void)graft::set_peft_model_state_dict(twin_, values, name);
        } else if (dice_.below(3) == 0) {
          log += " delete(" + name + ")";
          graft::delete_adapter(net_, name);
          graft::delete_adapter(twin_, name);
        }
      }
    }
  }

  Dice dice_;
  Net net_ = with_all(), twin_ = with_all();
  Matrix<double> x_ = awkward::rows<double>(4, 5);
};

}  // namespace

TEST_CASE("no order of operations makes forward depend on what is merged, or loses the base") {
  int merged = 0, refused = 0;
  for (unsigned seed = 0; seed < 80; ++seed) {
    CAPTURE(seed);
    Twins twins(seed);
    for (int i = 0; i < 30; ++i) twins.step();
    twins.end();
    merged += twins.merged;
    refused += twins.refused;
  }
  CHECK(merged > 100);
  CHECK(refused > 100);
}

TEST_CASE("what would break merged weights is refused with its remedy, and nothing has changed") {
  Net net = with_all();
  graft::set_adapter(net, {"lora", "adalora"});
  (void)graft::merge_adapter(net, "lora");
  const std::string before = everything(net);
  const auto refuses = [&](const char* remedy, auto&& verb) {
    CHECK_THROWS_WITH_AS(verb(), doctest::Contains(remedy), MergeError);
    CHECK(everything(net) == before);
  };
  refuses("unmerge_adapter() first", [&] { graft::set_adapter(net, "adalora"); });
  refuses("unmerge_adapter() first", [&] { graft::set_adapter(net, {}); });
  refuses("unmerge_adapter() first", [&] { graft::set_scale(net, "lora", 2); });
  refuses("unmerge_adapter() first", [&] { graft::delete_adapter(net, "lora"); });
  refuses("unmerge_adapter() first", [&] { graft::unload(net); });
  refuses("unmerge_adapter() first", [&] { trained::fill(net, "lora", 9); });
  refuses("unmerge_adapter() first", [&] { (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"p"}}, net, "new"); });
  refuses("unmerge_adapter() first", [&] {
    (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"p"}}, net, "lora", {.activate = false, .replace = true});
  });
  refuses("unmerge_adapter() first", [&] {
    (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"r"}, .modules_to_save = {"p"}}, net, "new", {.activate = false});
  });
  refuses("unmerge_adapter() first",
          [&] { (void)graft::set_base_model_state_dict(net, graft::get_base_model_state_dict(net).clone()); });
  refuses("MergeOptions::activate", [&] { (void)graft::merge_adapter(net, "ia3"); });
  refuses("Unmerge::backup", [&] { (void)graft::disable_adapter(net); });
  CHECK_THROWS_AS((void)graft::merge_adapter(net, "nobody"), graft::AdapterError);
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"adalora"}}));
  CHECK_THROWS_WITH_AS((void)net(batch.input(awkward::rows<double>(2, 5))), doctest::Contains("unmerge_adapter() first"), MergeError);

  // allowed: other adapters, and more of them beside the merged one
  graft::set_adapter(net, {"adalora", "lora"});
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"p"}}, net, "new", {.activate = false});
  trained::fill(net, "new", 8);
  graft::set_scale(net, "adalora", 0.5);
  graft::delete_adapter(net, "new");
  CHECK(graft::get_model_status(net).merged_adapters == Strings{"lora"});
}

TEST_CASE("nothing is merged into a layer in whose place an adapter has a copy") {
  Net net = with_all();
  graft::set_adapter(net, {"adalora", "copy"});
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net, "adalora"), doctest::Contains("deactivate 'copy'"), MergeError);
  CHECK_THROWS_AS((void)graft::merge_adapter(net), MergeError);  // the copy itself stays a copy until it is unloaded
  CHECK(everything(net) == before);
  const Matrix<double> x = awkward::rows<double>(4, 5), y = net(x);
  (void)graft::merge_and_unload(net);
  CHECK(same_values(net(x), y));
}

TEST_CASE("a scaling adapter is not merged alone under one that it scales, nor joined by one") {
  Net net = with_all();
  graft::set_adapter(net, {"lora", "ia3"});
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net, "ia3"), doctest::Contains("'ia3' scales what 'lora' adds"), MergeError);
  CHECK(everything(net) == before);
  (void)graft::merge_adapter(net, "lora");  // the other way round is fine
  (void)graft::unmerge_adapter(net);
  graft::set_adapter(net, "ia3");
  (void)graft::merge_adapter(net);
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, {"lora", "ia3"}), doctest::Contains("at 'p'"), MergeError);
  CHECK_THROWS_AS((void)graft::merge_adapter(net, "lora", {.activate = true}), MergeError);
}

TEST_CASE("merged adapters keep their order where it matters") {
  Net net = with_all();
  graft::set_adapter(net, {"lora", "dora"});
  const Matrix<double> x = awkward::rows<double>(4, 5), y = net(x);
  graft::set_adapter(net, {"dora", "lora"});
  REQUIRE_FALSE(same_values(net(x), y));
  graft::set_adapter(net, {"lora", "dora"});
  (void)graft::merge_adapter(net, {"dora", "lora"});  // in the order of activation, whatever the order of the names
  CHECK(same_values(net(x), y));
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS(graft::set_adapter(net, {"dora", "lora"}), doctest::Contains("their order matters"), MergeError);
  CHECK(everything(net) == before);
  (void)graft::unmerge_adapter(net);
  graft::set_adapter(net, {"lora", "adalora"});
  (void)graft::merge_adapter(net);
  CHECK_NOTHROW(graft::set_adapter(net, {"adalora", "lora"}));  // a sum
}

TEST_CASE("merging again, and unmerging what is not merged, changes nothing and says so") {
  Net net = with_all();
  const std::string plain = everything(net);
  CHECK(graft::unmerge_adapter(net).warnings == Strings{"no adapter is merged"});
  CHECK(graft::merge_adapter(net, Strings{}).merged_adapters.empty());
  CHECK(everything(net) == plain);
  (void)graft::merge_adapter(net);
  const std::string before = everything(net);
  const auto report = graft::merge_adapter(net);
  CHECK(report.merged_adapters == Strings{"lora"});
  CHECK(report.layers.empty());
  CHECK(report.warnings.size() == 1);
  CHECK(everything(net) == before);
}

TEST_CASE("NaN or infinity anywhere leaves every layer as it was, unless safe is off") {
  Net net = with_all();
  net.q.parameter("lora", "lora_B").view<double>()(6, 2) = INFINITY;
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net), doctest::Contains("'q'"), MergeError);
  CHECK(everything(net) == before);
  CHECK(graft::merge_adapter(net, {}, {.safe = false, .unmerge = Unmerge::backup}).layers == Strings{"p", "q"});
  (void)graft::unmerge_adapter(net);
  CHECK(everything(net) == before);
}

TEST_CASE("parameters that changed while merged are noticed; with a backup they may") {
  Net net = with_all();
  const std::string base = base_of(net);
  (void)graft::merge_adapter(net);
  net.p.parameter("lora", "lora_A").view<double>()(0, 0) += 1;
  CHECK_THROWS_WITH_AS((void)graft::unmerge_adapter(net), doctest::Contains("'lora' at 'p' changed"), MergeError);
  net.p.parameter("lora", "lora_A").view<double>()(0, 0) -= 1;
  (void)graft::unmerge_adapter(net);
  (void)graft::set_base_model_state_dict(net, graft::get_base_model_state_dict(filled()).clone());
  (void)graft::merge_adapter(net, {}, {.unmerge = Unmerge::backup});
  net.p.parameter("lora", "lora_A").view<double>()(0, 0) += 1;
  (void)graft::unmerge_adapter(net);
  CHECK(base_of(net) == base);
}

TEST_CASE("merge_and_unload leaves plain layers: copies and trained biases are the layers' own") {
  Net net = with_all();
  const Matrix<double> x = awkward::rows<double>(4, 5);
  graft::set_adapter(net, {"biased", "copy", "ia3"});
  CHECK_THROWS_AS((void)graft::merge_and_unload(net, "lora"), MergeError);
  graft::delete_adapter(net, "ia3");  // it would scale the input of the copy's place
  const Matrix<double> y = net(x);
  const auto stale = graft::select(net, {{"copy"}});
  const auto report = graft::merge_and_unload(net);
  CHECK(report.merged_adapters == Strings{"biased", "copy"});
  CHECK(graft::adapter_names(net).empty());
  CHECK(graft::repr(net) == graft::repr(filled()));
  CHECK(graft::state_dict(net).keys() == graft::state_dict(filled()).keys());
  CHECK(same_values(net(x), y));
  (void)graft::inject_adapter_in_model(LoraConfig{.target_modules = {"p"}}, net);
  graft::Batch batch;
  batch.add(4, stale);
  CHECK_THROWS_AS((void)net(batch.input(x)), graft::AdapterError);
}

TEST_CASE("unload gives the base model back, bit for bit") {
  Net net = with_all();
  graft::set_adapter(net, {"biased", "copy"});
  graft::unload(net);
  CHECK(everything(net) == everything(filled()));
  graft::unload(net);  // nothing to take out
  CHECK_THROWS_AS((void)graft::get_layer_status(net), graft::AdapterError);
}

TEST_CASE("lora_bias needs a bias to merge into") {
  Net net = filled();
  const Matrix<double> x = awkward::rows<double>(4, 5);
  trained::inject(LoraConfig{.r = 1, .target_modules = {"q"}, .lora_bias = true}, net, "a");
  const std::string before = everything(net);
  const Matrix<double> y = net(x);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net), doctest::Contains("create_bias"), MergeError);
  CHECK(everything(net) == before);
  (void)graft::merge_adapter(net, {}, {.unmerge = Unmerge::backup, .create_bias = true});
  CHECK(net.q->bias.size() == 7);
  CHECK(same_values(net(x), y));
  (void)graft::unmerge_adapter(net);
  CHECK(everything(net) == before);
}

namespace {
struct Closed {
  Matrix<float> w = Matrix<float>::Identity(3, 3);
  Matrix<float> operator()(const Matrix<float>& x) const { return x * w.transpose(); }
};
}  // namespace
template <>
struct graft::layer_traits<Closed> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Closed&) { return 3; }
  static Index out_features(const Closed&) { return 3; }
};

namespace {
struct Views {
  graft::Adaptable<graft::Linear<float, graft::mapped>> p{3, 3, false};
  graft::Linear<float, graft::mapped> head{3, 3, false};
  graft::Adaptable<Closed> own;
  GRAFT_MODULE(p, head, own)
};
}  // namespace

TEST_CASE("a view is never written: merging takes new memory, unmerging binds the view again") {
  const std::vector<float> file{1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<float> kept = file;
  for (const Unmerge how : {Unmerge::reread, Unmerge::backup, Unmerge::by_delta}) {
    Views net;
    net.p->weight.bind(file.data());
    net.head.weight.bind(kept.data());
    trained::inject(LoraConfig{.r = 2, .target_modules = {"p"}}, net, "a");
    const Matrix<float> x = awkward::rows<float>(4, 3), y = net.p(x);
    (void)graft::merge_adapter(net, {}, {.unmerge = how});
    CHECK(std::as_const(net.p->weight).data() != file.data());
    CHECK(same_values(net.p(x), y));
    {
      const auto off = graft::disable_adapter(net);
      CHECK(std::as_const(net.p->weight).data() == file.data());
    }
    CHECK(same_values(net.p(x), y));
    (void)graft::unmerge_adapter(net);
    CHECK(std::as_const(net.p->weight).data() == file.data());
    CHECK(file == kept);
    CHECK(same_bits(net.p(x), y));
    (void)graft::merge_and_unload(net);
    CHECK(file == kept);
    CHECK(same_values(net.p(x), y));
  }
}

TEST_CASE("reread needs a view, and merging a layer that shows its weight") {
  Views net;
  std::vector<float> memory(9, 1);
  net.p->weight.bind(memory.data());
  net.head.weight.bind(memory.data() + 0);
  trained::inject(LoraConfig{.r = 2, .target_modules = {"own"}}, net, "a");
  const std::string before = everything(net);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(net), doctest::Contains("layer_traits"), MergeError);
  CHECK(everything(net) == before);
  Net dense = with_all();
  const std::string plain = everything(dense);
  CHECK_THROWS_WITH_AS((void)graft::merge_adapter(dense, {}, {.unmerge = Unmerge::reread}), doctest::Contains("map the checkpoint"),
                       MergeError);
  CHECK(everything(dense) == plain);
}

namespace {
struct TiedNet {
  graft::Adaptable<graft::Embedding<float>> embed{5, 3};
  graft::Linear<float> head{3, 5, false};
  TiedNet() {
    awkward::fill<float>(embed->weight.untyped(), 1);
    head.weight = embed->weight.share();
  }
  GRAFT_MODULE(embed, head)
};
}  // namespace

TEST_CASE("a weight that two layers share is not changed behind one's back") {
  const std::vector<int> ids{0, 3, 4};
  const Matrix<float> x = awkward::rows<float>(2, 3);
  for (const bool for_good : {false, true}) {
    TiedNet net;
    const Matrix<float> head = net.head(x);
    trained::inject(LoraConfig{.r = 2, .target_modules = {"embed"}}, net, "a");
    const Matrix<float> y = net.embed(ids);
    const auto merge = [&](const graft::MergeOptions& options) {
      return for_good ? graft::merge_and_unload(net, {}, options) : graft::merge_adapter(net, {}, options);
    };
    const std::string before = everything(net);
    CHECK_THROWS_WITH_AS((void)merge({}), doctest::Contains("Tied::untie"), MergeError);
    CHECK(everything(net) == before);
    (void)merge({.tied = graft::Tied::untie});
    CHECK(same_values(net.embed(ids), y));
    CHECK(same_bits(net.head(x), head));
    if (for_good) continue;
    (void)graft::unmerge_adapter(net);
    CHECK(everything(net) == before);
    net.embed->weight.view()(0, 0) += 1;  // tied again
    CHECK(std::as_const(net.head.weight).view()(0, 0) == std::as_const(net.embed->weight).view()(0, 0));
    net.embed->weight.view()(0, 0) -= 1;
    CHECK(merge({.unmerge = Unmerge::backup, .tied = graft::Tied::change_both}).warnings.size() == 1);
    CHECK(same_values(net.embed(ids), y));
    CHECK_FALSE(same_values(net.head(x), head));
    (void)graft::unmerge_adapter(net);
    CHECK(same_values(net.head(x), head));
  }
}

TEST_CASE("a copy of a merged model is merged too, and unmerges by itself") {
  Net net = with_all();
  graft::set_adapter(net, {"lora", "adalora"});
  const Matrix<double> x = awkward::rows<double>(4, 5), y = net(x);
  const std::string base = base_of(net);
  (void)graft::merge_adapter(net, {}, {.unmerge = Unmerge::backup});
  Net copy = net;
  CHECK(same_bits(copy(x), net(x)));
  (void)graft::unmerge_adapter(copy);
  CHECK(base_of(copy) == base);
  CHECK(same_bits(copy(x), y));
  CHECK(graft::get_model_status(net).merged_adapters == Strings{"adalora", "lora"});
  graft::delete_adapter(copy, "lora");
  (void)graft::unmerge_adapter(net);
  CHECK(same_bits(net(x), y));
}
