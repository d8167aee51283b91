#pragma once

#include <string>
#include <vector>

namespace tales {

/// How many of `what` there are, and how many of them are used.
struct Share {
  std::string what;
  std::size_t used, all;
};

/// "left out: 248 of 256 windows of Austen, …", or nothing where everything is used.
inline std::string left_out(const std::vector<Share>& shares) {
  std::string text;
  for (const Share& share : shares)
    if (share.used < share.all)
      text += (text.empty() ? "left out: " : ", ") + std::to_string(share.all - share.used) + " of " +
              std::to_string(share.all) + " " + share.what;
  return text;
}

}  // namespace tales
