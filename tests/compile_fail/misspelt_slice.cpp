// expect: graft: this packed layer has no slice of that name
#include <graft/graft.hpp>

using GateUp = graft::PackedLinear<graft::Linear<>, "gate_proj", "up_proj">;

auto part(const GateUp& layer, const graft::Matrix<>& y) { return layer.part<"gait_proj">(y); }
