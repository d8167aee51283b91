#include <graft/modules/multihead_attention.hpp>

#include <doctest/doctest.h>

#include <graft/modules/initialise.hpp>
#include <graft/modules/visit.hpp>

#include "support/ramp.hpp"

using graft::Batch;
using graft::Index;
using graft::Matrix;
using graft::MultiheadAttention;
using graft::ShapeError;
using support::close;
using support::ramp;

namespace {
// m = nn.MultiheadAttention(6, 2, batch_first=True).double() with in_proj_weight = ramp(18, 6, salt=1), in_proj_bias =
// ramp(18, salt=2), out_proj.weight = ramp(6, 6, salt=3), out_proj.bias = ramp(6, salt=4); x, k, v = ramp(5, 6, salt=5) / 4,
// ramp(3, 6, salt=6) / 4, ramp(3, 6, salt=7) / 4: m(x, x, x), the same with the upper triangle masked, m(x, k, v);
// m(x, k, k) without biases; and with xb = ramp(2, 3, 6, salt=5) / 4, kb = ramp(2, 4, 6, salt=6) / 4: m(xb, xb, xb) masked,
// m(xb, kb, kb)
const std::vector<double> to_self{0.6778416361826, 1.389339947498, -3.035113579692, 0.3041524213467, 1.015650732662,
    -0.5338027945282, 0.2514771443381, 1.523224236434, -3.56081194053, -0.1058279145254, 1.165919177571, -1.043116999393,
    0.8878634326542, 0.9300202638943, -2.951895290765, 0.4964399728767, 0.5385968041169, -0.4683187505421, 0.4617780523799,
    1.391228129386, -3.283690630138, 0.09158911700903, 1.021039194015, -0.7788795655089, 0.2502180195077, 1.526727292658,
    -3.562644425981, -0.1067170396769, 1.169792233474, -1.044579485166};
const std::vector<double> causal{1.31103515625, 0.341796875, -2.46923828125, 0.97509765625, 0.005859375, 0.06982421875,
    0.4152133606006, 1.39790418934, -3.612726985589, 0.08191433385718, 1.064605162597, -1.071026012333, 1.479454912682,
    0.2425566012279, -2.714810243867, 1.091839555943, -0.145058755511, -0.2274256006058, 0.6292882069544, 1.283465059615,
    -3.080802873254, 0.2490828078241, 0.9032596604845, -0.5860082723844, 0.2502180195077, 1.526727292658, -3.562644425981,
    -0.1067170396769, 1.169792233474, -1.044579485166};
const std::vector<double> across{1.235934525218, 0.2180578877639, -2.943759717021, 0.7789132067473, -0.2389634307067,
    -0.5257810354915, 1.630154320886, -0.002342617068453, -2.528149984125, 1.159166453444, -0.4733304845107, -0.1241378515671,
    0.9386201169968, 0.7530374016962, -2.99344872924, 0.5086617501264, 0.3230790348259, -0.54840709611, 1.387891969421,
    0.2375825076907, -2.719916022115, 0.9303741651816, -0.2199352965486, -0.3024338263545, 1.641607239697, -0.02462222272746,
    -2.524731168563, 1.169597961181, -0.4966315012438, -0.1217404470792};
const std::vector<double> no_bias{-0.1116440105627, 0.2207340317082, 0.0283341956142, -0.08728943446814, 0.2450886078028,
    0.0526887717088, -0.2131027663386, 0.2548362911605, -0.08694372366521, -0.2087057248381, 0.2592333326609, -0.08254668216475,
    0.3566809720551, -0.03863283292202, -0.3152429294985, 0.3603355191242, -0.03497828585294, -0.3115883824294,
    -0.03506210663972, 0.1317117760664, -0.1138153021265, -0.02678699645582, 0.1399868862503, -0.1055401919426, -0.2369780516024,
    0.2752662022957, -0.07666133472349, -0.2319326276292, 0.280311626269, -0.0716159107502};
const std::vector<double> batch_to_self{1.31103515625, 0.341796875, -2.46923828125, 0.97509765625, 0.005859375, 0.06982421875,
    0.4152133606006, 1.39790418934, -3.612726985589, 0.08191433385718, 1.064605162597, -1.071026012333, 1.479454912682,
    0.2425566012279, -2.714810243867, 1.091839555943, -0.145058755511, -0.2274256006058, 0.220703125, 1.3486328125,
    -2.9365234375, -0.2138671875, 0.9140625, -0.49609375, -0.002076142105063, 1.677073147793, -3.620915254237, -0.3727346470147,
    1.306414642883, -1.116573759147, 0.7268673911209, 1.022724475011, -2.910398671456, 0.2928185406955, 0.5886756245851,
    -0.469447521881};
const std::vector<double> batch_across{1.028219930325, 1.112000198137, -3.005506577312, 0.619857265678, 0.7036375334902,
    -0.5388692419581, 0.9208517700218, 1.112493344501, -3.113171989609, 0.4925403695945, 0.6841819440734, -0.6664833900361,
    1.586152409018, 0.7550881656567, -3.373870915836, 1.154863331073, 0.3237990877115, -0.930159993781, 1.336515913768,
    0.8373498656272, -3.355158114418, 0.9767250053148, 0.4775589571745, -0.8399490228705, 0.9731913420444, 1.179880206029,
    -3.653021277435, 0.6185679445018, 0.8252568084863, -1.132644674978, 1.580550507521, 0.5906956868925, -3.198186455008,
    1.209910013624, 0.2200551929952, -0.6938269489053};

template <class T>
MultiheadAttention<T> attention(bool bias = true) {
  MultiheadAttention<T> made(6, 2, bias);
  made.in_proj_weight.view() = ramp<T>(18, 6, 1);
  made.out_proj.weight.view() = ramp<T>(6, 6, 3);
  if (bias) {
    made.in_proj_bias.view() = ramp<T>(1, 18, 2);
    made.out_proj.bias.view() = ramp<T>(1, 6, 4);
  }
  return made;
}
template <class T>
Matrix<T> quarters(Index rows, int salt) {
  return ramp<T>(rows, 6, salt) / T(4);
}
template <class T>
Eigen::Tensor<T, 3, Eigen::RowMajor> tensor(Index sequences, Index rows, int salt) {
  Eigen::Tensor<T, 3, Eigen::RowMajor> made(sequences, rows, 6);
  const Matrix<T> values = quarters<T>(sequences * rows, salt);
  std::copy_n(values.data(), values.size(), made.data());
  return made;
}
template <class T>
Matrix<T> rows_of(const Eigen::Tensor<T, 3, Eigen::RowMajor>& y) {
  return Eigen::Map<const Matrix<T>>(y.data(), y.dimension(0) * y.dimension(1), y.dimension(2));
}
}  // namespace

TEST_CASE_TEMPLATE("an attention is torch's, to itself and to others", T, float, double) {
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  const auto layer = attention<T>();
  const Matrix<T> x = quarters<T>(5, 5), k = quarters<T>(3, 6), v = quarters<T>(3, 7);
  CHECK(close(layer(x), to_self, tolerance));
  CHECK(close(layer(x, {.causal = true}), causal, tolerance));
  CHECK(close(layer(x, k, v), across, tolerance));
  CHECK(close(attention<T>(false)(x, k, k), no_bias, tolerance));
  CHECK(layer(x, x, x) == layer(x));
  CHECK_FALSE(close(layer(x), causal, 1e-2));
}

TEST_CASE_TEMPLATE("tensors are sequences of equal length", T, float, double) {
  const double tolerance = std::is_same_v<T, double> ? 1e-12 : 1e-5;
  const auto layer = attention<T>();
  const auto x = tensor<T>(2, 3, 5), k = tensor<T>(2, 4, 6);
  const Eigen::Tensor<T, 3, Eigen::RowMajor> y = layer(x, {.causal = true}), z = layer(x, k, k);
  CHECK(y.dimension(1) == 3);
  CHECK(close(rows_of<T>(y), batch_to_self, tolerance));
  CHECK(z.dimension(1) == 3);
  CHECK(close(rows_of<T>(z), batch_across, tolerance));
  CHECK_THROWS_AS((void)layer(x, tensor<T>(1, 4, 6), tensor<T>(1, 4, 6)), ShapeError);
}

TEST_CASE("the sequences of a batch are on their own, and a cache continues one") {
  const auto layer = attention<float>();
  const Matrix<float> x = quarters<float>(5, 5), k = quarters<float>(5, 6);
  Batch batch;
  batch.add(2).add(3);
  Matrix<float> parts(5, 6), crossed(5, 6);
  parts << layer(x.topRows(2)), layer(x.bottomRows(3));
  crossed << layer(x.topRows(2), k.topRows(2), k.topRows(2)), layer(x.bottomRows(3), k.bottomRows(3), k.bottomRows(3));
  CHECK(Matrix<float>(layer(batch.input(x)).value()) == parts);
  const auto keys = batch.input(k);
  CHECK(Matrix<float>(layer(batch.input(x), keys, keys).value()) == crossed);
  CHECK_FALSE(parts == layer(x));

  graft::KvCache<float> cache(1, 6, 8);
  const graft::AttendOptions options{.causal = true, .layer = 0};
  Matrix<float> by_steps(5, 6);
  for (const auto& [begin, rows] : {std::pair<Index, Index>{0, 3}, {3, 1}, {4, 1}}) {
    Batch step;
    step.add(rows, {}, &cache, begin);
    by_steps.middleRows(begin, rows) = layer(step.input(x.middleRows(begin, rows)), options).value();
  }
  CHECK(by_steps == layer(x, options));
}

TEST_CASE("narrow weights take float activations") {
  MultiheadAttention<graft::bf16> narrow(6, 2);
  MultiheadAttention<float> wide(6, 2);
  const auto copy = [](auto& from, auto& to) {
    for (Index i = 0; i < from.size(); ++i) {
      from.view().data()[i] = graft::bf16(float(support::ramp_at(i, 3)) * 1.01f);
      to.view().data()[i] = float(from.view().data()[i]);
    }
  };
  copy(narrow.in_proj_weight, wide.in_proj_weight);
  copy(narrow.in_proj_bias, wide.in_proj_bias);
  copy(narrow.out_proj.weight, wide.out_proj.weight);
  copy(narrow.out_proj.bias, wide.out_proj.bias);
  const Matrix<float> x = quarters<float>(5, 5), expected = wide(x, x.topRows(2), x.topRows(2));
  CHECK(close(narrow(x, x.topRows(2), x.topRows(2)), std::vector<double>(expected.data(), expected.data() + expected.size()), 1e-5));
}

TEST_CASE("its tensors are called as torch's") {
  MultiheadAttention<> layer(6, 2);
  std::vector<std::string> names;
  graft::visit(layer, [&](std::string_view path, auto&) { names.emplace_back(path); });
  CHECK(names == std::vector<std::string>{"", "in_proj_weight", "in_proj_bias", "out_proj", "out_proj.weight", "out_proj.bias"});
}

TEST_CASE("it starts as torch's: Xavier's weight, no biases") {
  MultiheadAttention<> layer(40, 5);
  layer.in_proj_bias.view().setOnes();
  layer.out_proj.bias.view().setOnes();
  graft::initialise(layer, 3);
  const float xavier = std::sqrt(6.0f / (40 + 120)), kaiming = 1 / std::sqrt(40.0f);
  CHECK(layer.in_proj_weight.view().cwiseAbs().maxCoeff() <= xavier);
  CHECK(layer.in_proj_weight.view().cwiseAbs().maxCoeff() > 0.97f * xavier);
  CHECK(layer.out_proj.weight.view().cwiseAbs().maxCoeff() <= kaiming);
  CHECK(layer.out_proj.weight.view().cwiseAbs().maxCoeff() > 0.97f * kaiming);
  CHECK(layer.in_proj_bias.view().isZero(0));
  CHECK(layer.out_proj.bias.view().isZero(0));
}

TEST_CASE("what does not fit is refused") {
  CHECK_THROWS_AS((void)MultiheadAttention<>(6, 4), ShapeError);
  CHECK_THROWS_AS((void)MultiheadAttention<>(6, 0), ShapeError);
  const auto layer = attention<float>();
  CHECK_THROWS_AS((void)layer(ramp(2, 5, 1)), ShapeError);
  CHECK_THROWS_AS((void)layer(quarters<float>(2, 1), quarters<float>(3, 1), quarters<float>(2, 1)), ShapeError);
  CHECK_THROWS_AS((void)layer(quarters<float>(2, 1), Matrix<float>(0, 6), Matrix<float>(0, 6)), ShapeError);
  CHECK(layer(Matrix<float>(0, 6)).rows() == 0);
}
