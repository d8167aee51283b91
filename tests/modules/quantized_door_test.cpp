#include <graft/modules/quantized_door.hpp>

#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <graft/quantized.hpp>

#include "support/results.hpp"
#include "support/trained.hpp"

using graft::Index;
using graft::Matrix;
using graft::MergeOptions;
using graft::QuantFormat;
using graft::QuantizedLinear;
using graft::Unmerge;

namespace {

constexpr QuantFormat formats[] = {QuantFormat::int8, QuantFormat::nf4, QuantFormat::fp4, QuantFormat::int4};

struct Net {
  graft::Adaptable<QuantizedLinear> p;
  auto operator()(const auto& x) const { return p(x); }
  GRAFT_MODULE(p)
};
Net made(QuantFormat format, Index in = 71, Index out = 13) {
  Net net{{in, out, true, format}};
  (void)net.p->requantize(awkward::rows<float>(out, in, 3));
  awkward::fill<float>(net.p->bias.untyped(), 4);
  return net;
}
const graft::LoraConfig lora{.r = 3, .lora_alpha = 7, .target_modules = {"p"}, .lora_bias = true};
const MergeOptions kept{.unmerge = Unmerge::backup, .requantize = true};

/// W + 7/3 · B·A, by plain loops in double.
Matrix<double> sum_of(const Net& net, const std::string& name) {
  Matrix<double> sum = net.p->dequantize().cast<double>();
  const auto a = net.p.parameter(name, "lora_A").view<float>();
  const auto b = net.p.parameter(name, "lora_B").view<float>();
  for (Index o = 0; o < sum.rows(); ++o)
    for (Index i = 0; i < sum.cols(); ++i)
      for (Index j = 0; j < 3; ++j) sum(o, i) += 7.0 / 3 * double(b(o, j)) * double(a(j, i));
  return sum;
}
double largest(const Matrix<double>& m) { return m.cwiseAbs().maxCoeff(); }

struct Said {
  std::string problem, fix;
};
template <class F>
Said refused(Net& net, F merge) {
  const std::string before = results::everything(net);
  const Matrix<float> weight = net.p->dequantize();
  try {
    merge();
    FAIL("nothing was thrown");
  } catch (const graft::MergeError& error) {
    CHECK(results::everything(net) == before);
    CHECK(results::same_bits(net.p->dequantize(), weight));
    return {error.problem, error.fix};
  }
  return {};
}

}  // namespace

TEST_CASE("rows written through the door are rounded, what was saved comes back to the bit, and the cost is told") {
  for (const QuantFormat format : formats) {
    Net net = made(format);
    QuantizedLinear& layer = net.p.base_layer();
    static_assert(std::is_same_v<graft::detail::DoorOf<QuantizedLinear>::type, graft::detail::QuantizedDoor<QuantizedLinear>>);
    graft::detail::QuantizedDoor<QuantizedLinear> door(layer);
    CHECK(door.is_quantized());
    CHECK(door.is_writable());
    CHECK(door.data() == nullptr);
    CHECK(door.storage() == nullptr);
    CHECK(door.parameter() == nullptr);
    CHECK(door.base().shape() == graft::Shape{13, 71});
    CHECK(door.report().max_error == 0);
    const Matrix<float> before = layer.dequantize();
    const graft::ParameterData saved = door.save();
    CHECK(saved.bytes() == layer.weight_bytes());
    Matrix<float> shown(4, 71);
    door.base().copy_rows(5, graft::out(shown));
    CHECK(results::same_bits(shown, Matrix<float>(before.middleRows(5, 4))));

    const Matrix<float> rows = awkward::rows<float>(4, 71, 9);
    door.write_rows(5, graft::in(rows));
    Net whole = made(format);  // the same rows, rounded with the others at once
    Matrix<float> all = before;
    all.middleRows(5, 4) = rows;
    (void)whole.p->requantize(all);
    CHECK(results::same_bits(layer.dequantize().middleRows(5, 4).eval(), whole.p->dequantize().middleRows(5, 4).eval()));
    CHECK(results::same_bits(layer.dequantize().topRows(5).eval(), before.topRows(5).eval()));
    CHECK(results::same_bits(layer.dequantize().bottomRows(4).eval(), before.bottomRows(4).eval()));
    const Matrix<double> lost = rows.cast<double>() - layer.dequantize().middleRows(5, 4).cast<double>();
    CHECK(door.report().max_error == largest(lost));
    CHECK(std::abs(door.report().rms_error - std::sqrt(lost.squaredNorm() / (4 * 71))) < 1e-12);
    CHECK(std::abs(door.report().relative_error - lost.norm() / rows.cast<double>().norm()) < 1e-12);
    door.restore(saved);
    CHECK(results::same_bits(layer.dequantize(), before));
    float values[2] = {1, 2};
    CHECK(door.stay_finite(values, 2));
    values[1] = std::numeric_limits<float>::infinity();
    CHECK_FALSE(door.stay_finite(values, 2));
  }
}

TEST_CASE("merging into a quantised weight has to be asked for") {
  Net net = made(QuantFormat::int8);
  trained::inject(lora, net, "a");
  const Said unasked = refused(net, [&] { (void)graft::merge_adapter(net); });
  CHECK(unasked.problem.find("is quantised") != std::string::npos);
  CHECK(unasked.fix.find("MergeOptions::requantize") != std::string::npos);
  CHECK(refused(net, [&] { (void)graft::merge_and_unload(net); }).fix == unasked.fix);
  for (const Unmerge how : {Unmerge::by_delta, Unmerge::reread})
    CHECK(refused(net, [&] { (void)graft::merge_adapter(net, {}, {.unmerge = how, .requantize = true}); }).fix.find("backup") !=
          std::string::npos);
}

TEST_CASE("merged, the weight is the nearest to the sum; unmerged, it has its bytes again") {
  for (const QuantFormat format : formats)
    for (const Index out : {Index(13), Index(1001)}) {  // one block of rows, and several
      Net net = made(format, 71, out);
      trained::inject(lora, net, "a");
      const Matrix<float> before = net.p->dequantize(), x = awkward::rows<float>(3, 71);
      const Matrix<float> y = net(x);
      const Matrix<double> sum = sum_of(net, "a");
      REQUIRE(largest(sum - before.cast<double>()) > 0.1);
      const auto report = graft::merge_adapter(net, {}, kept);
      const Matrix<double> lost = sum - net.p->dequantize().cast<double>();
      REQUIRE(report.requantized.size() == 1);
      CHECK(report.requantized[0].layer == "p");
      CHECK(std::abs(report.requantized[0].error.max_error - largest(lost)) < 1e-5 * largest(sum));
      CHECK(std::abs(report.requantized[0].error.relative_error - lost.norm() / sum.norm()) < 1e-5);
      CHECK(report.requantized[0].error.relative_error > 1e-4);
      if (format == QuantFormat::int8)
        for (Index o = 0; o < out; ++o) {
          const double step = sum.row(o).cwiseAbs().maxCoeff() / 127;
          CHECK(lost.row(o).cwiseAbs().maxCoeff() <= step / 2 * 1.001);
        }
      // what forwards compute is the rounded weight, and near what they computed before
      const Matrix<double> rounded = x.cast<double>() * net.p->dequantize().cast<double>().transpose();
      const Matrix<double> off = net(x).cast<double>() - rounded;
      CHECK(largest(off.rowwise() - off.row(0)) < 1e-4);  // the merged bias is left
      CHECK(largest(net(x).cast<double>() - y.cast<double>()) <= 71 * largest(lost));
      {
        const auto off_again = graft::disable_adapter(net);
        CHECK(results::same_bits(net.p->dequantize(), before));
      }
      CHECK(largest(sum - net.p->dequantize().cast<double>()) == largest(lost));
      (void)graft::unmerge_adapter(net);
      CHECK(results::same_bits(net.p->dequantize(), before));
      CHECK(results::same_bits(net(x), y));
      (void)graft::merge_adapter(net, {}, kept);
      (void)graft::unmerge_adapter(net);
      CHECK(results::same_bits(net.p->dequantize(), before));
    }
}

TEST_CASE("several adapters and methods are rounded once together, and merge_and_unload needs no backup") {
  Net net = made(QuantFormat::nf4), apart = net;
  const auto inject = [](Net& into) {
    trained::inject(lora, into, "a", 20);
    trained::inject(graft::Ia3Config{.target_modules = {"p"}}, into, "b", 21);
    graft::set_adapter(into, {"a", "b"});
  };
  inject(net);
  inject(apart);
  const Matrix<float> x = awkward::rows<float>(3, 71);
  const Matrix<float> y = net(x);
  const auto report = graft::merge_and_unload(net, {}, {.requantize = true});
  REQUIRE(report.requantized.size() == 1);
  CHECK(report.warnings.empty());
  const Matrix<double> near = net(x).cast<double>() - y.cast<double>();
  CHECK(largest(near) <= 71 * report.requantized[0].error.max_error + 1e-4);
  CHECK(largest(near) > 0);
  (void)graft::merge_adapter(apart, {}, kept);
  CHECK(results::same_bits(apart(x), net(x)));
}

TEST_CASE("NaN is never put into a quantised weight") {
  Net net = made(QuantFormat::int8);
  trained::inject(lora, net, "a");
  net.p.parameter("a", "lora_B").view<float>()(2, 1) = std::numeric_limits<float>::quiet_NaN();
  MergeOptions unsafe = kept;
  unsafe.safe = false;
  (void)refused(net, [&] { (void)graft::merge_adapter(net, {}, unsafe); });
}
