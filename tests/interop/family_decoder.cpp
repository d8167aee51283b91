#include "models.hpp"
#include "steps.hpp"

namespace interop {

Reply run_decoder(const Case& one, graft::Dtype scalar) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16") return Steps<float, Decoder<float, graft::bf16>, 1>(one).run();
  if (scalar == graft::Dtype::f64) return Steps<double, Decoder<double>, 1>(one).run();
  return Steps<float, Decoder<float>, 1>(one).run();
}

}  // namespace interop
