#include <doctest/doctest.h>

#include <graft/graft.hpp>
#include <graft/quantized.hpp>

#include "support/allocation_counter.hpp"

using graft::Index;
using graft::Linear;
using graft::Matrix;
using graft::QuantFormat;
using graft::QuantizedLinear;

namespace {

constexpr Index in = 128, out = 3;

// w = ((i * 37 + 11) % 101 - 50) / 64 * (1 + i // 64) and x = ((i * 29 + 3) % 61 - 30) / 32
Matrix<> weight() {
  Matrix<> w(out, in);
  for (Index i = 0; i < w.size(); ++i) w.data()[i] = float((i * 37 + 11) % 101 - 50) / 64 * float(1 + i / 64);
  return w;
}
Matrix<> input() {
  Matrix<> x(2, in);
  for (Index i = 0; i < x.size(); ++i) x.data()[i] = float((i * 29 + 3) % 61 - 30) / 32;
  return x;
}
Linear<> dense(const Matrix<>& w) {
  Linear<> layer(w.cols(), w.rows());
  layer.weight.view() = w;
  for (Index i = 0; i < w.rows(); ++i) layer.bias.data()[i] = 0.5f - 0.25f * float(i);
  return layer;
}

// Made with bitsandbytes 0.50.2: quantize_4bit(w, blocksize=64, quant_type=...), then x @ dequantize_4bit(...).T in
// double.
const char* const nf4_bytes =
    "17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e19f3b05d17e29f3b05d18e2af4c06e18e"
    "3b04d17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2af4c1"
    "6d18e3b04c17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05d18e2"
    "af4c16d18e3b04c17e29f3b05d17e2af4c06d18e2a04c16e29f3b05d17e29f3c05d18e2af4c16e18e3b05d17e29f3b05";
const char* const fp4_bytes =
    "a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a63d4bf5a92d63c4be2a12d73c5be2a63"
    "d4bf5a92a63c4be5a12d73c5be2a13d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a63d4bf5a92d63c4be5a12d73c5b"
    "e2a63d4bf5a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a63d4bf5a92d63c4be5a12d"
    "73c5be2a63d4bf5a92d63c4be5a12d73c5be2a12d7bf5a92a63c4be5a02d63c4be2a12d73f5a92a63d4bf5a92d63c4be";
const std::vector<float> absmax{0.78125f, 1.53125f, 2.34375f, 3.125f, 3.90625f, 4.6875f};
const double with_nf4[] = {-0.1828710159752518, 3.206965177785605, -21.3650976177305, -5.923229574458674, 0.6880263201892376, 3.224714311771095};
const double with_fp4[] = {-0.7214965518796816, 3.4787493891781196, -20.74000059987884, -6.1322275602433365, 0.20001710020005703, 2.6677451247815043};
const double with_nested[] = {-0.18335395050235093, 3.207801805343479, -21.35522955097258, -5.925389558309689, 0.6893682237714529, 3.223308906890452};

std::vector<std::uint8_t> bytes_of(const std::string& hex) {
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) bytes.push_back(std::uint8_t(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}
bool close(const Matrix<>& y, const double* expected) {
  for (Index i = 0; i < y.size(); ++i)
    if (!(std::abs(double(y.data()[i]) - expected[i]) <= 1e-5 * (1 + 21.4))) return false;
  return y.size() == 6;
}

bool same(const Matrix<>& a, const Matrix<>& b) { return a == b; }

struct Net {
  graft::Adaptable<QuantizedLinear> layer{in, out};
  auto operator()(const auto& x) const { return layer(x); }
  GRAFT_MODULE(layer)
};

}  // namespace

TEST_CASE("bitsandbytes' NF4 and FP4 bytes give bitsandbytes' products") {
  const auto nf4 = bytes_of(nf4_bytes), fp4 = bytes_of(fp4_bytes);
  CHECK(close(QuantizedLinear::from_bitsandbytes(in, out, {.packed = nf4, .absmax = absmax})(input()), with_nf4));
  CHECK(close(QuantizedLinear::from_bitsandbytes(in, out, {.packed = fp4, .absmax = absmax}, QuantFormat::fp4)(input()), with_fp4));
}

TEST_CASE("a nested absmax is bitsandbytes' double quantisation") {
  const auto nf4 = bytes_of(nf4_bytes);
  const std::vector<std::uint8_t> index{0, 27, 57, 198, 226, 255};
  std::vector<float> code(256, 0.0f);
  code[0] = -0.992968738079071f, code[27] = -0.61328125f, code[57] = -0.19140625f;
  code[198] = 0.20546874403953552f, code[226] = 0.5992187261581421f, code[255] = 1.0f;
  const std::vector<float> factors{1.9583332538604736f};
  graft::BitsAndBytesWeight nested{.packed = nf4, .absmax = {}, .nested_absmax_index = index, .nested_code = code,
                                   .nested_absmax = factors, .nested_offset = 2.7291667461395264};
  CHECK(close(QuantizedLinear::from_bitsandbytes(in, out, nested)(input()), with_nested));
  nested.nested_code = {};
  CHECK_THROWS_AS(QuantizedLinear::from_bitsandbytes(in, out, nested), graft::ShapeError);
}

TEST_CASE("quantising gives what bitsandbytes gives") {
  const auto nf4 = bytes_of(nf4_bytes), fp4 = bytes_of(fp4_bytes);
  QuantizedLinear layer(in, out, false);
  const graft::QuantizeReport report = layer.requantize(weight());
  CHECK(same(layer.dequantize(), QuantizedLinear::from_bitsandbytes(in, out, {.packed = nf4, .absmax = absmax}).dequantize()));
  CHECK(std::abs(report.rms_error - 0.16460816373375572) < 1e-7);
  CHECK(std::abs(report.max_error - 0.65625) < 1e-6);
  QuantizedLinear other(in, out, false, QuantFormat::fp4);
  (void)other.requantize(weight());
  CHECK(same(other.dequantize(),
             QuantizedLinear::from_bitsandbytes(in, out, {.packed = fp4, .absmax = absmax}, QuantFormat::fp4).dequantize()));
}

TEST_CASE("ggml's q4_0 blocks become an int4 layer") {
  std::vector<std::uint8_t> blocks;
  for (int b = 0; b < int(out * in / 32); ++b) {
    const std::uint16_t d = graft::f16(0.0625f * float(b % 5 - 2)).bits;
    blocks.push_back(std::uint8_t(d & 255u));
    blocks.push_back(std::uint8_t(d >> 8));
    for (int j = 0; j < 16; ++j) blocks.push_back(std::uint8_t((b * 89 + j * 151 + 7) % 256));
  }
  const QuantizedLinear layer = QuantizedLinear::from_q4_0(in, out, blocks, true);
  CHECK(layer.format() == QuantFormat::int4);
  CHECK(layer.bias.size() == out);
  Matrix<> w(out, in);
  for (Index i = 0; i < w.size(); ++i) {
    const std::uint8_t* block = blocks.data() + i / 32 * 18;
    const int j = int(i % 32), nibble = j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4;
    w.data()[i] = 0.0625f * float(i / 32 % 5 - 2) * float(nibble - 8);
  }
  CHECK(same(layer.dequantize(), w));
  CHECK(w.cwiseAbs().maxCoeff() > 0.5f);
  Linear<> wide = dense(w);
  wide.bias.view().setZero();
  CHECK(same(layer(input()), wide(input())));
  CHECK_THROWS_AS(QuantizedLinear::from_q4_0(in, out + 1, blocks), graft::ShapeError);
  CHECK_THROWS_AS(QuantizedLinear::from_q4_0(in - 16, out, blocks), graft::ShapeError);
}

TEST_CASE("every format has the bits of a linear layer over its float values, whatever the number of rows") {
  for (const QuantFormat format : {QuantFormat::int8, QuantFormat::nf4, QuantFormat::fp4, QuantFormat::int4})
    for (const Index width : {7, 65, 128, 1024}) {
      const Matrix<> w = Matrix<>::NullaryExpr(13, width, [](Index i, Index j) { return float((i * 31 + j * 17) % 29 - 14) / 16; });
      const QuantizedLinear narrow = QuantizedLinear::quantize(dense(w), format);
      const Linear<> wide = dense(narrow.dequantize());
      CHECK(!narrow.dequantize().isApprox(w, 1e-4f));
      CHECK(narrow.dequantize().isApprox(w, 0.25f));
      const Matrix<> x = Matrix<>::NullaryExpr(50, width, [](Index i, Index j) { return float((i * 13 + j * 7) % 23 - 11) / 8; });
      for (const Index n : {1, 3, 50}) CHECK(same(narrow(Matrix<>(x.topRows(n))), wide(Matrix<>(x.topRows(n)))));
      CHECK(narrow.weight_bytes() < std::size_t(13 * width * 4) * 3 / 4 + 13 * 100);
    }
}

TEST_CASE("LoRA stands over a quantised layer, through every door, and off it is the layer") {
  Net net;
  net.layer.base_layer() = QuantizedLinear::quantize(dense(weight()));
  const Matrix<> x = input(), before = net(x);
  (void)graft::inject_adapter_in_model(graft::LoraConfig{.r = 3, .lora_alpha = 5, .target_modules = {"layer"}}, net);
  Eigen::Map<Matrix<>> A(const_cast<float*>(net.layer.parameter("default", "lora_A").view<float>().data()), 3, in);
  Eigen::Map<Matrix<>> B(const_cast<float*>(net.layer.parameter("default", "lora_B").view<float>().data()), out, 3);
  for (Index i = 0; i < A.size(); ++i) A.data()[i] = float(i % 7 - 3) / 4;
  for (Index i = 0; i < B.size(); ++i) B.data()[i] = float(i % 5 - 2) / 2;
  const Matrix<double> expected = before.cast<double>() + 5.0 / 3 * (x.cast<double>() * A.cast<double>().transpose()) * B.cast<double>().transpose();
  const Matrix<> y = net(x);
  CHECK((y - before).cwiseAbs().maxCoeff() > 1);
  CHECK((y.cast<double>() - expected).cwiseAbs().maxCoeff() <= 1e-5 * (1 + expected.cwiseAbs().maxCoeff()));
  graft::Batch batch;
  batch.add(2);
  CHECK(Matrix<>(net(batch.input(x)).value()) == y);
  const auto off = graft::disable_adapter(net);
  CHECK(net(x) == before);
}

TEST_CASE("a warm forward into given memory allocates nothing") {
  Net net;
  net.layer.base_layer() = QuantizedLinear::quantize(dense(weight()), QuantFormat::int8);
  const Matrix<> x = input();
  Matrix<> y(2, out);
  graft::Batch batch;
  batch.add(2);
  net.layer(x, batch, y);
  const auto allocations = support::allocations_of([&] { net.layer(x, batch, y); });
  CHECK(allocations == 0);
  CHECK(y == net(x));
}

TEST_CASE("requantising replaces the weight, reports the error, and refuses another shape") {
  QuantizedLinear layer = QuantizedLinear::quantize(dense(weight()), QuantFormat::int8);
  const Matrix<> target = 2 * layer.dequantize();
  const auto exact = layer.requantize(target);
  CHECK(exact.relative_error < 1e-6);
  CHECK((layer.dequantize() - target).cwiseAbs().maxCoeff() < 1e-5f);
  const auto lossy = layer.requantize(weight());
  CHECK(lossy.max_error > 0);
  CHECK(lossy.relative_error < 0.01);
  CHECK_THROWS_AS(layer.requantize(Matrix<>(out, in + 1)), graft::ShapeError);
}

TEST_CASE("bytes that do not fit are refused") {
  const auto nf4 = bytes_of(nf4_bytes);
  CHECK_THROWS_AS(QuantizedLinear::from_bitsandbytes(in, out + 1, {.packed = nf4, .absmax = absmax}), graft::ShapeError);
  CHECK_THROWS_AS(QuantizedLinear::from_bitsandbytes(96, 4, {.packed = nf4, .absmax = absmax}), graft::ShapeError);
  CHECK_THROWS_AS(QuantizedLinear::from_bitsandbytes(in, out, {.packed = nf4, .absmax = absmax}, QuantFormat::int8), graft::ShapeError);
  CHECK_THROWS_AS(QuantizedLinear(in, out)(Matrix<>(1, in - 1)), graft::ShapeError);
}
