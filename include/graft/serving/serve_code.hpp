#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "../core/error.hpp"

namespace graft {

/// Why a registry refused something. The numbers are fixed: a server may send them on.
enum class ServeCode {
  ok = 0,
  unknown_adapter = 1,
  name_taken = 2,
  invalid_name = 3,
  generation_conflict = 4,  ///< somebody else replaced or removed it meanwhile
  too_many_adapters = 5,
  rank_too_large = 6,
  adapter_too_large = 7,
  unsupported = 8,          ///< a right adapter, of a kind that cannot be served beside others
  invalid_config = 9,
  wrong_model = 10,         ///< its targets or its weights do not fit this model
  unreadable = 11,          ///< a file or buffer that cannot be read or believed
  model_is_merged = 12,
  internal = 13,
};

[[nodiscard]] constexpr std::string_view to_string(ServeCode code) {
  switch (code) {
    case ServeCode::ok: return "ok";
    case ServeCode::unknown_adapter: return "unknown_adapter";
    case ServeCode::name_taken: return "name_taken";
    case ServeCode::invalid_name: return "invalid_name";
    case ServeCode::generation_conflict: return "generation_conflict";
    case ServeCode::too_many_adapters: return "too_many_adapters";
    case ServeCode::rank_too_large: return "rank_too_large";
    case ServeCode::adapter_too_large: return "adapter_too_large";
    case ServeCode::unsupported: return "unsupported";
    case ServeCode::invalid_config: return "invalid_config";
    case ServeCode::wrong_model: return "wrong_model";
    case ServeCode::unreadable: return "unreadable";
    case ServeCode::model_is_merged: return "model_is_merged";
    case ServeCode::internal: break;
  }
  return "internal";
}

/// A registry's refusal.
struct ServeError : detail::ErrorOf<ErrorCode::serving> {
  ServeError(ServeCode code_of_it, std::string problem_text, std::string why_text, std::string fix_text)
      : ErrorOf(std::move(problem_text), std::move(why_text), std::move(fix_text)), serve_code(code_of_it) {}
  ServeCode serve_code;
};

/// The code of any error that a registry let through: of a file that cannot be read, of weights that do not fit.
[[nodiscard]] inline ServeCode serve_code_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::serving: return static_cast<const ServeError&>(error).serve_code;
    case ErrorCode::config: return ServeCode::invalid_config;
    case ErrorCode::file: return ServeCode::unreadable;
    case ErrorCode::merge: return ServeCode::model_is_merged;
    case ErrorCode::target:
    case ErrorCode::adapter:
    case ErrorCode::shape:
    case ErrorCode::state_dict: return ServeCode::wrong_model;
    case ErrorCode::meta:
    case ErrorCode::cache:
    case ErrorCode::training: break;
  }
  return ServeCode::internal;
}

namespace detail {
template <ServeCode Code>
struct ServeErrorOf : ServeError {
  ServeErrorOf(std::string problem_text, std::string why_text, std::string fix_text)
      : ServeError(Code, std::move(problem_text), std::move(why_text), std::move(fix_text)) {}
};
template <ServeCode Code>
[[noreturn]] inline void refuse(std::string problem, std::string why, std::string fix) {
  fail<ServeErrorOf<Code>>(std::move(problem), std::move(why), std::move(fix));
}
}  // namespace detail

}  // namespace graft
