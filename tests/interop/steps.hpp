#pragma once

#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <graft/graft.hpp>
#include <graft/io.hpp>
#include <graft/train.hpp>

#include "case.hpp"
#include "config.hpp"

/// Runs the steps of a case on a model: what PeftSide in peft_side.py does with PEFT.
namespace interop {

template <class T>
std::vector<T> values_of(const graft::TensorView& view) {
  std::vector<T> values(std::size_t(view.size()));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = graft::element_as<T>(view.dtype, view.data, i);
  return values;
}

/// The input as the model takes it: ids, a matrix, or a tensor of that rank.
template <class T, int Rank>
struct InputOf {
  using type = Eigen::Tensor<T, Rank, Eigen::RowMajor>;
  static type read(const graft::TensorView& view) {
    Eigen::array<graft::Index, std::size_t(Rank)> dimensions;
    for (std::size_t axis = 0; axis < std::size_t(Rank); ++axis) dimensions[axis] = view.shape.at(axis);
    type input(dimensions);
    const std::vector<T> values = values_of<T>(view);
    std::copy(values.begin(), values.end(), input.data());
    return input;
  }
};
template <class T>
struct InputOf<T, 2> {
  using type = graft::Matrix<T>;
  static type read(const graft::TensorView& view) {
    const std::vector<T> values = values_of<T>(view);
    return Eigen::Map<const type>(values.data(), view.shape.at(0), view.shape.at(1));
  }
};
template <class T>
struct InputOf<T, 1> {
  using type = std::vector<std::int64_t>;
  static type read(const graft::TensorView& view) {
    type ids(std::size_t(view.size()));
    std::memcpy(ids.data(), view.data, view.bytes());
    return ids;
  }
};

template <class T>
Reply::Output output_of(const graft::Matrix<T>& y) {
  return {{y.rows(), y.cols()}, std::vector<double>(y.data(), y.data() + y.size())};
}
template <class T, int N>
Reply::Output output_of(const Eigen::Tensor<T, N, Eigen::RowMajor>& y) {
  Reply::Output output{{}, std::vector<double>(y.data(), y.data() + y.size())};
  for (int axis = 0; axis < N; ++axis) output.shape.push_back(y.dimension(axis));
  return output;
}

/// Normal values for every tensor of an adapter, around 1 for IA3: none keeps its initial value.
inline graft::StateDict drawn_like(const graft::StateDict& current, std::uint64_t seed, std::vector<std::vector<float>>& memory) {
  std::mt19937_64 generator(seed);
  const auto uniform = [&] { return (double(generator() >> 11) + 0.5) / double(1ull << 53); };
  const auto normal = [&] { return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform()); };
  graft::StateDict drawn;
  for (const auto& [key, view] : current) {
    const bool is_ia3 = key.find("ia3_l") != std::string::npos;
    const graft::Index fan_in = view.shape.size() > 1 && view.shape[0] ? view.size() / view.shape[0] : 4;
    const bool is_matrix = !is_ia3 && key.find("lora_E") == std::string::npos && key.find("embedding") == std::string::npos;
    const double scale = is_ia3 ? 0.4 : is_matrix ? 1 / std::sqrt(double(fan_in)) : 1;
    std::vector<float>& values = memory.emplace_back(std::size_t(view.size()));
    for (float& value : values) value = float((is_ia3 ? 1 : 0) + scale * normal());
    drawn.insert(key, {graft::Dtype::f32, view.shape, reinterpret_cast<const std::byte*>(values.data()), nullptr});
  }
  return drawn;
}

inline void require_clean(const graft::LoadReport& report) {
  if (!report.missing_keys.empty()) throw std::runtime_error("missing key " + report.missing_keys[0]);
  if (!report.unexpected_keys.empty()) throw std::runtime_error("unexpected key " + report.unexpected_keys[0]);
  if (!report.mismatched_keys.empty()) throw std::runtime_error("mismatched key " + report.mismatched_keys[0]);
  if (report.loaded.empty()) throw std::runtime_error("nothing was loaded");
}

template <class T, class Model, int InputRank>
class Steps {
 public:
  explicit Steps(const Case& one)
      : case_(one), model_(one.text.at("model").at("sizes")), input_(InputOf<T, InputRank>::read(one.tensors.at("input"))) {
    reply_.dtype = graft::dtype_of<T>;
    require_clean(graft::set_base_model_state_dict(model_, one.base));
  }

  Reply run() {
    for (const auto& step : case_.text.at("steps")) {
      const std::string verb = step.at("do");
      try {
        run(verb, step);
      } catch (const std::exception& error) {
        throw std::runtime_error("step " + step.dump() + ": " + error.what());
      }
    }
    return std::move(reply_);
  }

 private:
  void run(const std::string& verb, const nlohmann::json& step) {
    if (verb == "forward") forward(step.at("to"));
    else if (verb == "load") load(step);
    else if (verb == "inject") inject(step);
    else if (verb == "set") set(step);
    else if (verb == "randomise") randomise(step);
    else if (verb == "set_adapter") graft::set_adapter(model_, step.at("names").get<std::vector<std::string>>());
    else if (verb == "set_scale") graft::set_scale(model_, step.at("name").get<std::string>(), step.at("value").get<double>());
    else if (verb == "delete") graft::delete_adapter(model_, step.at("name").get<std::string>());
    else if (verb == "disable") disable(step);
    else if (verb == "gradients") gradients(step);
    else if (verb == "tree") reply_.trees[step.at("to")] = graft::repr(model_);
    else if (verb == "keys") reply_.keys[step.at("to")] = graft::state_dict(model_).keys();
    else if (verb == "save") save(step);
    else throw std::runtime_error("unknown step");
  }

  void forward(const std::string& to) {
    reply_.outputs[to] = output_of(model_(input_));
    forward_merged(to);
  }

  /// The same with everything merged, where that can be, and then off; unmerged, every bit of the base is back.
  void forward_merged(const std::string& to) {
    if (graft::active_adapters(model_).empty()) return;
    const graft::StateDict before = graft::get_base_model_state_dict(model_).clone();
    try {
      (void)graft::merge_adapter(model_, {}, {.unmerge = graft::Unmerge::backup, .create_bias = true, .tied = graft::Tied::untie});
    } catch (const graft::MergeError& error) {
      reply_.unmerged[to] = error.what();
      return;
    }
    reply_.merged[to] = output_of(model_(input_));
    {
      const auto guard = graft::disable_adapter(model_);
      reply_.merged_off[to] = output_of(model_(input_));
    }
    (void)graft::unmerge_adapter(model_);
    const graft::StateDict after = graft::get_base_model_state_dict(model_);
    if (after.keys() != before.keys()) throw std::runtime_error("unmerged, the base has other tensors");
    for (const auto& [key, view] : before)
      if (view.bytes() && std::memcmp(view.data, after.at(key).data, view.bytes()) != 0)
        throw std::runtime_error("unmerged, '" + key + "' has other bits");
  }

  void disable(const nlohmann::json& step) {
    const auto guard = graft::disable_adapter(model_);
    reply_.outputs[step.at("to")] = output_of(model_(input_));
  }

  void gradients(const nlohmann::json& step) {
    graft::set_requires_grad(model_, step.at("names").get<std::vector<std::string>>(), true);
    graft::Tape tape({.dropout = false});
    graft::Batch sequences;
    const auto x = recorded_input(tape, sequences);
    const auto y = model_(x);
    const std::vector<T> upstream = values_of<T>(case_.tensors.at("upstream"));
    tape.backward(y, graft::Matrix<T>(graft::in<T>(upstream.data(), y.rows(), y.cols())));
    for (const auto& one : graft::trainable_parameters(model_)) {
      Reply::Output& gradient = reply_.gradients[one.key];
      gradient.shape.assign(one.shape().begin(), one.shape().end());
      gradient.values.resize(std::size_t(one.shape().size()));
      const graft::Matrix<T>* const found = tape.gradients().find_at<T>(*one.parameter);
      if (found) gradient.values.assign(found->data(), found->data() + found->size());
    }
    if constexpr (InputRank > 1) reply_.gradients["input"] = output_of(graft::Matrix<T>(x.grad()));
  }

  /// A tensor of several sequences, whose features are its last axis, enters as their rows.
  auto recorded_input(graft::Tape& tape, graft::Batch& sequences) const {
    if constexpr (InputRank == 1) {
      return tape.input(input_);
    } else {
      if constexpr (InputRank == 3)
        if (case_.text.at("model").at("type") != "conv") {
          for (graft::Index i = 0; i < input_.dimension(0); ++i) sequences.add(input_.dimension(1));
          return tape.input(sequences.input(graft::Matrix<T>(graft::in<T>(input_.data(), sequences.rows(), input_.dimension(2)))), true);
        }
      return tape.input(input_, true);
    }
  }

  void load(const nlohmann::json& step) {
    graft::LoadAdapterOptions options;
    options.low_cpu_mem_usage = step.at("low_cpu_mem_usage");
    options.mapped = step.at("mapped");
    options.activate = step.at("activate");
    require_clean(graft::load_adapter(model_, folder(step.at("dir")), step.at("name").get<std::string>(), options));
  }

  void inject(const nlohmann::json& step) {
    const std::filesystem::path from = folder(step.at("config"));
    graft::StateDict state_dict;
    graft::InjectOptions options;
    options.low_cpu_mem_usage = step.at("low_cpu_mem_usage");
    options.seed = step.at("seed");
    if (!step.at("state_dict").is_null()) {
      state_dict = graft::safetensors::load_file(folder(step.at("state_dict")));
      options.state_dict = &state_dict;
    }
    graft::PeftConfig made;
    if (step.at("source") == "struct") made = config(nlohmann::json::parse(std::ifstream(from / "adapter_config.json")));
    else made = graft::load_peft_config(from);
    const graft::InjectReport report = graft::inject_adapter_in_model(made, model_, step.at("name").get<std::string>(), options);
    for (const auto& one : report.matched) reply_.matched[step.at("to")].emplace_back(one.path);
  }

  void set(const nlohmann::json& step) {
    const graft::StateDict file = graft::safetensors::load_file(folder(step.at("file")));
    graft::LoadOptions options;
    options.low_cpu_mem_usage = step.at("low_cpu_mem_usage");
    require_clean(graft::set_peft_model_state_dict(model_, file, step.at("name").get<std::string>(), options));
  }

  void randomise(const nlohmann::json& step) {
    const std::string name = step.at("name");
    std::vector<std::vector<float>> memory;
    const graft::StateDict drawn = drawn_like(graft::get_peft_model_state_dict(model_, name), step.at("seed"), memory);
    require_clean(graft::set_peft_model_state_dict(model_, drawn, name));
  }

  void save(const nlohmann::json& step) {
    const std::filesystem::path target = case_.reply_folder / step.at("dir").get<std::string>();
    const std::string name = step.at("name");
    const std::filesystem::path parent = name == "default" ? target : target.parent_path();
    if (graft::save_pretrained(model_, parent, name) != target) throw std::runtime_error("saved to another folder");
    if (step.value("bare", false))
      graft::safetensors::save_file(graft::get_peft_model_state_dict(model_, name), target / "bare.safetensors");
  }

  std::filesystem::path folder(const nlohmann::json& relative) const { return case_.folder / relative.get<std::string>(); }

  const Case& case_;
  Model model_;
  typename InputOf<T, InputRank>::type input_;
  Reply reply_;
};

}  // namespace interop
