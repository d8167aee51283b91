#include <graft/adapters/site_forward.hpp>

#include "support/laws.hpp"

using graft::Index;
using graft::Matrix;

namespace {

struct Net {
  graft::Adaptable<graft::Linear<double>> p{3, 2};
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
Net filled() {
  Net net;
  awkward::fill<double>(net.p->weight.untyped(), 1);
  awkward::fill<double>(net.p->bias.untyped(), 2);
  return net;
}
Matrix<double> linear(const Matrix<double>& x, const auto& weight, const auto& bias) {
  return (x * weight.transpose()).rowwise() + bias.row(0);
}
void expect_selection(const Net& net, const Matrix<double>& x, std::vector<graft::NamedWeight> wanted,
                      const Matrix<double>& y) {
  graft::Batch batch;
  batch.add(x.rows(), graft::select(net, wanted));
  CHECK(results::same_values(net(batch.input(x)), y));
}

}  // namespace

TEST_CASE("side by side at one site, methods follow the four steps in whatever order they are active") {
  Net net = filled();
  trained::inject(graft::LoraConfig{.r = 1, .lora_alpha = 3, .target_modules = {"p"}}, net, "lora");
  trained::inject(graft::Ia3Config{.target_modules = {"p"}, .feedforward_modules = {"p"}}, net, "input", 40);
  trained::inject(graft::Ia3Config{.target_modules = {"p"}}, net, "output", 41);
  trained::inject(graft::AdaLoraConfig{.init_r = 2, .lora_alpha = 5, .target_modules = {"p"}}, net, "adalora",
                  42);
  const Matrix<double> x = awkward::rows<double>(4, 3);
  const auto of = [&](const char* adapter, const char* name) {
    return net.p.parameter(adapter, name).view<double>();
  };
  const Matrix<double> seen = x * of("input", "ia3_l").row(0).asDiagonal();
  Matrix<double> y = linear(seen, net.p->weight.view(), net.p->bias.view());
  y += 3 * seen * of("lora", "lora_A").transpose() * of("lora", "lora_B").transpose();
  y += 5 / 2.00001 * seen * of("adalora", "lora_A").transpose() *
       of("adalora", "lora_E").col(0).asDiagonal() * of("adalora", "lora_B").transpose();
  y = y * of("output", "ia3_l").col(0).asDiagonal();
  for (const std::vector<std::string>& order :
       {std::vector<std::string>{"lora", "input", "output", "adalora"},
        std::vector<std::string>{"output", "adalora", "input", "lora"}}) {
    graft::set_adapter(net, order);
    CHECK(graft::active_adapters(net) == order);
    CHECK(results::same_values(net(x), y));
  }
  expect_selection(net, x, {{"output"}, {"lora"}, {"input"}, {"adalora"}}, y);
}

TEST_CASE("a trained bias replaces the base's for rows of that adapter, whatever its strength") {
  Net net = filled();
  const Matrix<double> x = awkward::rows<double>(6, 3);
  trained::inject(graft::LoraConfig{.r = 1, .bias = graft::Bias::lora_only, .target_modules = {"p"}}, net,
                  "biased");
  const Matrix<double> base = linear(x, net.p->weight.view(), net.p->bias.view());
  const graft::StateDict saved = graft::get_peft_model_state_dict(net, "biased");
  const auto* bias = reinterpret_cast<const double*>(saved.at("p.base_layer.bias").data);
  Matrix<double> y = linear(x, net.p->weight.view(), Eigen::Map<const Matrix<double>>(bias, 1, 2));
  y += 8 * x * net.p.parameter("biased", "lora_A").view<double>().transpose() *
       net.p.parameter("biased", "lora_B").view<double>().transpose();
  CHECK(results::same_values(net(x), y));
  graft::set_scale(net, "biased",
                   0);  // the strength is of the update: a trained bias is the adapter's as it is
  CHECK(results::same_values(net(x),
                             linear(x, net.p->weight.view(), Eigen::Map<const Matrix<double>>(bias, 1, 2))));
  graft::set_adapter(net, {});
  CHECK(results::same_values(net(x), base));
}

TEST_CASE("a selection of an adapter that was deleted is an error, also where its number would be free") {
  Net net = filled();
  trained::inject(graft::LoraConfig{.target_modules = {"p"}}, net, "a");
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"a"}}));
  graft::delete_adapter(net, "a");
  trained::inject(graft::LoraConfig{.target_modules = {"p"}}, net, "a");
  const Matrix<double> x = awkward::rows<double>(2, 3);
  CHECK_THROWS_AS((void)net(batch.input(x)), graft::AdapterError);
  CHECK_THROWS_AS((void)graft::select(net, {{"b"}}), graft::AdapterError);
}

TEST_CASE("rows of an adapter on the meta device are an error that names it; other rows are not") {
  Net net = filled();
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"p"}}, net, "empty",
                                       {.low_cpu_mem_usage = true});
  const Matrix<double> x = awkward::rows<double>(2, 3);
  try {
    (void)net(x);
    FAIL("a forward through meta parameters");
  } catch (const graft::MetaError& error) {
    CHECK(std::string(error.what()).find("'empty'") != std::string::npos);
    CHECK(std::string(error.what()).find("'p'") != std::string::npos);
  }
  graft::Batch batch;
  batch.add(1, graft::base_only());
  CHECK(results::same_bits(net(batch.input(Matrix<double>(x.row(0)))), filled()(Matrix<double>(x.row(0)))));
}

TEST_CASE("disabled, a batch's selections are not looked at") {
  Net net = filled();
  trained::inject(graft::LoraConfig{.target_modules = {"p"}}, net, "a");
  graft::Batch batch;
  batch.add(2, graft::select(net, {{"a"}}));
  const Matrix<double> x = awkward::rows<double>(2, 3);
  const auto guard = graft::disable_adapter(net);
  CHECK(results::same_bits(net(batch.input(x)), filled()(batch.input(x))));
}

TEST_CASE("the laws hold for LoRA and DoRA at a grouped convolution") {
  laws::all<awkward::GroupedConv2dCase<float>, laws::LoraMethod>();
}
TEST_CASE("the laws hold for LoRA and DoRA at a 3-d convolution") {
  laws::all<awkward::Conv3dCase<double>, laws::LoraMethod>();
  laws::all<awkward::Conv3dCase<double>, laws::DoraMethod>();
}

namespace {
struct Mixed {
  graft::Adaptable<graft::Embedding<>> embed{11, 7};
  graft::Adaptable<graft::Linear<>> p{7, 13};
  graft::Adaptable<graft::Conv2d<>> conv{3, 4, graft::Conv2dOptions{.kernel = 3, .padding = 1}};
  auto operator()(const auto& ids) const { return p(embed(ids)); }
  GRAFT_MODULE(embed, p, conv)
};

Mixed all_methods() {
  Mixed net;
  graft::initialise(net, 3);
  trained::inject(graft::LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"embed", "p", "conv"}}, net, "lora", 1, false);
  trained::inject(graft::LoraConfig{.r = 2, .lora_alpha = 5, .target_modules = {"embed", "p", "conv"}, .use_dora = true}, net, "dora", 2, false);
  trained::inject(graft::AdaLoraConfig{.init_r = 3, .target_modules = {"p"}}, net, "adalora", 3, false);
  trained::inject(graft::Ia3Config{.target_modules = {"p", "conv"}, .feedforward_modules = {"p"}}, net, "ia3", 4, false);
  trained::inject(graft::LoraConfig{.r = 2, .bias = graft::Bias::lora_only, .target_modules = {"p"}}, net, "bias", 5, false);
  trained::inject(graft::LoraConfig{.r = 2, .target_modules = {"conv"}, .modules_to_save = {"p"}}, net, "copy", 6, false);
  return net;
}
}  // namespace

TEST_CASE("rows of equal selections that stand apart have the bits of each row alone") {
  const Mixed net = all_methods();
  const std::vector<graft::AdapterSelection> selections{
      graft::select(net, {{"lora"}}),          graft::base_only(),
      graft::select(net, {{"dora", 0.5}}),     graft::select(net, {{"adalora"}, {"ia3", 2}}),
      graft::select(net, {{"bias"}}),          graft::select(net, {{"copy"}, {"lora", -1}}),
      graft::select(net, {{"ia3"}}),           graft::select(net, {{"ia3"}, {"lora"}, {"dora"}})};
  constexpr Index rows = 37;
  graft::Batch batch, alone;
  std::vector<int> ids;
  for (Index i = 0; i < rows; ++i) {
    batch.add(1, selections[std::size_t(i * i + i / 5) % selections.size()]);
    ids.push_back(int(i * 3 % 11));
  }
  Eigen::Tensor<float, 4, Eigen::RowMajor> images(rows, 3, 4, 5);
  for (Index i = 0; i < images.size(); ++i) images.data()[i] = float(awkward::value(i, 8));
  const Matrix<float> x = awkward::rows<float>(rows, 7);

  const Matrix<float> y = net(batch.input(ids)).value(), door = net.p(x, batch);
  Matrix<float> added = net.p.base_layer()(x), base = added;
  net.p.update(batch, x, added);
  const Matrix<float> conv = net.conv(batch.input(images)).value();
  CHECK_FALSE(results::same_values(door, base));
  for (Index i = 0; i < rows; ++i) {
    CAPTURE(i);
    alone.clear();
    alone.add(1, selections[std::size_t(i * i + i / 5) % selections.size()]);
    const Matrix<float> one = x.row(i);
    CHECK(results::same_bits(Matrix<float>(net(alone.input(std::vector<int>{ids[std::size_t(i)]})).value()), Matrix<float>(y.row(i))));
    CHECK(results::same_bits(net.p(one, alone), Matrix<float>(door.row(i))));
    Matrix<float> added_alone = base.row(i);
    net.p.update(alone, one, added_alone);
    CHECK(results::same_bits(added_alone, Matrix<float>(added.row(i))));
    Eigen::Tensor<float, 4, Eigen::RowMajor> image(1, 3, 4, 5);
    std::copy_n(images.data() + i * image.size(), image.size(), image.data());
    CHECK(results::same_bits(Matrix<float>(net.conv(alone.input(image)).value()), Matrix<float>(conv.row(i))));
  }
}
