// The norms of the rows of W + s B A, which DoRA divides by.
#include <cmath>

#include "layers.hpp"

#if __has_include(<graft/kernels/row_norms.hpp>)
#include <graft/kernels/row_norms.hpp>
#define PAIRED_HAS_NORMS 1
#endif

namespace paired {
namespace {

constexpr long size = 4096;
constexpr double scale = 2;

struct Norms {
  explicit Norms(int rank) : r(rank), w(size * size), a(r * size), b(size * r), y(size), parts(3 * size) {
    w.fill(1, 0.05);
    a.fill(2, 0.02);
    b.fill(3, 0.02);
  }
  int r;
  Memory<float> w, a, b, y;
  Memory<double> parts;
#ifdef PAIRED_HAS_NORMS
  Memory<float> scratch{std::size_t(graft::kernels::row_norms_scratch<float>(size, r))};
  void ours() {
    const graft::kernels::NormParts in{parts.data(), parts.data() + size, parts.data() + 2 * size};
    graft::kernels::row_norms<float>(
        size, size, r, [&](std::ptrdiff_t begin, std::ptrdiff_t) { return w.data() + begin * size; }, a.data(), b.data(),
        in, scratch.data());
    for (long o = 0; o < size; ++o) y.data()[o] = float(graft::kernels::norm_at(in, o, scale));
  }
#endif

  /// The largest relative error of the first rows, against sums in double.
  [[nodiscard]] double error() const {
    double worst = 0;
    for (long o = 0; o < 256; ++o) {
      double square = 0;
      for (long i = 0; i < size; ++i) {
        double value = 0;
        for (int j = 0; j < r; ++j) value += double(b.data()[o * r + j]) * double(a.data()[j * size + i]);
        value = double(w.data()[o * size + i]) + scale * value;
        square += value * value;
      }
      worst = std::max(worst, std::abs(double(y.data()[o]) / std::sqrt(square) - 1));
    }
    return worst;
  }
};

Row measure(Context& context, int r, Row row) {
  Norms norms(r);
  const PeerJob job{.operation = peer_norm_formed, .is_double = false, .n = 0, .in = size, .out = size, .r = r, .x = nullptr,
                    .w = norms.w.data(), .a = norms.a.data(), .b = norms.b.data(), .y = norms.y.data(), .scale = scale,
                    .adapters = 0, .adapter_a = nullptr, .adapter_b = nullptr, .adapter_of_row = nullptr};
  Race race;
#ifdef PAIRED_HAS_NORMS
  race.add("ours", [&] { norms.ours(); });
#else
  race.add("ours", Contender{{}, "DoRA's norms are not in this version"});
#endif
  race.add("eigen, W + s B A formed", context.peer("eigen", job));
  race.add("read W", [&] { read_all(norms.w.data(), norms.w.bytes()); });
  race.add("peak", Contender{context.machine.at_peak(2.0 * r * double(size) * double(size), false), {}});
  race.run(context.effort());
  row.ours = race["ours"];
  row.reason = race.reason("ours");
  row.limit = std::max(race["read W"].median(), race["peak"].median());
  row.limit_of = "reading W, or one product of W with A";
  row.beside.push_back(race.beside("eigen, W + s B A formed"));
  row.gates[0].value = row.ours / race["eigen, W + s B A formed"];
  row.gates[0].reason = row.ours.measured() ? race.reason("eigen, W + s B A formed") : row.reason;
  row.gates[1].reason = row.reason;
#ifdef PAIRED_HAS_NORMS
  norms.ours();
  row.gates[1].value = Series({norms.error()});
#endif
  return row;
}

}  // namespace

void dora_norms(Context& context) {
  for (const int r : {8, 16, 64}) {
    Row row{.name = "4096² r=" + std::to_string(r) + " DoRA norms"};
    row.gates = {{.goal = "8", .what = "ours / eigen, W + s B A formed", .target = 0.65},
                 {.goal = "8", .what = "largest relative error", .target = 1e-6}};
    if (context.options.quick) {
      row.reason = not_quick;
      for (Gate& gate : row.gates) gate.reason = not_quick;
      context.report.row(row);
    } else {
      context.report.row(measure(context, r, row));
    }
  }
}

}  // namespace paired
