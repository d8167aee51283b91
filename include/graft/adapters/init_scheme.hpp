#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "config_types.hpp"

namespace graft {

/// What `init_lora_weights` asks for.
enum class InitScheme { identity, random, gaussian, pissa, iterated_pissa, olora, orthogonal, eva, unknown };

namespace detail {
/// Whether a text is "pissa_niter_" and a number of up to six digits.
[[nodiscard]] inline bool is_iterated_pissa(std::string_view scheme) {
  constexpr std::string_view prefix = "pissa_niter_";
  constexpr std::size_t most_digits = 6;
  return scheme.size() > prefix.size() && scheme.size() <= prefix.size() + most_digits &&
         scheme.starts_with(prefix) && std::all_of(scheme.begin() + prefix.size(), scheme.end(), [](char c) {
           return c >= '0' && c <= '9';
         });
}
[[nodiscard]] inline std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return text;
}
}  // namespace detail

/// PEFT's rule: case matters for all names but "gaussian" and "olora".
[[nodiscard]] inline InitScheme init_scheme(const InitLoraWeights& init) {
  if (init.is_bool()) return init.value() ? InitScheme::identity : InitScheme::random;
  const std::string& scheme = init.scheme();
  const std::string lower = detail::lower_case(scheme);
  if (lower == "gaussian") return InitScheme::gaussian;
  if (lower == "olora") return InitScheme::olora;
  if (scheme == "pissa") return InitScheme::pissa;
  if (scheme == "orthogonal") return InitScheme::orthogonal;
  if (scheme == "eva") return InitScheme::eva;
  return detail::is_iterated_pissa(scheme) ? InitScheme::iterated_pissa : InitScheme::unknown;
}

/// Whether PEFT takes the initial product out of the base weight, so that the adapter starts without effect.
[[nodiscard]] inline bool takes_from_base(InitScheme scheme) {
  return scheme == InitScheme::pissa || scheme == InitScheme::iterated_pissa || scheme == InitScheme::olora;
}

}  // namespace graft
