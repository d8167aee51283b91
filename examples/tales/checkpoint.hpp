#pragma once

#include <cstring>
#include <filesystem>
#include <graft/io.hpp>
#include <map>
#include <memory>
#include <string>

#include "json_file.hpp"

namespace tales {

/// The weights of a Hugging Face folder: views of its mapped files, and copies where widen() made them.
struct Checkpoint {
  graft::StateDict tensors;
  graft::Dtype dtype;  ///< of all the weights: f32, f16 or bf16
  std::size_t files, parameters;
  std::size_t bytes;   ///< of the tensors in the files
  std::size_t copied;  ///< bytes of those that were widened
  bool tied;           ///< the head is the embedding
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
  for (std::size_t i = 0; i < size; ++i) memory.get()[i] = graft::element_as<float>(view.dtype, view.data, i);
  return {graft::Dtype::f32, view.shape, reinterpret_cast<const std::byte*>(memory.get()), memory};
}

inline bool same_values(const graft::TensorView& a, const graft::TensorView& b) {
  if (a.shape != b.shape) return false;
  if (a.dtype == b.dtype) return std::memcmp(a.data, b.data, a.bytes()) == 0;
  for (std::size_t i = 0; i < std::size_t(a.size()); ++i)
    if (graft::element_as<float>(a.dtype, a.data, i) != graft::element_as<float>(b.dtype, b.data, i)) return false;
  return true;
}

// Whether embedding and head are one tensor. As in transformers, files that hold both, with other values, override
// the config; one of them is enough.
inline bool tie(graft::StateDict& tensors) {
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  const graft::TensorView* first = tensors.find(embedding);
  const graft::TensorView* second = tensors.find(head);
  if (first && second && !same_values(*first, *second)) return false;
  if (first && second) tensors.erase(head);
  if (!first && second) {
    tensors.insert(embedding, graft::TensorView(*second));
    tensors.erase(head);
  }
  return true;
}
}  // namespace detail

/// Copies narrow weights as f32: for adapters with tensors that no narrow layer could hold, and where dtypes are mixed.
inline void widen(Checkpoint& checkpoint) {
  checkpoint.dtype = graft::Dtype::f32;
  std::map<const std::byte*, graft::TensorView> done;  // a tied head stays tied
  graft::StateDict wide;
  for (const auto& [key, view] : checkpoint.tensors) {
    if (view.dtype == graft::Dtype::f32) {
      wide.insert(key, view);
      continue;
    }
    auto place = done.find(view.data);
    if (place == done.end()) {
      place = done.emplace(view.data, detail::widened(view)).first;
      checkpoint.copied += std::size_t(view.size()) * sizeof(float);
    }
    wide.insert(key, place->second);
  }
  checkpoint.tensors = std::move(wide);
}

/// Maps DIR/model.safetensors, or the shards that DIR/model.safetensors.index.json lists.
/// `tied`: the config says that the head is the embedding.
/// @throws graft::FileError when files are missing, broken or of a dtype that no layer here reads.
inline Checkpoint open_checkpoint(const std::filesystem::path& folder, bool tied) {
  const auto single = folder / "model.safetensors";
  Checkpoint checkpoint{{}, graft::Dtype::f32, 1, 0, 0, 0, false};
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

  checkpoint.tied = tied && detail::tie(checkpoint.tensors);
  graft::StateDict kept;
  for (const auto& [key, view] : checkpoint.tensors) {
    if (key.ends_with("rotary_emb.inv_freq"))
      continue;  // old files hold this constant; transformers skips it too
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
  checkpoint.tensors = std::move(kept);
  if (checkpoint.dtype == graft::Dtype::f32) widen(checkpoint);
  if (checkpoint.tied && checkpoint.tensors.contains("model.embed_tokens.weight"))
    checkpoint.tensors.insert("lm_head.weight", checkpoint.tensors.at("model.embed_tokens.weight"));
  return checkpoint;
}

}  // namespace tales
