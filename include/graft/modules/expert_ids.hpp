#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>

#include "../tensor/matrix.hpp"
#include "../tensor/workspace.hpp"

namespace graft {

/// Which matrix of a stack multiplies which rows: one for all of them, or one for each. A view: numbers of rows are not
/// copied, and must outlive the call.
class ExpertIds {
 public:
  /// None: the weight is one matrix.
  ExpertIds() = default;
  /// The same for all rows.
  template <std::integral I>
    requires(!std::same_as<I, bool>)
  ExpertIds(I expert) : one_(Index(expert)), kind_(Kind::one) {}
  /// Of every row its own: a std::vector<int>, std::span, std::array.
  template <class R>
    requires(!std::integral<R> && std::convertible_to<const R&, std::span<const std::int32_t>>)
  ExpertIds(const R& of_rows) : rows_(of_rows), kind_(Kind::rows) {}

  [[nodiscard]] bool is_none() const { return kind_ == Kind::none; }
  [[nodiscard]] bool is_by_row() const { return kind_ == Kind::rows; }
  [[nodiscard]] Index one() const { return one_; }
  [[nodiscard]] std::span<const std::int32_t> of_rows() const { return rows_; }
  /// Of some rows alone.
  [[nodiscard]] ExpertIds part(Index begin, Index size) const {
    ExpertIds some = *this;
    if (is_by_row()) some.rows_ = rows_.subspan(std::size_t(begin), std::size_t(size));
    return some;
  }

 private:
  enum class Kind { none, one, rows };
  Index one_ = 0;
  std::span<const std::int32_t> rows_{};
  Kind kind_ = Kind::none;
};

namespace detail {
[[noreturn]] inline void experts_mismatch(std::string problem) {
  fail<ShapeError>(std::move(problem), "a stack (experts, …) multiplies every row by the matrix of its expert",
                   "pass one expert for all rows, or a number in [0, experts) for every row; nothing where the weight is one matrix");
}

/// `stack`: how many matrices there are, 0 where the weight is no stack. @throws ShapeError
inline void check_experts(const ExpertIds& experts, Index stack, Index rows) {
  if (stack == 0) {
    if (!experts.is_none()) experts_mismatch("experts for a weight that is one matrix");
    return;
  }
  const auto check = [&](Index expert) {
    if (expert < 0 || expert >= stack) experts_mismatch("expert " + std::to_string(expert) + " of a stack of " + std::to_string(stack));
  };
  if (experts.is_none()) experts_mismatch("a stack of " + std::to_string(stack) + " weights without an expert");
  if (!experts.is_by_row()) return check(experts.one());
  if (Index(experts.of_rows().size()) != rows)
    experts_mismatch("experts for " + std::to_string(experts.of_rows().size()) + " rows, and " + std::to_string(rows) + " rows");
  for (const std::int32_t expert : experts.of_rows()) check(expert);
}

/// Calls f(expert, numbers of its rows, their count), expert by expert: the numbers ascend, and are null where all of n rows
/// have one expert. @pre check_experts
template <class F>
void for_each_expert_of(const ExpertIds& experts, Index stack, Index n, Workspace* workspace, F f) {
  const std::span<const std::int32_t> of_rows = experts.of_rows();
  if (!experts.is_by_row()) return f(experts.one(), static_cast<const Index*>(nullptr), n);
  if (of_rows.empty()) return;
  if (std::all_of(of_rows.begin(), of_rows.end(), [&](std::int32_t one) { return one == of_rows[0]; }))
    return f(Index(of_rows[0]), static_cast<const Index*>(nullptr), n);

  const Scratch<Index> memory(workspace, stack + 1 + n);
  Index* const ends = memory.data();  // of each expert's part of the order
  Index* const order = ends + stack + 1;
  std::fill_n(ends, stack + 1, Index(0));
  for (const std::int32_t expert : of_rows) ++ends[expert + 1];
  for (Index e = 0; e < stack; ++e) ends[e + 1] += ends[e];
  for (Index i = 0; i < n; ++i) order[ends[of_rows[std::size_t(i)]]++] = i;
  for (Index e = 0, begin = 0; e < stack; begin = ends[e++])
    if (ends[e] > begin) f(e, static_cast<const Index*>(order + begin), ends[e] - begin);
}
/// Whether such rows lie together.
[[nodiscard]] inline bool are_neighbours(const Index* rows, Index count) { return !rows || rows[count - 1] - rows[0] + 1 == count; }
/// to = the rows of x with these numbers.
template <class T>
void gather_rows(const Index* rows, Index count, const In<T>& x, Out<T> to) {
  for (Index i = 0; i < count; ++i) copy_rows(rows_of(x, rows[i], 1), rows_of(to, i, 1));
}

/// Calls f(expert, x's rows of it, y's), expert by expert. Rows that do not lie together are copied side by side, and y's
/// back; `reads_y`: f adds to them. @pre check_experts
template <class T, class F>
void for_each_expert(const ExpertIds& experts, Index stack, const In<T>& x, Out<T> y, bool reads_y, Workspace* workspace, F f) {
  const Index n = x.rows();
  // room only where rows may have to be copied
  const Scratch<T> memory(workspace, experts.is_by_row() ? n * (x.cols() + y.cols()) : 0);
  for_each_expert_of(experts, stack, n, workspace, [&](Index e, const Index* mine, Index count) {
    const Index begin = mine ? mine[0] : 0;
    if (are_neighbours(mine, count)) return f(e, rows_of(x, begin, count), rows_of(y, begin, count));
    Out<T> from = out<T>(memory.data(), count, x.cols()), to = out<T>(memory.data() + count * x.cols(), count, y.cols());
    gather_rows(mine, count, x, from);
    if (reads_y) gather_rows(mine, count, in<T>(y), to);
    f(e, in<T>(from), to);
    for (Index i = 0; i < count; ++i) copy_rows(in<T>(rows_of(to, i, 1)), rows_of(y, mine[i], 1));
  });
}
}  // namespace detail

}  // namespace graft
