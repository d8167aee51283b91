// expect: graft: this type has no description: put GRAFT_MODULE(members...) in the class
// lines: 20
#include <graft/graft.hpp>

struct Model {
  graft::Adaptable<graft::Linear<>> q_proj{4, 4};
};

void look(Model& model) {
  graft::visit(model, [](auto, auto&) {});
}
