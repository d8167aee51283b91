#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "optimizer.hpp"

namespace graft {

/// torch.optim.Adam's options, with its defaults.
struct AdamOptions {
  double lr = 1e-3;
  std::array<double, 2> betas{0.9, 0.999};
  double eps = 1e-8, weight_decay = 0;
  bool amsgrad = false;
};
/// torch.optim.AdamW's options, with its defaults.
struct AdamWOptions {
  double lr = 1e-3;
  std::array<double, 2> betas{0.9, 0.999};
  double eps = 1e-8, weight_decay = 1e-2;
  bool amsgrad = false;
};

/// torch.optim.Adam: weight decay is part of the gradient. Keeps "exp_avg" and "exp_avg_sq", with amsgrad "max_exp_avg_sq".
class Adam : public Optimizer {
 public:
  /// @throws TrainingError for options that torch refuses.
  explicit Adam(TrainableParameters parameters, const AdamOptions& options = {}) : Adam(std::move(parameters), options, false) {}

 protected:
  Adam(TrainableParameters parameters, const AdamOptions& options, bool decouples_decay)
      : Optimizer(std::move(parameters), options.lr, options.weight_decay, moments_of(options)),
        options_(options),
        decouples_decay_(decouples_decay) {
    detail::check_not_negative("eps", options.eps);
    for (const double beta : options.betas)
      if (!(beta >= 0 && beta < 1))
        fail<TrainingError>("a beta is " + std::to_string(beta), "it is the part of a mean that is kept in a step", "use a number from 0 to below 1");
  }

 private:
  [[nodiscard]] static std::vector<std::string_view> moments_of(const AdamOptions& options) {
    if (options.amsgrad) return {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
    return {"exp_avg", "exp_avg_sq"};
  }
  void update(const detail::ParameterStep<float>& step) const override { update_as(step); }
  void update(const detail::ParameterStep<double>& step) const override { update_as(step); }

  /// In torch's order of operations; what does not depend on the element is computed in double there too.
  template <class T>
  void update_as(const detail::ParameterStep<T>& step) const {
    const double beta1 = options_.betas[0], beta2 = options_.betas[1];
    const double correction1 = 1 - std::pow(beta1, double(step.step)), correction2 = 1 - std::pow(beta2, double(step.step));
    const T decay = T(step.weight_decay), keep = T(decouples_decay_ ? 1 - step.lr * step.weight_decay : 1);
    const T new1 = T(1 - beta1), old2 = T(beta2), new2 = T(1 - beta2);
    const T root_of_correction2 = T(std::sqrt(correction2)), eps = T(options_.eps), back = T(-(step.lr / correction1));
    const bool adds_decay = !decouples_decay_ && step.weight_decay != 0;
    const auto [mean, square, largest] = step.moments;
    for (Index i = 0; i < step.count; ++i) {
      T value = step.values[i] * keep, gradient = step.gradient[i];
      if (adds_decay) gradient = gradient + decay * value;
      mean[i] = beta1 > 0.5 ? mean[i] + new1 * (gradient - mean[i]) : gradient - (gradient - mean[i]) * T(1 - (1 - beta1));
      square[i] = square[i] * old2 + new2 * gradient * gradient;
      if (largest) largest[i] = std::max(largest[i], square[i]);
      const T root = std::sqrt(largest ? largest[i] : square[i]);
      step.values[i] = value + back * mean[i] / (root / root_of_correction2 + eps);
    }
  }

  AdamOptions options_;
  bool decouples_decay_;
};

/// torch.optim.AdamW: the values decay by themselves, before the step (Loshchilov and Hutter, arXiv:1711.05101).
class AdamW final : public Adam {
 public:
  /// @throws TrainingError for options that torch refuses.
  explicit AdamW(TrainableParameters parameters, const AdamWOptions& options = {})
      : Adam(std::move(parameters), {options.lr, options.betas, options.eps, options.weight_decay, options.amsgrad}, true) {}
};

}  // namespace graft
