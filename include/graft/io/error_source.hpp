#pragma once

#include <string>
#include <utility>

#include "../core/error.hpp"

namespace graft::detail {

/// Throws an error of the same type as another, with a problem that begins with `before`.
[[noreturn]] inline void fail_again(const Error& error, const std::string& before) {
  const std::string problem = before + error.problem;
  switch (error.code) {
    case ErrorCode::config: fail<ConfigError>(problem, error.why, error.fix);
    case ErrorCode::target: fail<TargetError>(problem, error.why, error.fix);
    case ErrorCode::adapter: fail<AdapterError>(problem, error.why, error.fix);
    case ErrorCode::meta: fail<MetaError>(problem, error.why, error.fix);
    case ErrorCode::shape: fail<ShapeError>(problem, error.why, error.fix);
    case ErrorCode::cache: fail<CacheError>(problem, error.why, error.fix);
    case ErrorCode::state_dict: fail<StateDictError>(problem, error.why, error.fix);
    case ErrorCode::file: fail<FileError>(problem, error.why, error.fix);
    case ErrorCode::merge: fail<MergeError>(problem, error.why, error.fix);
    case ErrorCode::training:
    case ErrorCode::serving: break;  // nothing that reads a source throws it
  }
  fail<TrainingError>(problem, error.why, error.fix);
}

/// Runs `f`; what it refuses says where it came from: "'dir': missing keys …". Without exceptions it says as much
/// as `f` does.
template <class F>
decltype(auto) naming_source(const std::string& source, F&& f) {
#if defined(__cpp_exceptions)
  try {
    return std::forward<F>(f)();
  } catch (const Error& error) {
    fail_again(error, source + ": ");
  }
#else
  return std::forward<F>(f)();
#endif
}

}  // namespace graft::detail
