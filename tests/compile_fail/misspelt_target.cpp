// expect: graft: a target names no module of this model (see graft::paths<Model>)
#include <graft/graft.hpp>

struct Attention {
  graft::Adaptable<graft::Linear<>> q_proj{4, 4};
  graft::Linear<> o_proj{4, 4};
  GRAFT_MODULE(q_proj, o_proj)
};
struct Model {
  Attention self_attn;
  GRAFT_MODULE(self_attn)
};

void inject(Model& model) { graft::inject_adapter_in_model<"q_porj">(graft::LoraConfig{}, model); }
