// expect: graft: no graft::layer_traits for this layer
#include <graft/graft.hpp>

namespace vendor {
struct Dense {};
}  // namespace vendor

struct Model {
  graft::Adaptable<vendor::Dense> head;
  GRAFT_MODULE(head)
};

void inject(Model& model) {
  graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"head"}}, model);
}
