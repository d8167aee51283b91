#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "../kernels/quantize.hpp"
#include "linear.hpp"
#include "quantized_door.hpp"

namespace graft {

/// How a QuantizedLinear keeps its weight.
enum class QuantFormat {
  int8,  ///< a signed byte, one factor per row
  nf4,   ///< bitsandbytes' NF4, one factor per 64 columns
  fp4,   ///< bitsandbytes' FP4, one factor per 64 columns
  int4   ///< integers of 4 bits, one factor per 32 columns, as ggml's q4_0
};

/// A 4-bit weight as bitsandbytes keeps it, and as its files hold it.
struct BitsAndBytesWeight {
  std::span<const std::uint8_t> packed;  ///< `weight`: (out · in / 2) bytes
  std::span<const float> absmax;         ///< `weight.absmax`; empty when it is nested
  // double quantisation: `weight.absmax` in bytes, `weight.nested_quant_map`, `weight.nested_absmax`, nested_offset
  std::span<const std::uint8_t> nested_absmax_index = {};
  std::span<const float> nested_code = {};    ///< (256)
  std::span<const float> nested_absmax = {};  ///< one per nested_block_size
  double nested_offset = 0;
  Index block_size = 64, nested_block_size = 256;
};

/// y = x·Wᵀ + b over a weight of one byte or four bits; x and y stay float, and no activation is rounded. It is a linear
/// layer for adapters: `Adaptable<QuantizedLinear>`. Merging rounds its weight anew, so it has to be asked for
/// (`MergeOptions::requantize`) and says what it cost. The results have the bits of a Linear over `dequantize()`.
class QuantizedLinear {
 public:
  Parameter<float> bias;  ///< (out) or empty

  /// Zeros.
  QuantizedLinear(Index in, Index out, bool has_bias = true, QuantFormat format = QuantFormat::nf4)
      : bias(Shape{has_bias ? out : 0}), in_(in), out_(out), format_(format) {
    if (format == QuantFormat::int8) {
      bytes_.assign(std::size_t(out * in), 0);
      scales_.assign(std::size_t(out), 0.0f);
    } else {
      words_.assign(std::size_t(out * stride() / 8), 0u);
      scales_.assign(std::size_t(out * stride() >> block_shift()), 0.0f);
    }
  }
  /// The nearest to a layer in float, its bias included.
  template <class T, class Storage, class Product>
  static QuantizedLinear quantize(const Linear<T, Storage, Product>& layer, QuantFormat format = QuantFormat::nf4) {
    QuantizedLinear made(layer.weight.cols(), layer.weight.rows(), layer.bias.size() != 0, format);
    (void)made.requantize(to_float(layer.weight));
    if (layer.bias.size() != 0) made.bias.view() = to_float(layer.bias);
    return made;
  }
  /// Takes bitsandbytes' bytes as they are, rounding nothing. @throws ShapeError where they do not fit (out, in), and
  /// where a block crosses the end of a row.
  static QuantizedLinear from_bitsandbytes(Index in, Index out, const BitsAndBytesWeight& weight, QuantFormat format = QuantFormat::nf4,
                                           bool has_bias = false) {
    QuantizedLinear made(in, out, has_bias, format);
    const Index block = weight.block_size;
    if ((format != QuantFormat::nf4 && format != QuantFormat::fp4) || block != Index{1} << made.block_shift())
      fail<ShapeError>("a bitsandbytes weight of blocks of " + std::to_string(block) + " was given",
                       "nf4 and fp4 in blocks of 64 can be read", "quantise it with blocksize=64");
    if (in % block != 0)
      fail<ShapeError>("a bitsandbytes weight of " + std::to_string(in) + " columns has blocks that cross rows",
                       "every row has whole blocks of " + std::to_string(block) + " here", "dequantise it and quantise it anew");
    const std::vector<float> absmax = weight.absmax.empty() ? unnested(weight) : std::vector<float>(weight.absmax.begin(), weight.absmax.end());
    if (Index(weight.packed.size()) * 2 != out * in || Index(absmax.size()) * block != out * in)
      fail<ShapeError>("a bitsandbytes weight has " + std::to_string(weight.packed.size()) + " bytes and " + std::to_string(absmax.size()) +
                           " blocks where " + to_string(Shape{out, in}) + " needs " + std::to_string(out * in / 2) + " and " +
                           std::to_string(out * in / block),
                       "two weights are a byte, and each block has one absmax", "check in and out");
    kernels::repack_bitsandbytes(out, in, weight.packed.data(), absmax.data(), made.code(), made.block_shift(), made.words_.data(),
                                 made.scales_.data());
    return made;
  }
  /// Takes ggml's q4_0 blocks as they are, rounding nothing: rows of in / 32 blocks of 18 bytes, as a GGUF file holds a
  /// tensor (out, in). The layer is an int4 one. @throws ShapeError where they do not fit.
  static QuantizedLinear from_q4_0(Index in, Index out, std::span<const std::uint8_t> blocks, bool has_bias = false) {
    if (in % kernels::q4_0_block != 0 || Index(blocks.size()) != out * in / kernels::q4_0_block * kernels::q4_0_bytes)
      fail<ShapeError>("a q4_0 weight has " + std::to_string(blocks.size()) + " bytes for " + to_string(Shape{out, in}),
                       "every row has whole blocks of 32 columns, 18 bytes each", "check in and out");
    QuantizedLinear made(in, out, has_bias, QuantFormat::int4);
    kernels::repack_q4_0(out, in, blocks.data(), made.words_.data(), made.scales_.data());
    return made;
  }

  [[nodiscard]] Index in_features() const { return in_; }
  [[nodiscard]] Index out_features() const { return out_; }
  [[nodiscard]] QuantFormat format() const { return format_; }
  /// Bytes of the weight: values and factors.
  [[nodiscard]] std::size_t weight_bytes() const { return bytes_.size() + 4 * (words_.size() + scales_.size()); }

  /// The weight (out, in) in float, exactly as products use it.
  [[nodiscard]] Matrix<float> dequantize() const {
    Matrix<float> w(out_, in_);
    if (format_ == QuantFormat::int8) kernels::dequantize(out_, in_, int8_view(), in_, w.data());
    else kernels::dequantize(out_, in_, four_bit_view(), stride(), w.data());
    return w;
  }
  /// Replaces the weight by the nearest to w (out, in) and reports what was lost. @throws ShapeError
  QuantizeReport requantize(const Matrix<float>& w) {
    if (w.rows() != out_ || w.cols() != in_)
      fail<ShapeError>("a weight " + to_string(Shape{w.rows(), w.cols()}) + " was given where " + to_string(Shape{out_, in_}) + " was due",
                       "a quantised layer keeps its shape", "make a new layer");
    requantize_rows(0, graft::in(w));
    const Matrix<double> lost = w.cast<double>() - dequantize().cast<double>();
    QuantizeReport report;
    if (w.size() == 0) return report;
    report.max_error = lost.cwiseAbs().maxCoeff();
    report.rms_error = std::sqrt(lost.squaredNorm() / double(w.size()));
    const double rms = std::sqrt(w.cast<double>().squaredNorm() / double(w.size()));
    report.relative_error = rms > 0 ? report.rms_error / rms : 0;
    return report;
  }

  [[nodiscard]] auto op() const { return Product{this, {false, detail::trains_bias(bias)}}; }
  /// x (n, in), or N-d with features last → (n, out) of the same kind.
  auto operator()(const auto& x) const { return detail::custom_linear(op(), x); }

 private:
  friend struct layer_traits<QuantizedLinear>;

  struct Product {
    const QuantizedLinear* layer;
    Trained trained{};
    [[nodiscard]] Index cols(const auto& x) const { return ops::Linear<float>{nullptr, layer->out_, layer->in_}.cols(x); }
    template <class T>
    void forward(const BatchView& batch, Out<T> y, std::span<const In<T>> x) const {
      static_assert(std::is_same_v<T, float>, "graft: a quantised layer takes float activations");
      if (layer->format_ == QuantFormat::int8) run(layer->int8_view(), layer->in_, batch, y, x[0]);
      else run(layer->four_bit_view(), layer->stride(), batch, y, x[0]);
    }
    template <class View>
    void run(const View& w, Index ldw, const BatchView& batch, Out<float> y, const In<float>& x) const {
      detail::parallel_product<float>(w, ldw, x, detail::bias_data(layer->bias), y, batch.workspace);
    }
    [[nodiscard]] bool trainable(const BatchView&) const { return trained.bias; }
    /// @throws TrainingError for a weight that is to be trained: it is rounded to a byte or less
    template <class T>
    void vjp(const BatchView& batch, Gradients& gradients, const In<T>& dy, const In<T>& y, std::span<const In<T>> x,
             std::span<const Out<T>> dx) const;
  };

  template <class T, class Storage>
  static Matrix<float> to_float(const Parameter<T, Storage>& values) {
    Matrix<float> wide(values.rows(), values.cols());
    for (Index i = 0; i < wide.size(); ++i) wide.data()[i] = float(values.view().data()[i]);
    return wide;
  }
  static std::vector<float> unnested(const BitsAndBytesWeight& weight) {
    const std::size_t count = weight.nested_absmax_index.size(), block = std::size_t(weight.nested_block_size);
    if (weight.nested_code.size() != 256 || block == 0 || weight.nested_absmax.size() != (count + block - 1) / block)
      fail<ShapeError>("a nested absmax of " + std::to_string(count) + " blocks has " + std::to_string(weight.nested_code.size()) +
                           " codes and " + std::to_string(weight.nested_absmax.size()) + " factors",
                       "it needs 256 codes and a factor for every " + std::to_string(block), "pass nested_quant_map and nested_absmax");
    std::vector<float> absmax;
    for (std::size_t i = 0; i < count; ++i)
      absmax.push_back(weight.nested_code[weight.nested_absmax_index[i]] * weight.nested_absmax[i / block] + float(weight.nested_offset));
    return absmax;
  }

  void requantize_rows(Index begin, const In<float>& w) {
    const Index ld = w.outerStride();
    if (format_ == QuantFormat::int8)
      kernels::quantize_int8(w.rows(), in_, w.data(), ld, bytes_.data() + begin * in_, scales_.data() + begin);
    else
      kernels::quantize_four_bit(w.rows(), in_, w.data(), ld, code(), block_shift(), words_.data() + begin * stride() / 8,
                                 scales_.data() + (begin * stride() >> block_shift()));
  }
  void dequantize_row(Index o, float* to) const {
    if (format_ == QuantFormat::int8) kernels::dequantize(1, in_, {bytes_.data() + o * in_, scales_.data() + o}, in_, to);
    else kernels::dequantize(1, in_, four_bit_view().row(o, stride()), stride(), to);
  }
  /// The bytes as they are: values, then factors.
  [[nodiscard]] ParameterData save() const {
    ParameterData saved(Dtype::u8, Shape{Index(weight_bytes())});
    saved.allocate();
    std::byte* to = saved.data();
    for_each_array(*this, [&](const auto* from, std::size_t bytes) {
      if (bytes) std::memcpy(to, from, bytes);
      to += bytes;
    });
    return saved;
  }
  void restore(const ParameterData& saved) {
    const std::byte* from = saved.data();
    for_each_array(*this, [&](auto* to, std::size_t bytes) {
      if (bytes) std::memcpy(to, from, bytes);
      from += bytes;
    });
  }
  static void for_each_array(auto& layer, auto f) {
    f(layer.bytes_.data(), layer.bytes_.size());
    f(layer.words_.data(), 4 * layer.words_.size());
    f(layer.scales_.data(), 4 * layer.scales_.size());
  }

  [[nodiscard]] int block_shift() const { return format_ == QuantFormat::int4 ? 5 : 6; }
  [[nodiscard]] Index stride() const { return kernels::four_bit_columns(in_); }
  [[nodiscard]] const float* code() const {
    return format_ == QuantFormat::nf4 ? kernels::nf4_code : format_ == QuantFormat::fp4 ? kernels::fp4_code : kernels::int4_code;
  }
  [[nodiscard]] kernels::Int8View int8_view() const { return {bytes_.data(), scales_.data()}; }
  [[nodiscard]] kernels::FourBitView four_bit_view() const { return {words_.data(), scales_.data(), code(), block_shift()}; }

  Index in_, out_;
  QuantFormat format_;
  std::vector<std::int8_t> bytes_;
  std::vector<std::uint32_t> words_;
  std::vector<float> scales_;

 public:
  GRAFT_MODULE(bias)
};

template <>
struct layer_traits<QuantizedLinear> {
  using Layer = QuantizedLinear;
  using scalar = float;
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const Layer& layer) { return layer.in_; }
  static Index out_features(const Layer& layer) { return layer.out_; }
  static bool has_bias(const Layer& layer) { return layer.bias.size() != 0; }
  static auto bias(auto& layer) { return layer.bias.view().row(0); }
  static void dequantize_rows(const Layer& layer, Index begin, Out<float> rows) {
    for (Index i = 0; i < rows.rows(); ++i) layer.dequantize_row(begin + i, rows.data() + i * rows.outerStride());
  }
  static void requantize_rows(Layer& layer, Index begin, const In<float>& rows) { layer.requantize_rows(begin, rows); }
  static ParameterData save_weight(const Layer& layer) { return layer.save(); }
  static void restore_weight(Layer& layer, const ParameterData& saved) { layer.restore(saved); }
  static void forward_into(const Layer& layer, const In<float>& x, Out<float> y, Workspace* workspace) {
    detail::run_op<float>(layer.op(), x, y, workspace);
  }
};

}  // namespace graft
