#pragma once

#if !defined(GRAFT_INSTANTIATE) && !defined(GRAFT_EXTERN_TEMPLATES)
#define GRAFT_EXTERN_TEMPLATES
#endif
#include <graft/core/compile_once.hpp>

#include <string_view>

namespace compile_once {

template <class T>
T doubled(T value);

template <class T>
class Tripled {
 public:
  explicit Tripled(T value) : value_(value) {}
  T value() const;

 private:
  T value_;
};

#ifdef GRAFT_INSTANTIATE
template <class T>
T doubled(T value) {
  return value * 2;
}
template <class T>
T Tripled<T>::value() const {
  return value_ * 3;
}
#endif
GRAFT_SHARED_FUNCTION(doubled<int>)
GRAFT_SHARED_CLASS(Tripled<double>)

}  // namespace compile_once
