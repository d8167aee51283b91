#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "../tensor/gradients.hpp"
#include "../tensor/rows.hpp"
#include "arena.hpp"

namespace graft {

template <class T>
class Var;
class RecordedTokens;
class Loss;
class Tape;

namespace detail {
/// A recorded value without its scalar: what a tape gives back.
struct AnyRecordedValue {
  AnyRecordedValue* previous = nullptr;  ///< of the same tape
  std::byte* grad = nullptr;             ///< of the way back that is under way; null until something is added to it
  std::byte* kept = nullptr;             ///< the sum over the ways back that are done, where somebody may ask for it
  std::size_t bytes = 0;
  bool needs_grad = false;
  bool keeps_grad = false;
};
/// rows of `row_shape`, each of them contiguous.
template <class T>
struct RecordedValue : AnyRecordedValue {
  Tape* tape = nullptr;
  const Batch* batch = nullptr;  ///< null: one sequence, the active adapters
  T* value = nullptr;
  Index rows = 0;
  Shape row_shape{};

  [[nodiscard]] In<T> in() const { return graft::in<T>(value, rows, row_shape.size()); }
  [[nodiscard]] Out<T> out() { return graft::out<T>(value, rows, row_shape.size()); }
  [[nodiscard]] In<T> grad_in() const { return graft::in<T>(reinterpret_cast<const T*>(grad), rows, row_shape.size()); }
  [[nodiscard]] Out<T> grad_out() { return graft::out<T>(reinterpret_cast<T*>(grad), rows, row_shape.size()); }
};
/// One op of a pass, to be gone back through.
struct RecordedStep {
  virtual ~RecordedStep() = default;
  /// Takes the gradient of its result, if there is one, to its inputs and parameters.
  virtual void backward(Tape&) = 0;
};
}  // namespace detail

/// What a tape does beside recording.
struct TapeOptions {
  std::uint64_t seed = 0;  ///< of the dropout masks, with the number of passes recorded before
  bool dropout = true;     ///< whether `lora_dropout` acts; false: gradients of the model as it infers
};

/// Records a forward, and goes back through it.
///
/// A model is called with what `input()` answers, and is not changed by it: values, gradients and the place in the sequence
/// of dropout masks are the tape's. What comes out is a `Var`, from which a loss is made. Until `backward()` is done the
/// batches and the model stay as they are: nothing is injected, merged or moved.
///
/// A tape is for one thread and is used again: `clear()` keeps its memory, and a pass like the one before allocates nothing.
class Tape {
 public:
  explicit Tape(const TapeOptions& options = {}) : options_(options) {}
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;
  ~Tape() { forget(); }

  /// Ids for an embedding; copied.
  [[nodiscard]] RecordedTokens input(const Tokens& tokens);
  /// Ids of one sequence, for the active adapters; copied.
  [[nodiscard]] RecordedTokens input(const IdsLike auto& ids);
  /// Rows, or a matrix or tensor (one sequence, the active adapters); copied. With `requires_grad` the gradient by them
  /// can be asked for afterwards.
  template <class X>
    requires(RowsLike<X> || ((MatrixLike<X> || TensorLike<X>) && !IdsLike<X>))
  [[nodiscard]] auto input(const X& x, bool requires_grad = false);

  /// Adds the gradients of factor · loss. @throws TrainingError where the loss depends on nothing that wants gradients.
  void backward(const Loss& loss, double factor = 1);
  /// The same for any value, given the gradient by it, of its sizes.
  template <class T>
  void backward(const Var<T>& y, const std::type_identity_t<MatrixRef<T>>& dy);

  /// Of parameters: what all backward() have added since its last clear().
  [[nodiscard]] Gradients& gradients() { return gradients_; }
  [[nodiscard]] const Gradients& gradients() const { return gradients_; }

  /// Forgets the pass and keeps the memory and the gradients of parameters. Dropout masks of the next pass are others.
  void clear() {
    forget();
    ++pass_;
  }
  /// How many ops of the pass are to be gone back through.
  [[nodiscard]] std::size_t size() const { return steps_.size(); }
  /// The bytes that values, gradients and scratch of passes have taken.
  [[nodiscard]] std::size_t reserved() const { return arena_.reserved() + workspace_.reserved(); }

  [[nodiscard]] const TapeOptions& options() const { return options_; }
  /// How many passes were cleared.
  [[nodiscard]] std::uint64_t pass() const { return pass_; }
  /// To go on where another run ended: with the same seed, the masks of the passes that follow are its own.
  void set_pass(std::uint64_t pass) { pass_ = pass; }

  // for what records

  /// Scratch of passes without a batch, and memory of gradients.
  [[nodiscard]] Workspace& workspace() { return workspace_; }
  /// `count` elements that live as long as the pass.
  template <class T>
  [[nodiscard]] T* take(Index count) {
    return reinterpret_cast<T*>(arena_.take(std::size_t(count) * sizeof(T)));
  }
  /// A value whose elements are not set yet.
  template <class T>
  [[nodiscard]] detail::RecordedValue<T>& make_value(const Batch* batch, Index rows, const Shape& row_shape, bool needs_grad) {
    using Value = detail::RecordedValue<T>;
    if (batch && rows != batch->rows()) detail::row_mismatch("graft::Var", rows, batch->rows());
    Value& made = *new (arena_.take(sizeof(Value))) Value;
    made.previous = values_;
    made.bytes = std::size_t(rows * row_shape.size()) * sizeof(T);
    made.needs_grad = needs_grad;
    made.tape = this;
    made.batch = batch;
    made.value = take<T>(rows * row_shape.size());
    made.rows = rows;
    made.row_shape = row_shape;
    values_ = &made;
    return made;
  }
  template <class Step, class... Arguments>
  void record(Arguments&&... arguments) {
    steps_.push_back(new (arena_.take(sizeof(Step))) Step(std::forward<Arguments>(arguments)...));
  }
  /// The gradient by a value, to be added to; of what needs none without memory.
  template <class T>
  [[nodiscard]] Out<T> grad_of(detail::RecordedValue<T>& value) {
    if (!value.needs_grad) return out<T>(nullptr, 0, 0);
    if (!value.grad) {
      value.grad = workspace_.take(value.bytes);
      if (value.bytes) std::memset(value.grad, 0, value.bytes);
    }
    return value.grad_out();
  }
  /// To be called by a step that has used the gradient of its result up.
  template <class T>
  void release(detail::RecordedValue<T>& value) {
    if (!value.grad) return;
    if (value.keeps_grad && value.kept) graft::out<T>(reinterpret_cast<T*>(value.kept), value.rows, value.row_shape.size()) += value.grad_in();
    else if (value.keeps_grad) value.kept = std::exchange(value.grad, nullptr);
    give_back(value.grad, value.bytes);
  }

 private:
  void give_back(std::byte*& memory, std::size_t bytes) {
    if (memory) workspace_.give(std::exchange(memory, nullptr), bytes);
  }
  void forget() {
    for (std::size_t i = steps_.size(); i-- > 0;) steps_[i]->~RecordedStep();
    steps_.clear();
    for (; values_; values_ = values_->previous) {
      give_back(values_->grad, values_->bytes);
      give_back(values_->kept, values_->bytes);
    }
    arena_.reset();
  }
  void go_back() {
    for (std::size_t i = steps_.size(); i-- > 0;) steps_[i]->backward(*this);
  }

  TapeOptions options_;
  std::uint64_t pass_ = 0;
  Gradients gradients_;
  Workspace workspace_;
  detail::Arena arena_;
  std::vector<detail::RecordedStep*> steps_;
  detail::AnyRecordedValue* values_ = nullptr;  // the latest; each knows the one before
};

}  // namespace graft
