#include "models.hpp"
#include "steps.hpp"

namespace interop {

namespace {
/// A matrix (rows, features), or a tensor with more leading dimensions.
template <class T, class Model>
Reply run_on(const Case& one) {
  if (one.tensors.at("input").shape.size() == 3) return Steps<T, Model, 3>(one).run();
  return Steps<T, Model, 2>(one).run();
}
}  // namespace

Reply run_mlp(const Case& one, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16") return run_on<float, Mlp<float, graft::bf16>>(one);
  if (weights == "f16") return run_on<float, Mlp<float, graft::f16>>(one);
  if (scalar == graft::Dtype::f64) return run_on<double, Mlp<double>>(one);
  return run_on<float, Mlp<float>>(one);
}

}  // namespace interop
