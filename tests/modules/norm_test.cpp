#include <doctest/doctest.h>

#include <graft/modules/norm.hpp>

#include "support/ramp.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LayerNorm;
using graft::Matrix;
using graft::RMSNorm;
using support::close;
using support::ramp;

namespace {
// x = ramp(3, 4, salt=5); w = 1 + ramp(4, salt=6) / 4; b = ramp(4, salt=7)
// F.rms_norm(x, (4,), w, 1e-6), then with eps 0.5
const std::vector<double> rms{-0.3930692608, -1.687321705, 0.3307534024,  -1.064163121, 1.523751922, -0.1486587241,
                              -1.06848458,   0.6875465991, -0.9369421521, 1.316289462,  0,           -1.521959691};
const std::vector<double> rms_half{-0.2968832788, -1.274425782, 0.2498164175,  -0.8037571693, 1.166204254, -0.1137760248,
                                   -0.8177651782, 0.5262141147, -0.7219025926, 1.014185106,   0,           -1.172651528};
// F.layer_norm(x, (4,), w, b, 1e-5), then without b
const std::vector<double> layer_norm{0.1227779936,  0.01521621263, 1.227344597,  -1.324214287, 1.102145746,  1.189049316,
                                     -0.8459468438, -0.2299835649, -1.089747942, 2.899795609,  0.3836520541, -2.208033966};
const std::vector<double> without_bias{0.4977779936, -1.359783787, 0.9773445972,  -0.4492142869, 1.477145746,  -0.185950684,
                                       -1.095946844, 0.6450164351, -0.7147479416, 1.524795609,   0.1336520541, -1.333033966};
// F.rms_norm(ramp(3, 8, salt=8).reshape(3, 2, 4), (4,), w, 1e-6)
const std::vector<double> by_head{1.523751922,  -0.1486587241, -1.06848458,   0.6875465991,  -0.9369421521, 1.316289462,
                                  0,            -1.521959691,  1.075200146,   -0.6713444815, 1.206322115,   0.1940605142,
                                  -1.351729218, 0.7912561277,  -0.2843576709, 1.677298146,   0.4977834034,  -1.359798565,
                                  0.9773552188, -0.4492191689, -1.858627675,  0.3956280639,  -0.5687153418, 1.219853197};

template <class Norm>
Norm filled(Norm norm) {
  using T = typename decltype(norm.weight)::scalar;
  const Matrix<T> weight = (ramp<T>(1, 4, 6).array() / 4 + 1).matrix();
  norm.weight.view() = weight;
  if constexpr (requires { norm.bias; })
    if (norm.bias.size()) norm.bias.view() = ramp<T>(1, 4, 7);
  return norm;
}
const Matrix<> x = ramp(3, 4, 5);
}  // namespace

TEST_CASE("RMSNorm is torch's") {
  CHECK(close(filled(RMSNorm<>(4))(x), rms, 1e-6));
  CHECK(close(filled(RMSNorm<>(4, 0.5))(x), rms_half, 1e-6));
  CHECK(close(filled(RMSNorm<double>(4))(ramp<double>(3, 4, 5)), rms, 1e-9));
}

TEST_CASE("LayerNorm is torch's, with and without bias") {
  CHECK(close(filled(LayerNorm<>(4))(x), layer_norm, 1e-6));
  CHECK(close(filled(LayerNorm<>(4, 1e-5, false))(x), without_bias, 1e-6));
  CHECK(close(filled(LayerNorm<double>(4))(ramp<double>(3, 4, 5)), layer_norm, 1e-9));
}

TEST_CASE("norms start at the identity") {
  CHECK(RMSNorm<>(7).weight.view().isOnes(0));
  CHECK(LayerNorm<>(7).weight.view().isOnes(0));
  CHECK(LayerNorm<>(7).bias.view().isZero(0));
  CHECK((RMSNorm<float, graft::lazy>(7)).weight.is_meta());
}

TEST_CASE("a norm of head_dim features normalises every head by itself") {
  CHECK(close(filled(RMSNorm<>(4))(ramp(3, 8, 8)), by_head, 1e-6));
  CHECK_THROWS_AS((void)RMSNorm<>(4)(ramp(3, 6)), graft::ShapeError);
  CHECK_THROWS_AS((void)LayerNorm<>(4)(ramp(3, 3)), graft::ShapeError);
}

TEST_CASE("rows of a batch and tensors with features last") {
  graft::Batch batch;
  batch.add(3);
  CHECK(close(filled(RMSNorm<>(4))(batch.input(x)).value(), rms, 1e-6));
  Eigen::Tensor<float, 3, Eigen::RowMajor> tensor(3, 1, 4);
  support::fill_ramp(tensor, 5);
  const auto y = filled(LayerNorm<>(4))(tensor);
  CHECK(y.dimension(1) == 1);
  CHECK(close(Eigen::Map<const Matrix<>>(y.data(), 3, 4), layer_norm, 1e-6));
}

/// A norm of somebody's own: by the largest value.
struct PeakNorm {
  Eigen::RowVectorXf weight = Eigen::RowVectorXf::Constant(6, 1.5f);
  Matrix<> operator()(const Matrix<>& in) const {
    return ((in.array().colwise() / in.array().abs().rowwise().maxCoeff()).rowwise() * weight.array()).matrix();
  }
  GRAFT_MODULE(weight)
};
template <>
struct graft::layer_traits<PeakNorm> {
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::norm;
  static Index features(const PeakNorm& norm) { return norm.weight.size(); }
  static void initialise(PeakNorm& norm, std::string_view, std::uint64_t) { norm.weight.setConstant(0.5f); }
};

// As sites: no adapter fits a norm, but modules_to_save does, whole.
namespace {
/// Two heads of three features go through the norm, of its own scalar.
template <class Norm>
struct Saved {
  using T = graft::compute_scalar<typename graft::detail::traits_of<Norm>::scalar>;
  graft::Adaptable<graft::Linear<T>> p{5, 6};
  graft::Adaptable<Norm> norm{3};
  auto operator()(const auto& in) const { return norm(p(in)); }
  GRAFT_MODULE(p, norm)

  Saved() {
    awkward::fill<T>(p->weight.untyped(), 1);
    awkward::fill<T>(p->bias.untyped(), 2);
    using W = typename graft::detail::traits_of<Norm>::scalar;
    awkward::fill<W>(norm->weight.untyped(), 3);
    if constexpr (requires { norm->bias; }) awkward::fill<W>(norm->bias.untyped(), 4);
  }
};
const graft::LoraConfig saves_norm{.r = 3, .lora_alpha = 7, .target_modules = {"p"}, .modules_to_save = {"norm"}};
using results::same_bits;
using results::same_values;
}  // namespace

TEST_CASE_TEMPLATE("a norm with room is the norm, and its copy takes its place", Norm, RMSNorm<>, RMSNorm<double>, RMSNorm<graft::bf16>,
                   LayerNorm<>, LayerNorm<double>, LayerNorm<graft::f16>) {
  using T = typename Saved<Norm>::T;
  Saved<Norm> net;
  const Matrix<T> in = awkward::rows<T>(7, 5), base = net(in), hidden = net.p(in);
  CHECK(same_bits(base, net.norm.base_layer()(hidden)));
  Eigen::Tensor<T, 3, Eigen::RowMajor> tensor(7, 1, 6);
  std::copy(hidden.data(), hidden.data() + hidden.size(), tensor.data());
  const auto of_tensor = net.norm(tensor);
  CHECK(std::equal(base.data(), base.data() + base.size(), of_tensor.data()));

  trained::inject(saves_norm, net, "a", 20);
  const Matrix<T> on = net(in);
  const Matrix<T> copied = net.norm(hidden);
  CHECK_FALSE(same_values(copied, base));  // the copy alone, without what LoRA adds before it
  CHECK_FALSE(same_values(on, copied));
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(net(in), base));
  }
  CHECK(same_bits(net(in), on));

  graft::Batch mixed;
  mixed.add(2, graft::base_only()).add(4, graft::select(net, {{"a"}})).add(1, graft::base_only());
  const Matrix<T> rows = net(mixed.input(in)).value();
  for (const graft::Index i : {0, 1, 6}) CHECK(same_bits(Matrix<T>(rows.row(i)), Matrix<T>(base.row(i))));
  CHECK(same_bits(Matrix<T>(rows.middleRows(2, 4)), Matrix<T>(on.middleRows(2, 4))));
  Matrix<T> into(7, 6);
  net.norm(hidden, mixed, into);
  CHECK(same_bits(Matrix<T>(into.middleRows(2, 4)), Matrix<T>(copied.middleRows(2, 4))));
  for (const graft::Index i : {0, 1, 6}) CHECK(same_bits(Matrix<T>(into.row(i)), Matrix<T>(base.row(i))));

  const graft::StateDict file = graft::get_peft_model_state_dict(net, "a");
  CHECK(file.contains("norm.weight"));
  Saved<Norm> loaded;
  (void)graft::inject_adapter_in_model(saves_norm, loaded, "a", {.low_cpu_mem_usage = true});
  (void)graft::set_peft_model_state_dict(loaded, file, "a");
  CHECK(results::bytes_of(graft::get_peft_model_state_dict(loaded, "a")) == results::bytes_of(file));
  CHECK(same_bits(loaded(in), on));

  Saved<Norm> copy = net;
  (void)graft::merge_and_unload(copy);
  CHECK(same_values(copy(in), on));
  (void)graft::unload(net);
  CHECK(same_bits(net(in), base));
}

struct OfPeaks {
  graft::Adaptable<graft::Linear<>> p{5, 6};
  graft::Adaptable<PeakNorm> norm;
  auto operator()(const auto& in) const { return norm(p(in)); }
  GRAFT_MODULE(p, norm)
};

TEST_CASE("a user's norm is saved whole too") {
  OfPeaks net;
  graft::initialise(net, 3);
  CHECK(net.norm->weight.isConstant(0.5f));  // its own start
  const Matrix<> in = awkward::rows<float>(7, 5), base = net(in);
  trained::inject(saves_norm, net, "a", 20);
  const graft::StateDict file = graft::get_peft_model_state_dict(net, "a");
  CHECK(file.at("norm.weight").shape == std::vector<graft::Index>{6});
  const Matrix<> hidden = net.p(in), on = net.norm(hidden);
  CHECK_FALSE(same_values(on, net.norm.base_layer()(hidden)));
  PeakNorm own;
  std::memcpy(own.weight.data(), file.at("norm.weight").data, 6 * sizeof(float));
  CHECK(same_bits(on, own(hidden)));
  (void)graft::unload(net);
  CHECK(same_bits(net(in), base));
}

TEST_CASE("a trained bias of a norm of heads is each head's") {
  Saved<LayerNorm<>> net;
  const Matrix<> in = awkward::rows<float>(7, 5), base = net(in);
  trained::inject(graft::LoraConfig{.r = 3, .bias = graft::Bias::all, .target_modules = {"p"}}, net, "a", 20);
  const Matrix<> on = net(in);
  CHECK_FALSE(same_values(on, base));
  const graft::StateDict values = graft::get_peft_model_state_dict(net, "a").clone();
  Saved<LayerNorm<>> written;
  std::memcpy(written.norm->bias.view().data(), values.at("norm.bias").data, 3 * sizeof(float));
  CHECK(same_values(on, written.norm(net.p(in))));
  CHECK_FALSE(same_values(on, net.norm.base_layer()(net.p(in))));
  Saved<LayerNorm<>> merged = net;
  (void)graft::merge_and_unload(merged);
  CHECK(same_values(merged(in), on));
}

TEST_CASE("a norm is no target, with room or without, and all_linear passes over it") {
  Saved<RMSNorm<>> net;
  const auto inject = [&](graft::LoraConfig config) { return graft::inject_adapter_in_model(config, net); };
  CHECK_THROWS_AS((void)inject({.target_modules = {"norm"}}), graft::TargetError);
  CHECK_THROWS_AS((void)inject({.target_modules = {"p"}, .trainable_token_indices = {{"norm", {0}}}}), graft::TargetError);
  CHECK_THROWS_AS((void)inject({.target_parameters = {"norm.weight"}}), graft::TargetError);
  CHECK(graft::active_adapters(net).empty());
  CHECK(inject({.target_modules = graft::all_linear}).matched.size() == 1);
  graft::initialise(net, 3);
  CHECK(net.norm->weight.view().isOnes(0));
}
