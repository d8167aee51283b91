#pragma once

#include <string>

#include <graft/graft.hpp>

#include "../context.hpp"

namespace paired {

/// A linear site on memory that peers read too, its input and its result.
template <class T = float>
struct OneSite {
  OneSite(graft::Index in, graft::Index out, const T* weight) : site(in, out, false) { site->weight.bind(weight); }
  graft::Adaptable<graft::Linear<T, graft::mapped>> site;
  GRAFT_MODULE(site)
};

/// x (n, in), w (out, in), y (n, out).
template <class T = float>
struct Problem {
  Problem(long rows, long inputs, long outputs)
      : n(rows), in(inputs), out(outputs), x(n * in), w(out * in), y(n * out) {
    x.fill(1);
    w.fill(2, 0.05);
  }
  long n, in, out;
  Memory<T> x, w, y;

  [[nodiscard]] auto input() const { return Eigen::Map<const graft::Matrix<T>>(x.data(), n, in); }
  [[nodiscard]] auto result() { return Eigen::Map<graft::Matrix<T>>(y.data(), n, out); }
  [[nodiscard]] PeerJob job(PeerOperation operation) {
    return {.operation = operation, .is_double = sizeof(T) == 8, .n = n, .in = in, .out = out, .r = 0, .x = x.data(),
            .w = w.data(), .a = nullptr, .b = nullptr, .y = y.data(), .scale = 2, .adapters = 0, .adapter_a = nullptr, .adapter_b = nullptr, .adapter_of_row = nullptr};
  }
  [[nodiscard]] nlohmann::json worker_job(const char* operation) const {
    return {{"operation", operation}, {"n", n}, {"in", in}, {"out", out}, {"double", sizeof(T) == 8}};
  }
  [[nodiscard]] double operations() const { return 2.0 * double(n) * double(in) * double(out); }
  [[nodiscard]] double bytes() const { return double(sizeof(T)) * (double(in) * double(out) + double(n) * double(in + out)); }
};

inline std::string square(long size) { return std::to_string(size) + "²"; }

/// Injects LoRA with an alpha of 2 r and nothing at zero.
template <class Model>
void inject_lora(Model& model, int r, const std::string& name = "default", bool use_dora = false) {
  graft::LoraConfig config{.r = r, .lora_alpha = 2.0 * r, .target_modules = {"site"}, .init_lora_weights = false};
  config.use_dora = use_dora;
  graft::inject_adapter_in_model(config, model, name);
}

}  // namespace paired
