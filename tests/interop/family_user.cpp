#include "steps.hpp"
#include "user_models.hpp"

namespace interop {

namespace {
template <class T>
Reply run_as(const Case& one) {
  const std::string type = one.text.at("model").at("type");
  if (type == "transposed") return Steps<T, Transposed<T>, 2>(one).run();
  if (type == "user_conv") return Steps<T, UserConvNet<T>, 4>(one).run();
  return Steps<T, UserModel<T>, 1>(one).run();
}
}  // namespace

Reply run_user(const Case& one, graft::Dtype scalar) {
  return scalar == graft::Dtype::f64 ? run_as<double>(one) : run_as<float>(one);
}

}  // namespace interop
