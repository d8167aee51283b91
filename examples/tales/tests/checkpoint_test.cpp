#include "../checkpoint.hpp"

#include <doctest/doctest.h>

#include "support.hpp"

using tales_test::tales_folder;
using tales_test::TemporaryFolder;

namespace {
const auto llamas = tales_folder / "tests" / "llamas";

graft::StateDict tensors(std::initializer_list<std::pair<std::string, graft::TensorView>> entries) {
  graft::StateDict all;
  for (const auto& [key, view] : entries) all.insert(key, view);
  return all;
}
template <class W>
graft::TensorView view_of(const std::vector<W>& values) {
  return {graft::dtype_of<W>,
          {graft::Index(values.size()), 1},
          reinterpret_cast<const std::byte*>(values.data()),
          nullptr};
}
}  // namespace

TEST_CASE("tales: one file is mapped, and a tied head is the embedding's bytes") {
  const auto checkpoint = tales::open_checkpoint(tales_folder / "base", true);
  CHECK(checkpoint.dtype == graft::Dtype::bf16);
  CHECK(checkpoint.files == 1);
  CHECK(checkpoint.bytes == 2 * 492384);
  const auto& embedding = checkpoint.tensors.at("model.embed_tokens.weight");
  CHECK(checkpoint.tensors.at("lm_head.weight").data == embedding.data);
  CHECK(embedding.owner != nullptr);
  CHECK(checkpoint.tensors.at("model.norm.weight").owner == embedding.owner);
}

TEST_CASE("tales: shards are put together, untied heads kept") {
  const auto checkpoint = tales::open_checkpoint(llamas / "half_shards", false);
  CHECK(checkpoint.dtype == graft::Dtype::f16);
  CHECK(checkpoint.files == 5);
  CHECK(checkpoint.tensors.size() == 3 + 2 * (2 + 7 + 7));
  CHECK(checkpoint.tensors.at("lm_head.weight").data !=
        checkpoint.tensors.at("model.embed_tokens.weight").data);
}

TEST_CASE("tales: constants of old files are passed over, mixed dtypes become f32 exactly") {
  const TemporaryFolder folder;
  const std::vector<graft::bf16> narrow{graft::bf16(0.1f), graft::bf16(-3.0f)};
  const std::vector<float> wide{0.1f, 2.0f};
  graft::safetensors::save_file(tensors({{"model.embed_tokens.weight", view_of(narrow)},
                                         {"model.norm.weight", view_of(wide)},
                                         {"model.layers.0.self_attn.rotary_emb.inv_freq", view_of(wide)}}),
                                folder.path() / "model.safetensors");
  const auto checkpoint = tales::open_checkpoint(folder.path(), true);
  CHECK(checkpoint.dtype == graft::Dtype::f32);
  CHECK(checkpoint.tied);
  CHECK(checkpoint.tensors.size() == 3);
  for (const auto& [key, view] : checkpoint.tensors) CHECK(view.dtype == graft::Dtype::f32);
  const auto element = [&](const char* key, std::size_t i) {
    return graft::element_as<float>(graft::Dtype::f32, checkpoint.tensors.at(key).data, i);
  };
  CHECK(element("model.embed_tokens.weight", 0) == float(graft::bf16(0.1f)));
  CHECK(element("lm_head.weight", 1) == -3.0f);
  CHECK(element("model.norm.weight", 0) == 0.1f);
}

TEST_CASE("tales: a tied head may stand in the files too, or alone; with other values it is a head of its own") {
  const std::vector<float> values{0.5f, 2.0f}, others{0.5f, 3.0f};
  const std::vector<graft::f16> narrow{graft::f16(0.5f), graft::f16(2.0f)};
  const auto open = [](const graft::StateDict& saved) {
    const TemporaryFolder folder;
    graft::safetensors::save_file(saved, folder.path() / "model.safetensors");
    return tales::open_checkpoint(folder.path(), true);
  };
  const std::string embedding = "model.embed_tokens.weight", head = "lm_head.weight";
  for (const auto& same : {tensors({{embedding, view_of(values)}, {head, view_of(values)}}),
                           tensors({{embedding, view_of(values)}, {head, view_of(narrow)}}),
                           tensors({{head, view_of(values)}})}) {
    const auto checkpoint = open(same);
    CHECK(checkpoint.tied);
    CHECK(checkpoint.parameters == 2);
    CHECK(checkpoint.tensors.at(head).data == checkpoint.tensors.at(embedding).data);
  }
  const auto apart = open(tensors({{embedding, view_of(values)}, {head, view_of(others)}}));
  CHECK(!apart.tied);
  CHECK(apart.parameters == 4);
  CHECK(graft::element_as<float>(graft::Dtype::f32, apart.tensors.at(head).data, 1) == 3.0f);
}

TEST_CASE("tales: widened weights have the same values, and what is tied stays tied") {
  auto checkpoint = tales::open_checkpoint(tales_folder / "base", true);
  const auto narrow = checkpoint.tensors.at("model.layers.1.mlp.up_proj.weight");
  CHECK(checkpoint.copied == 0);
  tales::widen(checkpoint);
  CHECK(checkpoint.dtype == graft::Dtype::f32);
  CHECK(checkpoint.copied == 4 * 492384);
  CHECK(checkpoint.tensors.at("lm_head.weight").data == checkpoint.tensors.at("model.embed_tokens.weight").data);
  const auto wide = checkpoint.tensors.at("model.layers.1.mlp.up_proj.weight");
  CHECK(wide.dtype == graft::Dtype::f32);
  CHECK(wide.shape == narrow.shape);
  for (std::size_t i = 0; i < std::size_t(narrow.size()); i += 97)
    CHECK(graft::element_as<float>(wide.dtype, wide.data, i) == graft::element_as<float>(narrow.dtype, narrow.data, i));
  tales::widen(checkpoint);
  CHECK(checkpoint.copied == 4 * 492384);
}

TEST_CASE("tales: folders without usable weights are errors") {
  const TemporaryFolder folder;
  const auto open = [&] { (void)tales::open_checkpoint(folder.path(), false); };
  CHECK_THROWS_AS(open(), graft::FileError);
  const auto index = [&](const char* key, const char* file) {
    folder.write("model.safetensors.index.json", nlohmann::json{{"weight_map", {{key, file}}}});
  };
  index("a", "missing.safetensors");
  CHECK_THROWS_AS(open(), graft::FileError);
  index("a", "../base/model.safetensors");
  CHECK_THROWS_WITH_AS(open(), doctest::Contains("not in this folder"), graft::FileError);
  const std::vector<float> values{1, 2};
  graft::safetensors::save_file(tensors({{"a", view_of(values)}}), folder.path() / "part.safetensors");
  index("b", "part.safetensors");
  CHECK_THROWS_WITH_AS(open(), doctest::Contains("'b' is not in part.safetensors"), graft::FileError);
  index("a", "part.safetensors");
  CHECK_NOTHROW(open());
  folder.write("model.safetensors.index.json", nlohmann::json{{"metadata", 1}});
  CHECK_THROWS_AS(open(), graft::FileError);
  const std::vector<std::int64_t> whole{1, 2};
  graft::safetensors::save_file(tensors({{"a", view_of(whole)}}), folder.path() / "model.safetensors");
  CHECK_THROWS_WITH_AS(open(), doctest::Contains("I64"), graft::FileError);
}
