// expect: graft: the graft::layer_traits of this layer lack `using scalar
#include <graft/graft.hpp>

namespace vendor {
struct Dense {
  Eigen::MatrixXf kernel;
};
}  // namespace vendor

template <>
struct graft::layer_traits<vendor::Dense> {
  static constexpr LayerKind kind = LayerKind::linear;
  static Index in_features(const vendor::Dense& layer) { return layer.kernel.rows(); }
  static Index out_features(const vendor::Dense& layer) { return layer.kernel.cols(); }
  static auto& weight(auto& layer) { return layer.kernel; }
};

struct Model {
  graft::Adaptable<vendor::Dense> head;
  GRAFT_MODULE(head)
};

void inject(Model& model) {
  graft::inject_adapter_in_model(graft::LoraConfig{.target_modules = {"head"}}, model);
}
