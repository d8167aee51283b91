// expect: graft: this class only inherits its base's GRAFT_MODULE. Add GRAFT_MODULE_FROM(Base,
// lines: 45
#include <graft/graft.hpp>

struct Attention {
  graft::Adaptable<graft::Linear<>> q_proj{4, 4};
  GRAFT_MODULE(q_proj)
};
struct WideAttention : Attention {
  graft::Linear<> gate{4, 4};
};

void look(WideAttention& model) {
  graft::visit(model, [](auto, auto&) {});
}
