#pragma once

#include <cmath>
#include <string>

#include "../tensor/gradients.hpp"
#include "trainable.hpp"

namespace graft {

namespace detail {
/// torch's factor: a little below what would be exact, at most 1. NaN stays NaN.
[[nodiscard]] inline double clip_factor(double norm, double max_norm) {
  if (!(max_norm >= 0))
    fail<TrainingError>("max_norm is " + std::to_string(max_norm), "a norm is not negative", "use a positive number; 1 is common");
  const double factor = max_norm / (norm + 1e-6);
  return factor > 1 ? 1 : factor;
}
}  // namespace detail

/// Scales all gradients down so that their common norm is at most `max_norm`, as torch.nn.utils.clip_grad_norm_; answers the
/// norm that they had. @throws TrainingError for a negative max_norm.
inline double clip_grad_norm(Gradients& gradients, double max_norm) {
  const double norm = gradients.norm(), factor = detail::clip_factor(norm, max_norm);
  if (factor != 1) gradients.scale(factor);
  return norm;
}

/// The same of these parameters' gradients alone.
inline double clip_grad_norm(const TrainableParameters& parameters, Gradients& gradients, double max_norm) {
  const auto for_each = [&](auto&& act) {
    for (const TrainableParameter& one : parameters) {
      if (gradients.find_at<double>(*one.parameter)) act(gradients.at<double>(*one.parameter));
      else if (gradients.find_at<float>(*one.parameter)) act(gradients.at<float>(*one.parameter));
    }
  };
  double sum = 0;
  for_each([&](auto gradient) { sum += gradient.template cast<double>().squaredNorm(); });
  const double norm = std::sqrt(sum), factor = detail::clip_factor(norm, max_norm);
  if (factor != 1) for_each([&](auto gradient) { gradient *= typename decltype(gradient)::Scalar(factor); });
  return norm;
}

}  // namespace graft
