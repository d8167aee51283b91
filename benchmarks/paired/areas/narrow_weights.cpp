// Weights, and adapters, in fewer bits than the activations.
#include <span>

#include <graft/kernels/narrow_low_rank.hpp>

#include "layers.hpp"

#if __has_include(<graft/quantized.hpp>)
#include <graft/quantized.hpp>
#define PAIRED_HAS_QUANTIZED 1
#endif

namespace paired {
namespace {

/// A site on a narrow copy of an f32 weight.
template <class W>
struct NarrowSite {
  NarrowSite(long in, long out, const Memory<float>& from) : weight(from.size()), site(in, out, false) {
    for (std::size_t i = 0; i < weight.size(); ++i) weight.data()[i] = W(from.data()[i]);
    site->weight.bind(weight.data());
  }
  Memory<W> weight;
  graft::Adaptable<graft::Linear<W, graft::mapped>> site;
};

struct Format {
  const char* name;
  const char* peer_type;     ///< of ggml, with about as many bits
  double bytes_per_weight;
  double peer_goal;          ///< at T=1 on a weight that no cache holds
};
const Format formats[] = {{"bf16", "bf16", 2, 1.0}, {"f16", "f16", 2, 1.0}, {"int8", "q8_0", 1, 1.0}, {"NF4", "q4_0", 0.5625, 0.75}};

std::vector<Gate> gates(const Format& format, long size, long n) {
  std::vector<Gate> all;
  const std::string name = format.name;
  if (n == 1 && size == 4096 && name != "f16")
    all.push_back({.goal = "9", .what = std::string("ours / ggml ") + format.peer_type, .target = format.peer_goal});
  if (n == 512) all.push_back({.goal = "9", .what = "ours / ours f32", .target = 1.05});
  return all;
}

/// `ours` has its own, when this version has the format.
template <class MakeOurs>
Row measure(Context& context, const Format& format, long size, long n, Row row, MakeOurs make_ours) {
  Problem<float> problem(n, size, size);
  OneSite<> wide(size, size, problem.w.data());
  graft::Batch batch;
  batch.add(n);
  Race race;
  race.add("ours", make_ours(problem, batch));
  race.add("ours f32", [&] { wide.site(problem.input(), batch, problem.result()); });
  nlohmann::json job = problem.worker_job("product");
  job["type"] = format.peer_type;
  const std::string peer = std::string("ggml ") + format.peer_type;
  race.add(peer, context.worker("ggml", job));
  race.run(context.effort());
  row.ours = race["ours"];
  row.reason = race.reason("ours");
  row.limit = context.machine.limit(problem.operations(), format.bytes_per_weight * double(size) * double(size), false);
  row.limit_of = n > 16 ? "arithmetic in f32" : "reading W";
  row.beside = {race.beside("ours f32"), race.beside(peer)};
  for (Gate& gate : row.gates) {
    const bool with_peer = gate.what != "ours / ours f32";
    gate.value = row.ours / race[with_peer ? peer : "ours f32"];
    gate.reason = !row.reason.empty() ? row.reason : race.reason(with_peer ? peer : "ours f32");
  }
  return row;
}

template <class W>
auto site_of() {
  return [](Problem<float>& problem, const graft::Batch& batch) -> Contender {
    const auto held = std::make_shared<NarrowSite<W>>(problem.in, problem.out, problem.w);
    return {here([held, &problem, &batch] { held->site(problem.input(), batch, problem.result()); }), {}};
  };
}
/// A quantised layer, where this version has them.
auto quantized([[maybe_unused]] const std::string& format) {
  return [=](Problem<float>& problem, const graft::Batch& batch) -> Contender {
#ifdef PAIRED_HAS_QUANTIZED
    const auto site = std::make_shared<graft::Adaptable<graft::QuantizedLinear>>(
        problem.in, problem.out, false, format == "int8" ? graft::QuantFormat::int8 : graft::QuantFormat::nf4);
    (void)site->base_layer().requantize(Eigen::Map<const graft::Matrix<>>(problem.w.data(), problem.out, problem.in));
    return {here([site, &problem, &batch] { (*site)(problem.input(), batch, problem.result()); }), {}};
#else
    (void)problem, (void)batch;
    return {{}, "this format is not in this version"};
#endif
  };
}

/// One row and many adapters in turn, of which none is in cache when its turn comes.
void narrow_adapters(Context& context) {
  constexpr long size = 4096, rank = 64, adapters = 64;
  Row row{.name = "LoRA r=64 in bf16, 4096² T=1, " + std::to_string(adapters) + " adapters in turn"};
  row.gates = {{.goal = "narrow adapter", .what = "ours / ours f32", .target = 0.7}};
  if (context.options.quick) {
    row.reason = row.gates[0].reason = not_quick;
    return context.report.row(row);
  }
  namespace kernels = graft::kernels;
  const std::size_t count = std::size_t(rank * size);
  Memory<float> a(adapters * count), b(adapters * count), x(size), y(size), scratch(rank);
  Memory<graft::bf16> narrow_a(a.size()), narrow_b(b.size());
  a.fill(1);
  b.fill(2);
  x.fill(3);
  for (std::size_t i = 0; i < a.size(); ++i) narrow_a.data()[i] = graft::bf16(a.data()[i]);
  for (std::size_t i = 0; i < b.size(); ++i) narrow_b.data()[i] = graft::bf16(b.data()[i]);
  std::size_t turn = 0, narrow_turn = 0;
  Race race;
  race.add("ours", [&] {
    const std::size_t at = narrow_turn++ % adapters * count;
    kernels::narrow_low_rank_update<graft::bf16>(1, size, size, rank, x.data(), size, narrow_a.data() + at, narrow_b.data() + at,
                                                 nullptr, 2, nullptr, y.data(), size, scratch.data());
  });
  race.add("ours f32", [&] {
    const std::size_t at = turn++ % adapters * count;
    const kernels::LowRankTerm<float> term{rank, a.data() + at, b.data() + at, nullptr, 2, nullptr};
    kernels::low_rank_updates<float>(1, size, size, std::span(&term, 1), x.data(), size, nullptr, y.data(), size, scratch.data());
  });
  race.run(context.effort());
  row.ours = race["ours"];
  row.limit = context.machine.limit(4.0 * double(count), 4.0 * double(count), false);
  row.limit_of = "reading A and B";
  row.beside = {race.beside("ours f32")};
  row.gates[0].value = race["ours"] / race["ours f32"];
  context.report.row(row);
}

}  // namespace

void narrow_weights(Context& context) {
  context.report.area("narrow", "Narrow weights under f32 activations, one thread; the weight of 4096² is out of cache");
  for (const Format& format : formats)
    for (const long size : {768L, 4096L})
      for (const long n : {1L, 4L, 512L}) {
        Row row{.name = std::string(format.name) + " " + square(size) + " T=" + std::to_string(n)};
        row.gates = gates(format, size, n);
        const std::string name = format.name;
        if (context.options.quick && (size != 768 || n == 512)) {
          row.reason = not_quick;
          for (Gate& gate : row.gates) gate.reason = not_quick;
          context.report.row(row);
        } else if (name == "bf16") {
          context.report.row(measure(context, format, size, n, row, site_of<graft::bf16>()));
        } else if (name == "f16") {
          context.report.row(measure(context, format, size, n, row, site_of<graft::f16>()));
        } else {
          context.report.row(measure(context, format, size, n, row, quantized(name)));
        }
      }
  Row repacked{.name = "NF4 4096² T=1, against repacked q4_0"};
  repacked.reason = "the packages' ggml repacks a weight only inside llama.cpp";
  repacked.gates.push_back({.goal = "9", .what = "ours / ggml q4_0 repacked", .target = 1.2, .reason = repacked.reason});
  context.report.row(repacked);
  narrow_adapters(context);
}

}  // namespace paired
