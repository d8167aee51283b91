#include "models.hpp"
#include "steps.hpp"

namespace interop {

namespace {
template <class T, class W = T>
Reply run_on(const Case& one) {
  return Steps<T, Decoder<T, W, Block<T, W, packed::Attention, packed::FeedForward>>, 1>(one).run();
}
}  // namespace

Reply run_packed_decoder(const Case& one, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16") return run_on<float, graft::bf16>(one);
  return scalar == graft::Dtype::f64 ? run_on<double>(one) : run_on<float>(one);
}

}  // namespace interop
