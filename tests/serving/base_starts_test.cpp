#include <graft/serving/base_starts.hpp>

#include <doctest/doctest.h>

#include <graft/factorise.hpp>
#include <graft/serve.hpp>

#include "io/temporary_directory.hpp"
#include "support/ramp.hpp"
#include "support/results.hpp"

using graft::LoraConfig;
using graft::Matrix;

namespace {
struct Net {
  graft::Adaptable<graft::Linear<>> p{5, 4};
  GRAFT_MODULE(p)

  explicit Net(int salt = 1) {
    support::fill_ramp(p->weight.view(), salt);
    support::fill_ramp(p->bias.view(), 2);
  }
};
const Matrix<float> x = support::ramp(2, 5, 3);

/// What a file of the scheme holds after training, and what PEFT 0.21.2 computes with it over this base and over another.
struct Trained {
  TemporaryDirectory folder;
  explicit Trained(const char* scheme) {
    Net net;
    (void)graft::inject_adapter_in_model(LoraConfig{.r = 2, .lora_alpha = 3, .target_modules = {"p"}, .init_lora_weights = scheme}, net);
    support::fill_ramp(net.p.parameter("default", "lora_A").view<float>(), 4);
    support::fill_ramp(net.p.parameter("default", "lora_B").view<float>(), 5);
    (void)graft::save_pretrained(net, folder / "a");
  }
};
const std::vector<double> over_base{5.6780781745910645, 1.2077558040618896, -3.049654722213745, 2.699748992919922,
                                    5.251972675323486,  1.1022343635559082, -2.975644588470459, 2.690046548843384};
const std::vector<double> over_another{5.667182922363281, 1.2615454196929932, -3.1440911293029785, 2.753211259841919,
                                       5.204195976257324, 1.1195851564407349, -2.965024948120117,  2.710737466812134};

Matrix<float> run(const Net& net, const graft::AdapterSelection& selection) {
  graft::Batch batch;
  batch.add(2, selection);
  return net.p(x, batch);
}
}  // namespace

TEST_CASE("a PiSSA adapter that is served computes what PEFT does with it alone, and rows beside it are those of the base") {
  const Trained file("pissa");
  Net net;
  const Matrix<float> base = net.p(x);
  graft::Registry registry(net);
  registry.add("pissa", file.folder / "a");
  CHECK(support::close(run(net, registry.select("pissa")), over_base, 1e-5));
  graft::Batch batch;
  batch.add(1, registry.select("pissa")).add(1);  // PEFT's other rows have W - s * B0 * A0
  const Matrix<float> y = net.p(x, batch);
  CHECK(support::close(Matrix<float>(y.row(0)), {over_base.begin(), over_base.begin() + 4}, 1e-5));
  CHECK(results::same_bits(Matrix<float>(y.row(1)), Matrix<float>(base.row(1))));
}

TEST_CASE("where another base was loaded a served adapter starts from that one, as it would in PEFT") {
  const Trained file("pissa");
  Net net;
  graft::Registry registry(net);
  registry.add("pissa", file.folder / "a");
  const graft::AdapterSelection before = registry.select("pissa");
  CHECK(registry.metrics().materialisations == 1);
  const std::uint64_t hits = registry.metrics().hits;
  (void)registry.select("pissa");
  support::fill_ramp(net.p->weight.view(), 1);  // the same values
  (void)registry.select("pissa");
  CHECK(registry.metrics().hits == hits + 2);

  const Net other(6);
  (void)graft::set_base_model_state_dict(net, graft::get_base_model_state_dict(other));
  CHECK(support::close(run(net, registry.select("pissa")), over_another, 1e-5));
  CHECK(registry.metrics().materialisations == 2);
  CHECK(registry.metrics().resident == 1);
  (void)run(net, before);  // a request in flight keeps what it has
  (void)registry.select("pissa");
  CHECK(registry.metrics().materialisations == 2);

  SUBCASE("also of one that a request alone still holds") {
    const graft::AdapterSelection held = registry.select("pissa");
    CHECK(registry.evict("pissa"));
    (void)registry.select("pissa");
    CHECK(registry.metrics().materialisations == 2);
    CHECK(registry.evict("pissa"));
    support::fill_ramp(net.p->weight.view(), 1);
    CHECK(support::close(run(net, registry.select("pissa")), over_base, 1e-5));
  }
  SUBCASE("and of one that replaced another") {
    registry.replace("pissa", registry.look_up("pissa")->generation, file.folder / "a");
    support::fill_ramp(net.p->weight.view(), 1);
    CHECK(support::close(run(net, registry.select("pissa")), over_base, 1e-5));
  }
}

TEST_CASE("an adapter that starts from nothing of the base stays where the base changes") {
  const Trained file("gaussian");
  Net net;
  graft::Registry registry(net);
  registry.add("plain", file.folder / "a");
  (void)registry.select("plain");
  support::fill_ramp(net.p->weight.view(), 6);
  (void)registry.select("plain");
  CHECK(registry.metrics().materialisations == 1);
}
