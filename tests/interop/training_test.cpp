// Real PEFT trained what stands under tests/data/training/runs (runs.py), ten steps of AdamW; here graft does the same.
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <graft/io.hpp>
#include <graft/train.hpp>
#include <graft/training/orthogonal_penalty.hpp>
#include <graft/training/rank_allocator.hpp>

#include "models.hpp"

namespace {
using graft::Index;
using graft::Matrix;

const std::filesystem::path runs = std::filesystem::path(GRAFT_TEST_DATA) / "training" / "runs";

std::vector<double> values_of(const graft::TensorView& view) {
  std::vector<double> values(std::size_t(view.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = graft::element_as<double>(view.dtype, view.data, i);
  return values;
}

interop::Decoder<double> base_model(const graft::StateDict& tensors) {
  interop::Decoder<double> model(nlohmann::json::parse(std::ifstream(runs / "model.json")));
  graft::StateDict base;
  for (const auto& [key, view] : tensors)
    if (key.rfind("base.", 0) == 0) base.insert(key.substr(5), view);
  const graft::LoadReport report = graft::set_base_model_state_dict(model, base);
  REQUIRE(report.missing_keys.empty());
  return model;
}

/// What is rounded differently in the first step is made larger by the next ones: Adam divides by gradients.
constexpr double tolerance = 1e-9;

template <class M>
void check_parameters(M& model, const graft::StateDict& initial, const graft::StateDict& expected) {
  const graft::TrainableParameters parameters = graft::trainable_parameters(model);
  std::size_t seen = 0;
  for (const auto& [key, view] : expected) {
    if (key.rfind("trained.", 0) != 0) continue;
    ++seen;
    CAPTURE(key);
    const graft::TrainableParameter* const own = parameters.find(key.substr(8));
    REQUIRE(own);
    REQUIRE(own->shape() == graft::Shape(view.shape));
    const auto* const values = reinterpret_cast<const double*>(own->parameter->data());
    const std::vector<double> want = values_of(view), began = values_of(initial.at(key.substr(8)));
    double off = 0, moved = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      off = std::max(off, std::abs(values[i] - want[i]));
      moved = std::max(moved, std::abs(began[i] - want[i]));
    }
    CHECK(off < tolerance);
    CHECK(moved > 1e-2);
  }
  CHECK(seen == parameters.size());
}
}  // namespace

TEST_CASE("ten steps of training end where PEFT's do") {
  const graft::StateDict tensors = graft::safetensors::load_file(runs / "model.safetensors");
  const graft::TensorView& seen = tensors.at("ids");
  std::vector<std::int64_t> ids(std::size_t(seen.size()));
  std::memcpy(ids.data(), seen.data, seen.bytes());
  const std::vector<double> wanted = values_of(tensors.at("target"));
  const Matrix<double> target = graft::in<double>(wanted.data(), Index(ids.size()), Index(wanted.size() / ids.size()));
  for (const std::string name : {"lora", "dora", "ia3", "adalora"}) {
    CAPTURE(name);
    interop::Decoder<double> model = base_model(tensors);
    graft::LoadAdapterOptions options;
    options.is_trainable = true;
    (void)graft::load_adapter(model, runs / name, "default", options);
    const graft::StateDict initial = graft::state_dict(model).clone(), expected = graft::safetensors::load_file(runs / name / "trained.safetensors");
    const std::vector<double> losses = values_of(expected.at("losses"));
    REQUIRE(losses.size() == 10);

    graft::AdamW optimizer(graft::trainable_parameters(model), {.lr = 1e-2});
    graft::Tape tape;
    std::vector<graft::RankAllocator> allocator;
    if (name == "adalora") allocator.emplace_back(model);
    for (std::size_t step = 0; step < losses.size(); ++step) {
      CAPTURE(step);
      tape.clear();
      tape.gradients().clear();
      const graft::Loss loss = graft::mse_loss(model(tape.input(ids)), target);
      tape.backward(loss);
      const double penalty = allocator.empty() ? 0 : graft::add_orthogonal_penalty(model, "default", tape.gradients());
      CHECK((penalty > 0.1) == (name == "adalora"));
      CHECK(std::abs(loss.value() + penalty - losses[step]) < tolerance * losses[step]);
      optimizer.step(tape.gradients());
      for (graft::RankAllocator& one : allocator) one.update_and_allocate(long(step), tape.gradients());
    }
    check_parameters(model, initial, expected);
  }
}
