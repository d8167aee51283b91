#include "models.hpp"
#include "steps.hpp"

namespace interop {

namespace {
template <class T>
Reply run_as(const Case& one) {
  const std::size_t axes = one.text.at("model").at("sizes").at("conv1").at("kernel").size();
  if (axes == 1) return Steps<T, ConvNet<T, 1>, 3>(one).run();
  if (axes == 2) return Steps<T, ConvNet<T, 2>, 4>(one).run();
  return Steps<T, ConvNet<T, 3>, 5>(one).run();
}
}  // namespace

Reply run_conv(const Case& one, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16") return Steps<float, ConvNet<graft::bf16, 2>, 4>(one).run();
  if (weights == "f16") return Steps<float, ConvNet<graft::f16, 1>, 3>(one).run();
  return scalar == graft::Dtype::f64 ? run_as<double>(one) : run_as<float>(one);
}

}  // namespace interop
