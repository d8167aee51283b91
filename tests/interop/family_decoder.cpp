#include "models.hpp"
#include "steps.hpp"

namespace interop {

Reply run_decoder(const Case& one, graft::Dtype scalar) {
  if (scalar == graft::Dtype::f64) return Steps<double, Decoder<double>, 1>(one).run();
  return Steps<float, Decoder<float>, 1>(one).run();
}

}  // namespace interop
