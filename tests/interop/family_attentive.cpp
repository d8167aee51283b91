#include "models.hpp"
#include "steps.hpp"

namespace interop {

namespace {
/// One sequence (rows, features), or several (sequences, rows, features).
template <class T, class Model>
Reply run_on(const Case& one) {
  if (one.tensors.at("input").shape.size() == 3) return Steps<T, Model, 3>(one).run();
  return Steps<T, Model, 2>(one).run();
}
}  // namespace

Reply run_attentive(const Case& one, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16") return Steps<float, Attentive<float, graft::bf16>, 2>(one).run();
  if (scalar == graft::Dtype::f64) return run_on<double, Attentive<double>>(one);
  return run_on<float, Attentive<float>>(one);
}

}  // namespace interop
