#pragma once

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <utility>

#include "version.hpp"

namespace graft {

/// Which family an error belongs to: stable, for programs that switch on it.
enum class ErrorCode { config, target, adapter, meta, shape, cache, state_dict, file, merge, training, serving };

/// Every error of graft: what went wrong, why that is wrong, what to do about it.
struct Error : std::runtime_error {
  Error(ErrorCode error_code, std::string problem_text, std::string why_text, std::string fix_text)
      : std::runtime_error(text(problem_text, why_text, fix_text)),
        code(error_code),
        problem(std::move(problem_text)),
        why(std::move(why_text)),
        fix(std::move(fix_text)) {}

  ErrorCode code;
  std::string problem, why, fix;

 private:
  static std::string text(const std::string& problem, const std::string& why, const std::string& fix) {
    std::string all = "graft: " + problem;
    if (!why.empty()) all += "\n  why: " + why;
    if (!fix.empty()) all += "\n  fix: " + fix;
    return all;
  }
};

namespace detail {
template <ErrorCode Code>
struct ErrorOf : Error {
  ErrorOf(std::string problem_text, std::string why_text, std::string fix_text)
      : Error(Code, std::move(problem_text), std::move(why_text), std::move(fix_text)) {}
};
}  // namespace detail

/// A config with a field that contradicts itself or the model.
struct ConfigError : detail::ErrorOf<ErrorCode::config> { using ErrorOf::ErrorOf; };
/// A target, or a module to save, that the model does not offer.
struct TargetError : detail::ErrorOf<ErrorCode::target> { using ErrorOf::ErrorOf; };
/// An adapter name that is unknown, taken or not allowed.
struct AdapterError : detail::ErrorOf<ErrorCode::adapter> { using ErrorOf::ErrorOf; };
/// A parameter without memory (on the meta device) was used.
struct MetaError : detail::ErrorOf<ErrorCode::meta> { using ErrorOf::ErrorOf; };
/// Rows, features or shapes that do not fit.
struct ShapeError : detail::ErrorOf<ErrorCode::shape> { using ErrorOf::ErrorOf; };
/// A key-value cache that is full, shared or out of step.
struct CacheError : detail::ErrorOf<ErrorCode::cache> { using ErrorOf::ErrorOf; };
/// Missing, unexpected or mismatched keys.
struct StateDictError : detail::ErrorOf<ErrorCode::state_dict> { using ErrorOf::ErrorOf; };
/// A file or folder that cannot be read, written or believed.
struct FileError : detail::ErrorOf<ErrorCode::file> { using ErrorOf::ErrorOf; };
/// A change that would corrupt merged weights.
struct MergeError : detail::ErrorOf<ErrorCode::merge> { using ErrorOf::ErrorOf; };
/// A training step that cannot be made.
struct TrainingError : detail::ErrorOf<ErrorCode::training> { using ErrorOf::ErrorOf; };

/// Throws E(problem, why, fix); without exceptions prints the text and aborts.
template <class E>
[[noreturn]] inline void fail(std::string problem, std::string why, std::string fix) {
  E error(std::move(problem), std::move(why), std::move(fix));
#if defined(__cpp_exceptions)
  throw error;
#else
  std::fputs(error.what(), stderr);
  std::fputc('\n', stderr);
  std::abort();
#endif
}

}  // namespace graft
