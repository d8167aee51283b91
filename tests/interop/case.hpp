#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <graft/graft.hpp>
#include <nlohmann/json.hpp>

namespace interop {

/// What the steps of a case gave. Outputs are flattened; `dtype` is the scalar that computed them.
struct Reply {
  struct Output {
    std::vector<graft::Index> shape;
    std::vector<double> values;
  };
  graft::Dtype dtype = graft::Dtype::f32;
  std::map<std::string, Output> outputs;
  std::map<std::string, Output> merged, merged_off;  ///< the same outputs with everything merged; and then disabled
  std::map<std::string, Output> gradients;           ///< by the model's keys and "input"
  std::map<std::string, std::string> unmerged;       ///< why that could not be merged
  std::map<std::string, std::string> trees;
  std::map<std::string, std::vector<std::string>> matched, keys;
};

/// Everything a case needs: case.json, tensors.safetensors (base.*, input, expected.*) and where saved folders go.
struct Case {
  std::filesystem::path folder, reply_folder;
  nlohmann::json text;
  graft::StateDict base, tensors;
};

/// Reads a case's folder. @throws what graft and the JSON reader throw.
Case read_case(const std::filesystem::path& folder, const std::filesystem::path& reply_folder);

/// Runs the steps of a case in float or double, whichever model it names.
Reply run_case(const Case& one, graft::Dtype scalar);

/// The scalars that a case is run in: both, but only float where its weights are narrow.
std::vector<graft::Dtype> scalars(const Case& one);

// The families of models: each is a translation unit of its own.
Reply run_mlp(const Case& one, graft::Dtype scalar);
Reply run_decoder(const Case& one, graft::Dtype scalar);
Reply run_packed_decoder(const Case& one);  ///< in double, with one matrix for layers over one input
Reply run_attentive(const Case& one, graft::Dtype scalar);
Reply run_user(const Case& one, graft::Dtype scalar);
Reply run_conv(const Case& one, graft::Dtype scalar);
Reply run_experts(const Case& one, graft::Dtype scalar);

}  // namespace interop
