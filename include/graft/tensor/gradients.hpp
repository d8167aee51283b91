#pragma once

#include <cmath>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#include "matrix.hpp"
#include "parameter.hpp"

namespace graft {

/// The gradients of a loss by parameters. They belong to the pass that makes them and not to the parameters, so that a
/// model is const in training too.
///
/// A parameter is known by its memory: tied ones have one gradient, and a parameter that gets other memory has none, unless an
/// optimiser that writes these gave it that. A gradient is a matrix like `Parameter::view()`, (first dimension, the rest), of
/// float or double, also that of a narrow parameter.
class Gradients {
 public:
  /// The gradient, zeros before anything is added to it. Valid as long as this.
  template <class T, class Storage>
  [[nodiscard]] Matrix<compute_scalar<T>>& of(const Parameter<T, Storage>& parameter) {
    return matrix_of<compute_scalar<T>>(parameter.untyped().data(), parameter.rows(), parameter.cols());
  }
  template <class T = float>
  [[nodiscard]] Matrix<T>& of(const ParameterView& parameter) {
    const Shape shape(parameter.shape());
    return matrix_of<T>(parameter.data(), shape.rows(), shape.cols());
  }
  /// Null while nothing was added to it.
  template <class T, class Storage>
  [[nodiscard]] const Matrix<compute_scalar<T>>* find(const Parameter<T, Storage>& parameter) const {
    return find_matrix<compute_scalar<T>>(parameter.untyped().data());
  }
  template <class T = float>
  [[nodiscard]] const Matrix<T>* find(const ParameterView& parameter) const {
    return find_matrix<T>(parameter.data());
  }

  /// For ops: the gradient of values that begin at `values` and are (rows, cols), to be added to.
  template <class T>
  [[nodiscard]] Out<T> at(const void* values, Index rows, Index cols) {
    return out(matrix_of<T>(values, rows, cols));
  }
  template <class T>
  [[nodiscard]] Out<T> at(const ParameterData& parameter) {
    return at<T>(parameter.data(), parameter.shape().rows(), parameter.shape().cols());
  }
  template <class T>
  [[nodiscard]] const Matrix<T>* find_at(const ParameterData& parameter) const {
    return find_matrix<T>(parameter.data());
  }

  /// A parameter's memory became other memory with the same values: its gradient is found by that from now on.
  void follow(const void* before, const void* now) {
    const auto here = entries_.find(before);
    if (before == now || here == entries_.end()) return;
    if (const auto there = entries_.find(now); there != entries_.end()) {
      if (there->second->is_present) return;  // somebody's who says that this is his
      entries_.erase(there);
    }
    auto node = entries_.extract(here);
    node.key() = now;
    node.mapped()->memory = now;
    entries_.insert(std::move(node));
  }

  /// How many parameters have one.
  [[nodiscard]] std::size_t size() const { return present_.size(); }
  [[nodiscard]] bool empty() const { return present_.empty(); }
  /// Forgets all of them and keeps the memory: between two steps of an optimiser.
  void clear() {
    for (Entry* entry : present_) entry->is_present = false;
    present_.clear();
  }
  /// Adds factor times all of another pass's: of sequences that another thread went through.
  void add(const Gradients& other, double factor = 1) {
    for (const Entry* entry : other.present_)
      if (entry->is_double) matrix_of<double>(entry->memory, entry->doubles.rows(), entry->doubles.cols()) += factor * entry->doubles;
      else matrix_of<float>(entry->memory, entry->floats.rows(), entry->floats.cols()) += float(factor) * entry->floats;
  }
  /// The Euclidean norm of all of them together.
  [[nodiscard]] double norm() const {
    double sum = 0;
    for (const Entry* entry : present_)
      sum += entry->is_double ? entry->doubles.squaredNorm() : entry->floats.template cast<double>().squaredNorm();
    return std::sqrt(sum);
  }
  /// All of them times a factor.
  void scale(double factor) {
    for (Entry* entry : present_)
      if (entry->is_double) entry->doubles *= factor;
      else entry->floats *= float(factor);
  }

 private:
  struct Entry {
    const void* memory = nullptr;
    bool is_present = false, is_double = false;
    Matrix<float> floats;
    Matrix<double> doubles;

    template <class T>
    [[nodiscard]] auto& values() {
      static_assert(std::is_same_v<T, float> || std::is_same_v<T, double>, "graft: a gradient is of float or double");
      if constexpr (std::is_same_v<T, double>) return doubles;
      else return floats;
    }
  };

  template <class T>
  [[nodiscard]] Matrix<T>& matrix_of(const void* memory, Index rows, Index cols) {
    std::unique_ptr<Entry>& entry = entries_[memory];
    if (!entry) entry = std::make_unique<Entry>();
    entry->memory = memory;
    Matrix<T>& matrix = entry->template values<T>();
    if (!entry->is_present) {
      entry->is_present = true;
      entry->is_double = std::is_same_v<T, double>;
      matrix.setZero(rows, cols);
      present_.push_back(entry.get());
    } else if (entry->is_double != std::is_same_v<T, double> || matrix.rows() != rows || matrix.cols() != cols) {
      fail<TrainingError>("a gradient of " + to_string(Shape{rows, cols}) + " was asked for where one of other sizes or of another scalar stands",
                          "parameters on the same memory share a gradient, and these disagree about what they are",
                          "ask with the parameter itself, and with the scalar of the activations");
    }
    return matrix;
  }
  template <class T>
  [[nodiscard]] const Matrix<T>* find_matrix(const void* memory) const {
    const auto place = entries_.find(memory);
    if (place == entries_.end() || !place->second->is_present || place->second->is_double != std::is_same_v<T, double>) return nullptr;
    return &place->second->template values<T>();
  }

  std::unordered_map<const void*, std::unique_ptr<Entry>> entries_;  // what is not present is kept memory
  std::vector<Entry*> present_;                                      // in the order of their first use
};

}  // namespace graft
