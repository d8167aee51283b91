#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "../core/on_demand.hpp"
#include "../tensor/convert.hpp"
#include "../tensor/gradients.hpp"
#include "../tensor/state_dict.hpp"
#include "trainable.hpp"

namespace graft {

namespace detail {
/// One parameter's step: what an optimiser computes with and writes.
template <class T>
struct ParameterStep {
  Index count;
  T* values;
  const T* gradient;
  std::array<T*, 3> moments;  ///< the optimiser's own, zeros before the first step; null where it has fewer
  std::int64_t step;          ///< 1 for the first
  double lr, weight_decay;
};

/// @throws TrainingError unless it is a finite number that is not negative.
inline void check_not_negative(const char* option, double value) {
  if (!(value >= 0) || !std::isfinite(value))
    fail<TrainingError>(std::string(option) + " is " + std::to_string(value), "an optimiser needs a finite number of at least 0",
                        "use the values of torch.optim");
}
}  // namespace detail

/// Steps parameters against their gradients, as torch.optim's optimisers do in their single-tensor form.
///
/// A parameter without gradient is left as it is, and so is its state. What is kept of a parameter is allocated at its first
/// step. A narrow parameter (bf16, f16) is stepped in float: its values are rounded, what is below them is kept here.
class Optimizer {
 public:
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer() = default;

  [[nodiscard]] const TrainableParameters& parameters() const { return parameters_; }
  [[nodiscard]] double lr() const { return lr_; }
  /// To be called before a step: `optimizer.set_lr(1e-3 * cosine_with_warmup(step, 10, 100))`.
  void set_lr(double lr) {
    detail::check_not_negative("lr", lr);
    lr_ = lr;
  }
  /// Parameters for which is_meant(const TrainableParameter&) holds have so many times the learning rate. LoRA+:
  /// `set_lr_ratio([](const auto& one) { return one.name == "lora_B"; }, 16)`.
  template <class IsMeant>
  void set_lr_ratio(const IsMeant& is_meant, double ratio) {
    detail::check_not_negative("a ratio of lr", ratio);
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (is_meant(parameters_[i])) slots_[i].lr_ratio = ratio;
  }
  /// The same for the weight decay; biases often have none.
  template <class IsMeant>
  void set_weight_decay(const IsMeant& is_meant, double weight_decay) {
    detail::check_not_negative("weight_decay", weight_decay);
    for (std::size_t i = 0; i < slots_.size(); ++i)
      if (is_meant(parameters_[i])) slots_[i].weight_decay = weight_decay;
  }

  /// Steps every parameter that has a gradient. A parameter on borrowed memory (a mapped file) gets its own at its first step;
  /// its gradient is found by it all the same. @throws TrainingError where a gradient has another scalar or other sizes than
  /// the parameter; nothing has changed then.
  void step(Gradients& gradients) { step_over(gradients, &gradients); }
  /// The same; what has moved has no gradient in these.
  void step(const Gradients& gradients) { step_over(gradients, nullptr); }

  /// What the next step depends on, besides parameters and options: "step.<key>", "exp_avg.<key>", …, and "master.<key>" of a
  /// narrow parameter. Views, valid until the next step: `clone()` owns its bytes.
  template <class = OnDemand>
  [[nodiscard]] StateDict state_dict() const {
    StateDict all;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      if (slot.step == 0) continue;
      const std::string& key = parameters_[i].key;
      all.insert(join_path("step", key), {Dtype::i64, {}, reinterpret_cast<const std::byte*>(&slot.step), nullptr});
      for (std::size_t m = 0; m < moments_.size(); ++m) all.insert(join_path(moments_[m], key), slot.moments[m].view());
      if (slot.master.data()) all.insert(join_path("master", key), slot.master.view());
    }
    return all;
  }
  /// Goes on where `state_dict` was taken, with the same bits if parameters and options are the same too. A parameter of which
  /// it has nothing starts afresh. @throws StateDictError for keys, shapes or dtypes that do not fit; nothing has changed then.
  template <class = OnDemand>
  void load_state_dict(const StateDict& state_dict) {
    std::vector<Slot> loaded;
    StateDict used;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      Slot slot = empty_slot(parameters_[i]);
      slot.lr_ratio = slots_[i].lr_ratio;
      slot.weight_decay = slots_[i].weight_decay;
      read_slot(state_dict, parameters_[i].key, slot, used);
      loaded.push_back(std::move(slot));
    }
    for (const auto& [key, view] : state_dict)
      if (!used.contains(key))
        fail<StateDictError>("the optimiser has no use for '" + key + "'", "it is of another parameter, or of another kind of optimiser",
                             "make the optimiser over the parameters that the state was saved for");
    slots_ = std::move(loaded);
  }

 protected:
  /// `moments`: the names of the numbers that are kept of each element.
  Optimizer(TrainableParameters parameters, double lr, double weight_decay, std::vector<std::string_view> moments)
      : parameters_(std::move(parameters)), moments_(std::move(moments)), weight_decay_(weight_decay) {
    set_lr(lr);
    detail::check_not_negative("weight_decay", weight_decay);
    for (const TrainableParameter& one : parameters_) slots_.push_back(empty_slot(one));
  }
  virtual void update(const detail::ParameterStep<float>&) const = 0;
  virtual void update(const detail::ParameterStep<double>&) const = 0;

 private:
  struct Slot {
    std::array<ParameterData, 3> moments{};
    ParameterData master{};  ///< of a narrow parameter
    std::int64_t step = 0;
    double lr_ratio = 1, weight_decay = 0;
    const void* gradient = nullptr;
  };

  [[nodiscard]] static Dtype compute_dtype(const ParameterData& parameter) {
    return parameter.dtype() == Dtype::f64 ? Dtype::f64 : Dtype::f32;
  }
  [[nodiscard]] static bool is_narrow(const ParameterData& parameter) { return compute_dtype(parameter) != parameter.dtype(); }

  void step_over(const Gradients& gradients, Gradients* moved) {
    for (std::size_t i = 0; i < slots_.size(); ++i) slots_[i].gradient = gradient_of(gradients, parameters_[i]);
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const TrainableParameter& one = parameters_[i];
      if (!slots_[i].gradient) continue;
      const std::byte* const before = one.parameter->data();
      own_memory(one);
      if (moved) moved->follow(before, one.parameter->data());
      one.parameter->dtype() == Dtype::f64 ? step_one<double>(one, slots_[i]) : step_one<float>(one, slots_[i]);
    }
  }

  /// All of it without memory yet.
  [[nodiscard]] Slot empty_slot(const TrainableParameter& one) const {
    Slot slot;
    slot.weight_decay = weight_decay_;
    for (std::size_t m = 0; m < moments_.size(); ++m) slot.moments[m] = ParameterData(compute_dtype(*one.parameter), one.shape());
    slot.master = ParameterData(Dtype::f32, is_narrow(*one.parameter) ? one.shape() : Shape{0});
    return slot;
  }

  [[nodiscard]] static const void* gradient_of(const Gradients& gradients, const TrainableParameter& one) {
    const Matrix<double>* doubles = gradients.find_at<double>(*one.parameter);
    const Matrix<float>* floats = gradients.find_at<float>(*one.parameter);
    if (!doubles && !floats) return nullptr;
    const bool is_double = one.parameter->dtype() == Dtype::f64;
    if (is_double != (doubles != nullptr) || (doubles ? doubles->size() : floats->size()) != one.shape().size())
      fail<TrainingError>("the gradient of '" + one.key + "' has another scalar or other sizes than the parameter",
                          "a parameter of double has gradients of double, all others of float",
                          "let the activations have the scalar of the parameters");
    return doubles ? static_cast<const void*>(doubles->data()) : floats->data();
  }

  template <class T>
  void step_one(const TrainableParameter& one, Slot& slot) {
    ParameterData& parameter = *one.parameter;
    ++slot.step;
    detail::ParameterStep<T> step{parameter.shape().size(), nullptr, static_cast<const T*>(slot.gradient), {}, slot.step,
                                  lr_ * slot.lr_ratio, slot.weight_decay};
    for (std::size_t m = 0; m < moments_.size(); ++m) step.moments[m] = memory_of<T>(slot.moments[m]);
    if (!is_narrow(parameter)) {
      step.values = reinterpret_cast<T*>(parameter.data());
      update(step);
    } else if constexpr (sizeof(T) == sizeof(float)) {
      step.values = memory_of<float>(slot.master);
      parameter.dtype() == Dtype::bf16 ? step_narrow<bf16>(parameter, step) : step_narrow<f16>(parameter, step);
    }
    parameter.touch();
  }
  /// What somebody else wrote since the last step counts.
  template <class N>
  void step_narrow(ParameterData& parameter, const detail::ParameterStep<float>& step) const {
    N* values = reinterpret_cast<N*>(parameter.data());
    for (Index i = 0; i < step.count; ++i)
      if (!(float(N(step.values[i])) == float(values[i]))) step.values[i] = float(values[i]);
    update(step);
    for (Index i = 0; i < step.count; ++i) values[i] = N(step.values[i]);
  }
  template <class T>
  [[nodiscard]] static T* memory_of(ParameterData& data) {
    if (data.is_meta()) data.allocate();
    return reinterpret_cast<T*>(data.data());
  }
  /// Borrowed memory is somebody's file or buffer, if it is not the model's own. What is tied to it stays tied.
  static void own_memory(const TrainableParameter& one) {
    if (one.held || !one.parameter->is_borrowed()) return;
    one.parameter->detach();
    for (ParameterData* other : one.tied) {
      const bool requires_grad = other->requires_grad();
      *other = one.parameter->share();
      other->set_requires_grad(requires_grad);
    }
  }

  template <class = OnDemand>
  static void read_step(const TensorView& view, const std::string& key, Slot& slot) {
    if (view.dtype == Dtype::i64 && view.size() == 1 && view.data) std::memcpy(&slot.step, view.data, sizeof slot.step);
    if (slot.step < 1)
      fail<StateDictError>("'" + key + "' is no I64 of at least 1", "it counts the steps that the parameter made", "load what state_dict() gave");
  }
  /// Fills a slot from the keys that are this parameter's, and notes them.
  template <class = OnDemand>
  void read_slot(const StateDict& state_dict, const std::string& key, Slot& slot, StateDict& used) const {
    const auto view_of = [&](std::string_view name) -> const TensorView& {
      used.insert(join_path(name, key), {});
      return state_dict.at(join_path(name, key));
    };
    const auto read = [&](std::string_view name, ParameterData& data) {
      const TensorView& view = view_of(name);
      if (view.dtype != data.dtype() || view.shape != data.shape().to_vector() || !view.data)
        fail<StateDictError>("'" + join_path(name, key) + "' is " + std::string(tag_of(view.dtype)) + " " + to_string(Shape(view.shape)) +
                                 ", the parameter needs " + std::string(tag_of(data.dtype())) + " " + to_string(data.shape()),
                             "it has a number for each of the parameter's", "load the state of an optimiser of this model");
      detail::assign(data, view, false);
    };
    if (!state_dict.contains(join_path("step", key))) return;
    read_step(view_of("step"), join_path("step", key), slot);
    for (std::size_t m = 0; m < moments_.size(); ++m) read(moments_[m], slot.moments[m]);
    if (slot.master.shape().size() != 0) read("master", slot.master);
  }

  TrainableParameters parameters_;
  std::vector<std::string_view> moments_;
  std::vector<Slot> slots_;
  double lr_ = 0, weight_decay_;
};

}  // namespace graft
