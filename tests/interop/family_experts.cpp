#include "expert_models.hpp"
#include "steps.hpp"

namespace interop {

namespace {
template <class T>
Reply run_as(const Case& one) {
  if (one.text.at("model").at("sizes").at("transposed")) return Steps<T, Router<T, TransposedExperts>, 2>(one).run();
  return Steps<T, Router<T, Experts>, 2>(one).run();
}
}  // namespace

Reply run_experts(const Case& one, graft::Dtype scalar) {
  return scalar == graft::Dtype::f64 ? run_as<double>(one) : run_as<float>(one);
}

}  // namespace interop
