#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include <graft/train.hpp>

/// Gradients against central differences of the same forward.
namespace support {

struct GradientCheck {
  double worst = 0;     ///< distance of a gradient from its difference, over 1 + its size
  double largest = 0;   ///< gradient
  std::string where{};  ///< the worst
  graft::Index elements = 0;
};

/// loss(): the loss anew, of a model whose trainable parameters are `parameters`, in double. A difference over h = 1e-5 is off by
/// h² of the third derivative and by the rounding of the loss over h, some 1e-10 each.
template <class F>
GradientCheck check_gradients(const graft::TrainableParameters& parameters, const graft::Gradients& gradients, F&& loss) {
  GradientCheck check;
  const double h = 1e-5;
  for (const graft::TrainableParameter& one : parameters) {
    auto* const values = reinterpret_cast<double*>(one.parameter->data());
    const graft::Matrix<double>* gradient = gradients.find_at<double>(*one.parameter);
    for (graft::Index i = 0; i < one.shape().size(); ++i, ++check.elements) {
      const double before = values[i];
      const auto at = [&](double value) {
        values[i] = value;
        one.parameter->touch();
        return loss();
      };
      const double difference = (at(before + h) - at(before - h)) / (2 * h);
      (void)at(before);
      const double own = gradient ? gradient->data()[i] : 0;
      const double off = std::abs(own - difference) / (1 + std::abs(difference));
      check.largest = std::max(check.largest, std::abs(own));
      if (off > check.worst) {
        check.worst = off;
        check.where = one.key + "[" + std::to_string(i) + "]";
      }
    }
  }
  return check;
}

}  // namespace support
