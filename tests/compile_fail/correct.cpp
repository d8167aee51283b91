// What the other files here do, without their mistakes: it must compile.
#include <graft/graft.hpp>

namespace vendor {
struct Dense {};
}  // namespace vendor
template <>
struct graft::layer_traits<vendor::Dense> {
  static constexpr graft::LayerKind kind = graft::LayerKind::linear;
  using scalar = float;
  static graft::Index in_features(const vendor::Dense&) { return 4; }
  static graft::Index out_features(const vendor::Dense&) { return 4; }
};

struct Attention {
  graft::Adaptable<graft::Linear<>> q_proj{4, 4};
  graft::Linear<> o_proj{4, 4};
  graft::Adaptable<vendor::Dense> dense;
  GRAFT_MODULE(q_proj, o_proj, dense)
};
struct WideAttention : Attention {
  graft::Linear<> gate{4, 4};
  GRAFT_MODULE_FROM(Attention, gate)
};
struct Model {
  WideAttention self_attn;
  GRAFT_MODULE(self_attn)
};
static_assert(graft::has_site<Model>("self_attn.q_proj"));
static_assert(graft::lists_all_modules<Attention>);

void inject(Model& model) { graft::inject_adapter_in_model<"q_proj">(graft::LoraConfig{}, model); }
