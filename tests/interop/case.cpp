#include "case.hpp"

#include <fstream>

#include <graft/io.hpp>

namespace interop {

Case read_case(const std::filesystem::path& folder, const std::filesystem::path& reply_folder) {
  Case one{folder, reply_folder, nlohmann::json::parse(std::ifstream(folder / "case.json")), {}, {}};
  one.tensors = graft::safetensors::load_file(folder / "tensors.safetensors");
  const std::string prefix = "base.";
  for (const auto& [key, view] : one.tensors)
    if (key.rfind(prefix, 0) == 0) one.base.insert(key.substr(prefix.size()), view);
  return one;
}

std::vector<graft::Dtype> scalars(const Case& one) {
  const std::string weights = one.text.at("model").at("dtype");
  if (weights == "bf16" || weights == "f16") return {graft::Dtype::f32};
  return {graft::Dtype::f32, graft::Dtype::f64};
}

Reply run_case(const Case& one, graft::Dtype scalar) {
  const std::string type = one.text.at("model").at("type");
  if (type == "mlp") return run_mlp(one, scalar);
  if (type == "decoder")
    return one.text.at("model").value("packed", false) && scalar == graft::Dtype::f64 ? run_packed_decoder(one)
                                                                                        : run_decoder(one, scalar);
  if (type == "experts") return run_experts(one, scalar);
  if (type == "attentive") return run_attentive(one, scalar);
  if (type == "conv") return run_conv(one, scalar);
  return run_user(one, scalar);
}

}  // namespace interop
