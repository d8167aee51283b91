#include "models.hpp"
#include "steps.hpp"

namespace interop {

// In double alone: the scalar types of packed layers are compared with separate layers, bit for bit, in adapters/.
Reply run_packed_decoder(const Case& one) {
  return Steps<double, Decoder<double, double, Block<double, double, packed::Attention, packed::FeedForward>>, 1>(one).run();
}

}  // namespace interop
