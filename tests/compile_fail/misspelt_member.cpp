// expect: q_porj
// expect: did you mean 'q_proj'
#include <graft/graft.hpp>

struct Attention {
  graft::Adaptable<graft::Linear<>> q_proj{4, 4};
  graft::Linear<> o_proj{4, 4};
  GRAFT_MODULE(q_porj, o_proj)
};
struct Model {
  Attention self_attn;
  GRAFT_MODULE(self_attn)
};

void inject(Model& model) {
  graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"q_proj"}}, model);
}
