#include <graft/state_dict/pruning.hpp>

#include <doctest/doctest.h>

#include <map>
#include <string>

#include <graft/graft.hpp>
#include <graft/training/trainable.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"

using graft::AdaLoraConfig;
using graft::Index;
using graft::Matrix;
using graft::StateDict;
using Sizes = std::vector<Index>;
using Strings = std::vector<std::string>;
using support::ramp;

namespace {

const graft::RankPattern pattern{{"up", {true, false, true, true}}, {"down", {false, false, false, false}}};

struct Net {
  graft::Adaptable<graft::Linear<double>> up{5, 7}, down{7, 3};
  GRAFT_MODULE(up, down)

  explicit Net(double lora_alpha = 5, bool has_pattern = true) {
    support::fill_ramp(up->weight.view(), 1);
    support::fill_ramp(up->bias.view(), 2);
    support::fill_ramp(down->weight.view(), 3);
    support::fill_ramp(down->bias.view(), 4);
    (void)graft::inject_adapter_in_model(AdaLoraConfig{.init_r = 4, .target_r = 2, .lora_alpha = lora_alpha, .target_modules = {"up", "down"}, .total_step = 9}, *this);
    int salt = 5;
    for (const char* name : {"lora_A", "lora_B", "lora_E"}) {
      support::fill_ramp(up.parameter("default", name).view<double>(), salt);
      support::fill_ramp(down.parameter("default", name).view<double>(), salt++);
    }
    // as a RankAllocator leaves it
    if (has_pattern)
      std::get<AdaLoraConfig>(graft::detail::need_record(graft::sites_of(*this), "default")->generation.own()->config).rank_pattern = pattern;
  }
};

/// What the file of such an adapter holds, with values of its own.
struct Pruned {
  std::map<std::string, Matrix<double>> values{{"up.lora_A", ramp<double>(3, 5, 8)},  {"up.lora_B", ramp<double>(7, 3, 9)},
                                               {"up.lora_E", ramp<double>(3, 1, 10)}, {"down.lora_A", Matrix<double>(0, 7)},
                                               {"down.lora_B", Matrix<double>(3, 0)}, {"down.lora_E", Matrix<double>(0, 1)}};
  StateDict state_dict() const {
    StateDict all;
    for (const auto& [key, value] : values)
      all.insert("base_model.model." + key,
                 {graft::Dtype::f64, {value.rows(), value.cols()}, reinterpret_cast<const std::byte*>(value.size() ? value.data() : nothing), nullptr});
    return all;
  }
  static constexpr double nothing[1] = {};
};

const Matrix<double> x = ramp<double>(1, 5, 3), u = ramp<double>(1, 7, 1);
}  // namespace

// Every expected value is what PEFT 0.21.2 computes after set_peft_model_state_dict of the same numbers (f64; 1e-12 for other orders of sums).
TEST_CASE("a pruned state dict prunes the adapter that rank_pattern says it is of") {
  const Pruned file;
  Net net;
  const graft::LoadReport report = graft::set_peft_model_state_dict(net, file.state_dict());
  CHECK(report.loaded.size() == 6);
  CHECK(report.missing_keys.empty());
  REQUIRE(report.warnings.size() == 1);
  CHECK(report.warnings[0].find("'default' has only the ranks") != std::string::npos);
  CHECK(net.up.parameter("default", "lora_A").shape() == Sizes{3, 5});
  CHECK(net.up.parameter("default", "lora_B").shape() == Sizes{7, 3});
  CHECK(net.up.parameter("default", "lora_E").shape() == Sizes{3, 1});
  CHECK(net.up.parameter("default", "ranknum").view<double>()(0, 0) == 4);
  CHECK(net.down.parameter("default", "lora_B").shape() == Sizes{3, 0});
  CHECK(net.down.parameter("default", "ranknum").view<double>()(0, 0) == 0);
  CHECK(support::close(net.up(x), {6.705500638592154, 4.69134258804978, -5.617907791168022, -4.757065841710396, 1.6445875877497809, -0.36957046279259287, 1.9793048759565604}, 1e-12));
  CHECK(support::close(net.down(u), {5.8125, 0.625, -3.125}, 1e-12));
  for (const char* name : {"lora_A", "lora_B", "lora_E"}) CHECK(net.up.parameter("default", name).requires_grad());

  SUBCASE("and again, as often as one likes, where PEFT has an IndexError") {
    CHECK(graft::set_peft_model_state_dict(net, file.state_dict()).warnings.empty());
    CHECK(support::close(net.up(x), {6.705500638592154, 4.69134258804978, -5.617907791168022, -4.757065841710396, 1.6445875877497809, -0.36957046279259287, 1.9793048759565604}, 1e-12));
  }
  SUBCASE("all ranks do not fit any more") {
    const StateDict everything = graft::get_peft_model_state_dict(Net(5, false)).clone();
    CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, everything), graft::StateDictError);
  }
  SUBCASE("what it says of itself is what was loaded") {
    const StateDict own = graft::get_peft_model_state_dict(net);
    CHECK(own.at("up.lora_B").shape == Sizes{7, 3});
    CHECK(own.at("up.lora_B").data == net.up.parameter("default", "lora_B").data());
  }
}

TEST_CASE("without a lora_alpha the kept rank takes its place, as in PEFT") {
  Net net(0);
  (void)graft::set_peft_model_state_dict(net, Pruned().state_dict());
  CHECK(support::close(net.up(x), {5.948300383155292, 4.271055552829868, -3.6769946747008135, -2.479239505026238, 0.8930025526498684, -0.7842422776755558, 1.3063329255739362}, 1e-12));
}

TEST_CASE("what a lenient load of a pruned state dict leaves out keeps the kept ranks' values") {
  Pruned file;
  file.values.erase("up.lora_B");
  Net net;
  const graft::LoadReport report = graft::set_peft_model_state_dict(net, file.state_dict(), "default", {.strict = false});
  CHECK(report.missing_keys == Strings{"up.lora_B"});
  CHECK(support::close(net.up(x), {4.079469606013485, 1.6582080810422972, -0.6423342926017684, -1.676629206864483, -0.7427965805085488, 3.7637199852312877, -0.843258868415329}, 1e-12));
}

TEST_CASE("after training the adapter's own state dict comes back pruned, and computes the same") {
  Net net;
  net.up.parameter("default", "lora_E").view<double>()(1, 0) = 0;
  net.down.parameter("default", "lora_E").view<double>().setZero();
  const Matrix<double> before = net.up(x);
  const graft::TrainableParameters parameters = graft::trainable_parameters(net);
  const StateDict saved = graft::get_peft_model_state_dict(net).clone();
  (void)graft::set_peft_model_state_dict(net, saved);
  CHECK((net.up(x) - before).cwiseAbs().maxCoeff() <= 1e-12);  // another number of terms in a sum
  CHECK(net.up.parameter("default", "lora_A").shape() == Sizes{3, 5});
  REQUIRE(parameters.size() == 6);
  CHECK(parameters[0].shape() == graft::Shape{3, 5});  // where it was in memory: what an optimiser holds is not left dangling
}

TEST_CASE("nothing is pruned where the state dict has all ranks, the config has no pattern, or the load fails") {
  const StateDict full = graft::get_peft_model_state_dict(Net(5, false)).clone();
  Net net;
  SUBCASE("all ranks: PEFT prunes first and fails") {
    CHECK(graft::set_peft_model_state_dict(net, full).warnings.empty());
    CHECK(net.up.parameter("default", "lora_A").shape() == Sizes{4, 5});
  }
  SUBCASE("no pattern") {
    Net other(5, false);
    CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(other, Pruned().state_dict()), graft::StateDictError);
    CHECK(other.up.parameter("default", "lora_A").shape() == Sizes{4, 5});
  }
  SUBCASE("half of it") {
    StateDict half = Pruned().state_dict();
    for (const char* name : {"lora_A", "lora_B", "lora_E"}) {
      half.erase(std::string("base_model.model.down.") + name);
      half.insert(std::string("down.") + name, full.at(std::string("down.") + name));
    }
    const std::string before = results::everything(net);
    const std::byte* memory = net.up.parameter("default", "lora_A").data();
    CHECK_THROWS_AS((void)graft::set_peft_model_state_dict(net, half), graft::StateDictError);
    CHECK(results::everything(net) == before);
    CHECK(net.up.parameter("default", "lora_A").data() == memory);
    CHECK(net.up.parameter("default", "lora_A").requires_grad());
    CHECK(net.down.parameter("default", "ranknum").view<double>()(0, 0) == 4);
  }
}
