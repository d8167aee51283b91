#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

/// Factors of the learning rate by step, from 0 on: the formulas of transformers' get_…_schedule_with_warmup.
///
///     optimizer.set_lr(1e-3 * cosine_with_warmup(step, warmup_steps, total_steps));
namespace graft {

namespace detail {
[[nodiscard]] inline double warmup_factor(long step, long warmup_steps) { return double(step) / double(std::max(1L, warmup_steps)); }
}  // namespace detail

/// From 0 to 1 in `warmup_steps`, then 1.
[[nodiscard]] inline double constant_with_warmup(long step, long warmup_steps) {
  return step < warmup_steps ? detail::warmup_factor(step, warmup_steps) : 1;
}
/// From 0 to 1 in `warmup_steps`, then straight to 0 at `total_steps`.
[[nodiscard]] inline double linear_with_warmup(long step, long warmup_steps, long total_steps) {
  if (step < warmup_steps) return detail::warmup_factor(step, warmup_steps);
  return std::max(0.0, double(total_steps - step) / double(std::max(1L, total_steps - warmup_steps)));
}
/// From 0 to 1 in `warmup_steps`, then along a cosine to 0 at `total_steps`; `cycles` 0.5 is half a wave.
[[nodiscard]] inline double cosine_with_warmup(long step, long warmup_steps, long total_steps, double cycles = 0.5) {
  if (step < warmup_steps) return detail::warmup_factor(step, warmup_steps);
  const double progress = double(step - warmup_steps) / double(std::max(1L, total_steps - warmup_steps));
  return std::max(0.0, 0.5 * (1 + std::cos(std::numbers::pi * cycles * 2 * progress)));
}

}  // namespace graft
