#pragma once

#include <filesystem>
#include <graft/io.hpp>
#include <map>
#include <memory>
#include <string>

#include "json_file.hpp"

namespace tales {

/// The weights of a Hugging Face folder: views of its mapped files. Only where dtypes are mixed, the narrow
/// tensors are copied as f32.
struct Checkpoint {
  graft::StateDict tensors;
  graft::Dtype dtype;  ///< of all the weights: f32, f16 or bf16
  std::size_t files, parameters;
  std::size_t bytes;   ///< of the tensors in the files
  std::size_t copied;  ///< bytes of those that were widened
};

namespace detail {
inline graft::StateDict load_shards(const std::filesystem::path& folder, std::size_t& files) {
  const JsonFile index(folder / "model.safetensors.index.json");
  const auto map = index.require<nlohmann::json>("weight_map");
  if (!map.is_object() || map.empty()) index.fail("its 'weight_map' lists nothing", "download it again");
  std::map<std::string, graft::StateDict> shards;
  graft::StateDict all;
  for (const auto& [key, name] : map.items()) {
    const auto file = index.as<std::string>(name, "weight_map." + key);
    if (file.empty() || std::filesystem::path(file).filename() != file || file == "..")
      index.fail("it names the file '" + file + "', which is not in this folder", "do not trust this index");
    auto shard = shards.find(file);
    if (shard == shards.end())
      shard = shards.emplace(file, graft::safetensors::load_file(folder / file)).first;
    const graft::TensorView* tensor = shard->second.find(key);
    if (!tensor)
      index.fail("'" + key + "' is not in " + file,
                 "download the folder again: its files do not belong together");
    all.insert(key, *tensor);
  }
  files = shards.size();
  return all;
}

// Exact for the narrow dtypes.
inline graft::TensorView widened(const graft::TensorView& view) {
  const auto size = std::size_t(view.size());
  const std::shared_ptr<float[]> memory(new float[size]);
  for (std::size_t i = 0; i < size; ++i) memory[i] = graft::element_as<float>(view.dtype, view.data, i);
  return {graft::Dtype::f32, view.shape, reinterpret_cast<const std::byte*>(memory.get()), memory};
}
}  // namespace detail

/// Maps DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json lists.
/// `tied`: the head is the embedding, whatever the files hold under lm_head.
/// @throws graft::FileError when files are missing, broken or of a dtype that no layer here reads.
inline Checkpoint open_checkpoint(const std::filesystem::path& folder, bool tied) {
  const auto single = folder / "model.safetensors";
  Checkpoint checkpoint{{}, graft::Dtype::f32, 1, 0, 0, 0};
  if (std::filesystem::exists(single)) {
    checkpoint.tensors = graft::safetensors::load_file(single);
  } else if (std::filesystem::exists(folder / "model.safetensors.index.json")) {
    checkpoint.tensors = detail::load_shards(folder, checkpoint.files);
  } else {
    graft::fail<graft::FileError>(
        folder.string() + " holds no weights",
        "there is neither model.safetensors nor model.safetensors.index.json in it",
        "give a Hugging Face folder; save older *.bin models with save_pretrained(safe_serialization=True)");
  }

  graft::StateDict kept;
  for (const auto& [key, view] : checkpoint.tensors) {
    if (key.ends_with("rotary_emb.inv_freq"))
      continue;  // old files hold this constant; transformers skips it too
    if (tied && key == "lm_head.weight") continue;
    if (view.dtype != graft::Dtype::f32 && view.dtype != graft::Dtype::f16 &&
        view.dtype != graft::Dtype::bf16)
      graft::fail<graft::FileError>(
          "'" + key + "' in " + folder.string() + " has the dtype " + std::string(graft::tag_of(view.dtype)),
          "weights are read as f32, f16 or bf16", "convert the model");
    if (kept.empty())
      checkpoint.dtype = view.dtype;
    else if (checkpoint.dtype != view.dtype)
      checkpoint.dtype = graft::Dtype::f32;  // all layers read one scalar
    checkpoint.bytes += view.bytes();
    checkpoint.parameters += std::size_t(view.size());
    kept.insert(key, view);
  }
  checkpoint.tensors = graft::StateDict{};
  for (const auto& [key, view] : kept) {
    const bool fits = view.dtype == checkpoint.dtype;
    checkpoint.tensors.insert(key, fits ? view : detail::widened(view));
    if (!fits) checkpoint.copied += std::size_t(view.size()) * sizeof(float);
  }
  if (tied && checkpoint.tensors.contains("model.embed_tokens.weight"))
    checkpoint.tensors.insert("lm_head.weight", checkpoint.tensors.at("model.embed_tokens.weight"));
  return checkpoint;
}

}  // namespace tales
