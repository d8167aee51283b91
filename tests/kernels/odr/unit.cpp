// Compiled once per set of flags, with -DODR_UNIT=<function>.
#include "graft/kernels/products.hpp"

#include "products.hpp"

#define ODR_TEXT_OF(x) #x
#define ODR_TEXT(x) ODR_TEXT_OF(x)

Products ODR_UNIT() {
  using Index = std::ptrdiff_t;
  return {ODR_TEXT(GRAFT_BUILD), graft::kernels::name_of(graft::kernels::isa()),
          [](Index n, Index out, Index in, const float* x, const float* w, float* y) {
            const float* none = nullptr;
            graft::kernels::product_nt(n, out, in, x, in, w, in, none, y, out, false);
          },
          [](Index n, Index out, Index in, const float* x, const float* w, float* y) {
            const float* none = nullptr;
            graft::kernels::product_nn(n, out, in, x, in, w, out, none, y, out, false);
          }};
}
