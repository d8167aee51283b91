#pragma once

#include <memory>
#include <utility>

namespace graft::detail {

/// A new T as a pointer to its base. std::make_unique<T> makes the same by way of a unique_ptr<T>, which a program compiles
/// anew, some forty functions, for every T.
template <class Base, class T, class... Args>
[[nodiscard]] std::unique_ptr<Base> make_unique_as(Args&&... args) {
  return std::unique_ptr<Base>(new T(std::forward<Args>(args)...));
}

}  // namespace graft::detail
