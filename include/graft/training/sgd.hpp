#pragma once

#include "optimizer.hpp"

namespace graft {

/// torch.optim.SGD's options, with its defaults.
struct SgdOptions {
  double lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
};

/// torch.optim.SGD. Keeps "momentum_buffer" where there is momentum.
class Sgd final : public Optimizer {
 public:
  /// @throws TrainingError for options that torch refuses.
  explicit Sgd(TrainableParameters parameters, const SgdOptions& options = {})
      : Optimizer(std::move(parameters), options.lr, options.weight_decay, moments_of(options)), options_(options) {
    detail::check_not_negative("momentum", options.momentum);
    if (options.nesterov && (options.momentum <= 0 || options.dampening != 0))
      fail<TrainingError>("nesterov without momentum, or with dampening", "it looks ahead along an undamped momentum",
                          "set momentum, and leave dampening out");
  }

 private:
  [[nodiscard]] static std::vector<std::string_view> moments_of(const SgdOptions& options) {
    if (options.momentum == 0) return {};
    return {"momentum_buffer"};
  }
  void update(const detail::ParameterStep<float>& step) const override { update_as(step); }
  void update(const detail::ParameterStep<double>& step) const override { update_as(step); }

  template <class T>
  void update_as(const detail::ParameterStep<T>& step) const {
    const T momentum = T(options_.momentum), undamped = T(1 - options_.dampening), decay = T(step.weight_decay), back = T(-step.lr);
    T* buffer = step.moments[0];
    for (Index i = 0; i < step.count; ++i) {
      T gradient = step.gradient[i];
      if (step.weight_decay != 0) gradient = gradient + decay * step.values[i];
      if (buffer) {
        buffer[i] = step.step == 1 ? gradient : buffer[i] * momentum + undamped * gradient;
        gradient = options_.nesterov ? gradient + momentum * buffer[i] : buffer[i];
      }
      step.values[i] += back * gradient;
    }
  }

  SgdOptions options_;
};

}  // namespace graft
