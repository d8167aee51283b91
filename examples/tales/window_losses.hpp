#pragma once

#include <algorithm>
#include <functional>
#include <graft/graft.hpp>
#include <span>
#include <vector>

#include "perplexity.hpp"

namespace tales {
namespace detail {
inline double window_loss(const auto& logits, std::span<const int> expected, std::size_t window) {
  const auto values = logits.value();
  double sum = 0;
  for (std::size_t row = window * window_length; row < (window + 1) * window_length; ++row)
    sum += token_loss({values.row(graft::Index(row)).data(), std::size_t(values.cols())}, expected[row]);
  return sum;
}
// Eight, unless the logits of eight windows would take more than 64 MB.
inline std::size_t windows_per_batch(graft::Index vocab_size) {
  const std::size_t one = window_length * std::size_t(vocab_size) * sizeof(float);
  return std::clamp<std::size_t>((std::size_t(64) << 20) / one, 1, 8);
}
}  // namespace detail

/// The sum of losses of each of the first `windows` windows of a text, with the adapters that are selected. `advance` is
/// told how many are done, from any thread.
template <class M>
std::vector<double> window_losses(const M& model, std::span<const int> ids, std::size_t windows,
                                  const graft::AdapterSelection& selection, unsigned threads,
                                  const std::function<void(std::size_t)>& advance) {
  std::vector<double> losses(windows);
  const std::size_t chunk = detail::windows_per_batch(model.vocab_size());
  share_out(windows, chunk, threads, [&] {
    return [&, batch = graft::Batch()](std::size_t first, std::size_t count) mutable {
      batch.clear();
      for (std::size_t i = 0; i < count; ++i) batch.add(graft::Index(window_length), selection);
      const auto read = ids.subspan(first * window_length, count * window_length);
      const auto expected = ids.subspan(first * window_length + 1, count * window_length);
      const auto logits = model(batch.input(read));
      for (std::size_t i = 0; i < count; ++i) losses[first + i] = detail::window_loss(logits, expected, i);
      advance(count);
    };
  });
  return losses;
}

}  // namespace tales
