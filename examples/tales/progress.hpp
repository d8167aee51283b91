#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <mutex>
#include <string>

#include "terminal.hpp"

namespace tales {

/// How far a piece of work is: a bar on a terminal, elsewhere a plain line at its end and, if it takes long,
/// now and then before. For any number of threads.
class Progress {
 public:
  using Clock = std::chrono::steady_clock;

  Progress(std::FILE* stream, std::string label, std::size_t windows, std::size_t tokens_per_window,
           Clock::duration between_lines = std::chrono::seconds(10))
      : stream_(stream),
        terminal_(Terminal::of(stream)),
        label_(std::move(label)),
        total_(windows),
        tokens_(tokens_per_window),
        between_(terminal_.interactive ? std::chrono::milliseconds(50) : between_lines) {
    next_ = start_ + (terminal_.interactive ? Clock::duration::zero() : between_);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress() {
    if (drawn_ > 0) std::fprintf(stream_, "\r%*s\r", int(drawn_), "");
    if (done_ == total_ && !terminal_.interactive)
      std::fprintf(stream_, "evaluated %s: %zu windows in %.1f s, %.0f tokens/s\n", label_.c_str(), done_,
                   seconds(), rate());
    std::fflush(stream_);
  }

  void advance(std::size_t windows) {
    const std::lock_guard hold(lock_);
    done_ += windows;
    const auto now = Clock::now();
    const bool is_last = done_ == total_;
    if (terminal_.interactive ? now < next_ && !is_last : now < next_ || is_last) return;
    next_ = now + between_;
    if (terminal_.interactive)
      draw();
    else
      std::fprintf(stream_, "evaluating %s: %s\n", label_.c_str(), numbers().c_str());
    std::fflush(stream_);
  }

 private:
  [[nodiscard]] double seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }
  [[nodiscard]] double rate() const { return double(done_ * tokens_) / std::max(seconds(), 1e-9); }

  [[nodiscard]] std::string numbers() const {
    const double left = double((total_ - done_) * tokens_) / std::max(rate(), 1e-9);
    char text[128];
    std::snprintf(text, sizeof text, "%4zu/%zu  %.1fk tok/s  eta %.0f:%02d", done_, total_, rate() / 1e3,
                  std::floor(left / 60), int(std::fmod(left, 60)));
    return text;
  }

  // A line that filled the last column, or went on behind it, could not be written again.
  void draw() {
    const std::string numbers = this->numbers();
    const std::size_t room = terminal_.columns > 4 ? terminal_.columns - 4 : 0;
    const std::size_t label_width = std::min<std::size_t>(16, room);
    const std::size_t taken = label_width + 2 + numbers.size();
    const std::size_t width = room > taken ? std::min<std::size_t>(room - taken, 24) : 0;
    const std::size_t filled = total_ ? done_ * width / total_ : width;
    std::string bar;
    for (std::size_t i = 0; i < width; ++i)
      bar += i < filled ? (terminal_.utf8 ? "█" : "#") : (terminal_.utf8 ? "░" : ".");
    const std::size_t room_for_numbers = room > label_width + 2 ? room - label_width - 2 : 0;
    const std::string shown = numbers.substr(0, std::min(numbers.size(), room_for_numbers));
    const std::size_t line = 2 + label_width + 1 + width + 1 + shown.size();
    std::fprintf(stream_, "\r  %-*.*s %s %s%*s", int(label_width), int(label_width), label_.c_str(),
                 terminal_.good(bar).c_str(), shown.c_str(), int(drawn_ > line ? drawn_ - line : 0), "");
    drawn_ = std::max(drawn_, line);
  }

  std::FILE* stream_;
  Terminal terminal_;
  std::string label_;
  std::size_t total_, tokens_, done_ = 0, drawn_ = 0;
  Clock::duration between_;
  Clock::time_point start_ = Clock::now(), next_;
  std::mutex lock_;
};

}  // namespace tales
