#pragma once

#include <algorithm>
#include <cmath>

#include "../tensor/workspace.hpp"
#include "weight_door.hpp"

namespace graft::detail {

/// A layer whose weight is kept in fewer bits than it could be written in exactly, and which says in its traits how:
///   static void dequantize_rows(const L&, Index begin, Out<float> rows);      // (rows, in), as products use them
///   static void requantize_rows(L&, Index begin, const In<float>& rows);      // to the nearest that it can keep
///   static ParameterData save_weight(const L&);                               // the bytes as they are, …
///   static void restore_weight(L&, const ParameterData&);                     // … and back
template <class L>
concept RequantizableLayer = requires(const L& layer, L& changed, Out<float> out, const In<float>& in, const ParameterData& saved) {
  traits_of<L>::dequantize_rows(layer, Index(0), out);
  traits_of<L>::requantize_rows(changed, Index(0), in);
  { traits_of<L>::save_weight(layer) } -> std::same_as<ParameterData>;
  traits_of<L>::restore_weight(changed, saved);
};

/// The door of such a layer: every write rounds anew, and is reported.
template <class L>
class QuantizedDoor final : public LayerDoor<L, float> {
  using traits = traits_of<L>;

 public:
  explicit QuantizedDoor(L& layer) : LayerDoor<L, float>(layer) {}

  [[nodiscard]] bool is_readable() const override { return true; }
  [[nodiscard]] bool is_writable() const override { return true; }
  [[nodiscard]] bool is_quantized() const override { return true; }
  [[nodiscard]] BaseWeight<float> base() const override { return {&this->layer_, access}; }
  void write_rows(Index begin, const In<float>& rows) override {
    traits::requantize_rows(this->layer_, begin, rows);
    const Scratch<float> memory(nullptr, rows.size());
    Out<float> stored = out<float>(memory.data(), rows.rows(), rows.cols());
    traits::dequantize_rows(this->layer_, begin, stored);
    for (Index i = 0; i < rows.rows(); ++i)
      for (Index c = 0; c < rows.cols(); ++c) {
        const double wanted = double(rows(i, c)), lost = wanted - double(stored(i, c));
        largest_ = std::max(largest_, std::abs(lost));
        lost_squares_ += lost * lost;
        squares_ += wanted * wanted;
      }
    count_ += rows.size();
  }
  [[nodiscard]] QuantizeReport report() const override {
    if (count_ == 0) return {};
    return {largest_, std::sqrt(lost_squares_ / double(count_)), squares_ > 0 ? std::sqrt(lost_squares_ / squares_) : 0};
  }
  [[nodiscard]] bool stay_finite(const float* values, Index count) const override { return this->are_finite(values, count); }
  [[nodiscard]] ParameterData save() override { return traits::save_weight(this->layer_); }
  void restore(const ParameterData& saved) override { traits::restore_weight(this->layer_, saved); }

 private:
  static constexpr BaseWeight<float>::Access make_access() {
    BaseWeight<float>::Access answers = WeightAccess<L, float>::access;
    answers.shape = [](const void* layer) {
      const L& own = *static_cast<const L*>(layer);
      return Shape{traits::out_features(own), traits::in_features(own)};
    };
    answers.copy_rows = [](const void* layer, Index begin, Out<float> rows) {
      traits::dequantize_rows(*static_cast<const L*>(layer), begin, rows);
    };
    return answers;
  }
  static constexpr BaseWeight<float>::Access access = make_access();

  double largest_ = 0, lost_squares_ = 0, squares_ = 0;
  Index count_ = 0;
};

template <RequantizableLayer L>
struct DoorOf<L> {
  using type = QuantizedDoor<L>;
};

}  // namespace graft::detail
