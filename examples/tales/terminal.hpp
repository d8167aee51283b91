#pragma once

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace tales {

/// What the reader of a stream can show.
struct Terminal {
  bool interactive = false;  ///< a line can be written again
  bool colour = false;       ///< and NO_COLOR does not forbid it
  bool utf8 = false;
  std::size_t columns = 80;

  static Terminal of(std::FILE* stream) {
    const auto variable = [](const char* name) {
      const char* value = std::getenv(name);
      return std::string_view(value ? value : "");
    };
    Terminal terminal;
    terminal.interactive = isatty(fileno(stream)) && variable("TERM") != "dumb";
    terminal.colour = terminal.interactive && variable("NO_COLOR").empty();
    for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
      if (variable(name).empty()) continue;
      terminal.utf8 = variable(name).find("UTF-8") != std::string_view::npos ||
                      variable(name).find("utf8") != std::string_view::npos;
      break;
    }
    winsize size{};
    if (terminal.interactive && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
      terminal.columns = size.ws_col;
    return terminal;
  }

  [[nodiscard]] std::string bold(const std::string& text) const { return with("\x1b[1m", text); }
  [[nodiscard]] std::string good(const std::string& text) const { return with("\x1b[32m", text); }
  [[nodiscard]] std::string bad(const std::string& text) const { return with("\x1b[31m", text); }

 private:
  [[nodiscard]] std::string with(const char* sequence, const std::string& text) const {
    return colour ? sequence + text + "\x1b[0m" : text;
  }
};

}  // namespace tales
