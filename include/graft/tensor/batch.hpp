#pragma once

#include <algorithm>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "../core/on_demand.hpp"
#include "ids.hpp"
#include "kv_cache.hpp"
#include "selection.hpp"
#include "tensor.hpp"
#include "workspace.hpp"

namespace graft {

/// Rows that belong together: positions count on from row to row, attention stays inside.
struct Sequence {
  Index begin = 0, rows = 0, position = 0;
  AnyKvCache cache{};
};
/// Neighbouring rows with one adapter selection: `count` entries of the batch's adapters from `first` on,
/// or whatever is active at the site. Segments of equal selections are a chain that starts at the first of them.
struct Segment {
  Index begin = 0, rows = 0;
  unsigned first = 0, count = 0;
  bool active = true;
  bool leads = true;      ///< no segment before it has this selection
  unsigned next = 0;      ///< the next segment with this selection, 0 for none
  unsigned last = 0;      ///< of a segment that leads: the last one of its chain
  Index chain_rows = 0;   ///< of a segment that leads: the rows of its chain
};
/// All that an op ever sees of a batch. A null workspace means the heap.
struct BatchView {
  std::span<const Sequence> sequences{};
  std::span<const Segment> segments{};
  std::span<const WeightedAdapter> adapters{};
  Workspace* workspace = nullptr;
};

namespace detail {
/// The view of a plain matrix: one sequence from position 0 with the active adapters. Lives on the stack.
struct OneSequence {
  Sequence sequence;
  Segment segment;
  explicit OneSequence(Index rows) : sequence{0, rows, 0, {}}, segment{.rows = rows, .chain_rows = rows} {}
  [[nodiscard]] BatchView view() const { return {{&sequence, 1}, {&segment, 1}, {}, nullptr}; }
};

[[noreturn]] inline void row_mismatch(const char* who, Index got, Index want) {
  fail<ShapeError>(std::string(who) + ": " + std::to_string(got) + " rows, but the batch describes " + std::to_string(want),
                   "rows are routed by their place in the batch",
                   "add() as many rows as go in; an op that drops rows must say so (graft::last, graft::mean_pool, Op::tail)");
}
}  // namespace detail

template <class T>
class Rows;
class Tokens;

/// Describes the rows of one forward: sequences, each with its adapters, position and cache.
///
/// Filled by the caller, used again for ever, for one thread at a time. It owns the scratch memory of the
/// pass and must outlive the values made from it.
class Batch {
 public:
  Batch() : own_(std::make_unique<Workspace>()), workspace_(own_.get()) {}

  /// Forgets the rows and keeps the memory.
  template <class = OnDemand>
  void clear() {
    sequences_.clear();
    segments_.clear();
    adapters_.clear();
    pins_.clear();
    std::fill(places_.begin(), places_.end(), 0u);
    leaders_ = 0;
    rows_ = 0;
    outdate_tails();
  }
  /// Adds a sequence of `rows` rows. `position` is that of its first row: by default the cache's length, or 0.
  /// @throws CacheError when position and cache disagree, the cache is full, or it serves two sequences.
  template <class = OnDemand>
  Batch& add(Index rows, const AdapterSelection& selection = {}, AnyKvCache cache = {}, Index position = -1) {
    check(rows, cache, position);
    append(rows, cache ? cache.length() : std::max<Index>(position, 0), cache, selection.follows_active(),
           selection.list());
    if (selection.pins() && (pins_.empty() || pins_.back() != selection.pins())) pins_.push_back(selection.pins());
    outdate_tails();
    return *this;
  }

  /// Token ids of any kind, copied. @throws ShapeError unless there is one for every row.
  [[nodiscard]] Tokens input(const IdsLike auto& ids) const;
  /// A matrix, or a tensor whose first dimension is rows, copied. @throws ShapeError on another number of rows.
  template <class X>
    requires((MatrixLike<X> || TensorLike<X>) && !IdsLike<X>)
  [[nodiscard]] auto input(const X& x) const;

  [[nodiscard]] Index rows() const { return rows_; }
  [[nodiscard]] BatchView view() const { return {sequences_, segments_, adapters_, workspace_}; }
  [[nodiscard]] Workspace& workspace() const { return *workspace_; }
  /// Who runs the pieces of this batch's products, convolutions and attention: a `graft::ThreadPool`, a loop of the
  /// host's. Kept through clear(); at first nobody, and the caller's thread does it all. No bit depends on it.
  void set_parallel_for(const ParallelFor& parallel_for) { workspace_->set_parallel_for(parallel_for); }

  /// The same sequences with only their last `count` rows and no cache: those rows are cached already.
  template <class = OnDemand>
  [[nodiscard]] const Batch& tail(Index count) const {
    auto found = std::find_if(tails_.begin(), tails_.end(), [&](const Tail& tail) { return tail.count == count; });
    if (found == tails_.end()) found = tails_.insert(tails_.end(), Tail{count, std::make_unique<Batch>(workspace_), false});
    if (!found->fresh) {
      fill_tail(*found->batch, count);
      found->fresh = true;
    }
    return *found->batch;
  }

  /// For `tail`: a batch on another one's scratch memory.
  explicit Batch(Workspace* shared) : workspace_(shared) {}

 private:
  struct Tail {
    Index count;
    std::unique_ptr<Batch> batch;
    bool fresh;
  };

  template <class = OnDemand>
  void check(Index rows, const AnyKvCache& cache, Index position) const {
    if (rows < 0) fail<ShapeError>("a sequence of " + std::to_string(rows) + " rows", "rows are counted", "pass 0 or more");
    if (!cache) return;
    if (position >= 0 && position != cache.length())
      fail<CacheError>("a sequence at position " + std::to_string(position) + " with a cache of length " +
                           std::to_string(cache.length()),
                       "the earlier keys would be missing or seen twice", "leave the position out, or truncate() the cache");
    for (const Sequence& sequence : sequences_)
      if (sequence.cache.is(cache))
        fail<CacheError>("one cache serves two sequences of the batch", "their keys would mix", "make a KvCache per sequence");
    if (cache.length() + rows > cache.capacity())
      fail<CacheError>("the cache has room for " + std::to_string(cache.capacity()) + " rows, " +
                           std::to_string(cache.length() + rows) + " are needed",
                       "a cache has a fixed capacity", "make a larger one");
  }

  template <class = OnDemand>
  void append(Index rows, Index position, AnyKvCache cache, bool active, std::span<const WeightedAdapter> list) {
    sequences_.push_back({rows_, rows, position, cache});
    unsigned& place = place_of(active, list);
    const unsigned here = unsigned(segments_.size());
    if (place == 0) {
      place = here + 1;
      ++leaders_;
      segments_.push_back({rows_, rows, unsigned(adapters_.size()), unsigned(list.size()), active, true, 0, here, rows});
      adapters_.insert(adapters_.end(), list.begin(), list.end());
    } else {
      const unsigned leader = place - 1, last = segments_[leader].last;
      segments_[leader].chain_rows += rows;
      if (last + 1 == here) {
        segments_[last].rows += rows;
      } else {
        const Segment& first = segments_[leader];
        segments_.push_back({rows_, rows, first.first, first.count, active, false, 0, 0, 0});
        segments_[last].next = here;
        segments_[leader].last = here;
      }
    }
    rows_ += rows;
  }

  template <class = OnDemand>
  [[nodiscard]] std::span<const WeightedAdapter> list_of(const Segment& segment) const {
    return std::span<const WeightedAdapter>(adapters_).subspan(segment.first, segment.count);
  }
  template <class = OnDemand>
  [[nodiscard]] static std::size_t hash_of(bool active, std::span<const WeightedAdapter> list) {
    std::size_t hash = active;
    for (const WeightedAdapter& one : list)
      hash = (hash ^ one.id ^ std::hash<const void*>()(one.generation) ^ std::hash<double>()(one.weight)) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
  }
  /// Where the number of the first segment with that selection stands, counted from 1, or will stand.
  template <class = OnDemand>
  unsigned& place_of(bool active, std::span<const WeightedAdapter> list) {
    if (2 * (leaders_ + 1) > places_.size()) {  // at most half full, so that every search ends
      places_.assign(std::max<std::size_t>(16, 2 * places_.size()), 0u);
      for (unsigned i = 0; i < segments_.size(); ++i)
        if (segments_[i].leads) probe(segments_[i].active, list_of(segments_[i])) = i + 1;
    }
    return probe(active, list);
  }
  template <class = OnDemand>
  unsigned& probe(bool active, std::span<const WeightedAdapter> list) {
    const std::size_t mask = places_.size() - 1;
    for (std::size_t i = hash_of(active, list) & mask;; i = (i + 1) & mask) {
      if (places_[i] == 0) return places_[i];
      const Segment& segment = segments_[places_[i] - 1];
      const auto other = list_of(segment);
      if (segment.active == active && std::equal(other.begin(), other.end(), list.begin(), list.end())) return places_[i];
    }
  }

  template <class = OnDemand>
  void fill_tail(Batch& tail, Index count) const {
    tail.clear();
    std::size_t at = 0;
    for (const Sequence& sequence : sequences_) {
      while (at + 1 < segments_.size() && sequence.begin >= segments_[at].begin + segments_[at].rows) ++at;
      const Segment& segment = segments_[at];
      const Index kept = std::min(count, sequence.rows);
      tail.append(kept, sequence.position + sequence.rows - kept, {}, segment.active,
                  list_of(segment));
    }
  }
  template <class = OnDemand>
  void outdate_tails() {
    for (Tail& tail : tails_) tail.fresh = false;
  }

  std::vector<Sequence> sequences_;
  std::vector<Segment> segments_;
  std::vector<WeightedAdapter> adapters_;
  std::vector<std::shared_ptr<const void>> pins_;  // what keeps the adapters' weights alive
  std::vector<unsigned> places_;  // a hash table of the segments that lead, by their selections
  std::size_t leaders_ = 0;
  Index rows_ = 0;
  std::unique_ptr<Workspace> own_;
  Workspace* workspace_;
  mutable std::vector<Tail> tails_;
};

}  // namespace graft
