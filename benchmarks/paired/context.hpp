#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "harness.hpp"
#include "machine.hpp"
#include "memory.hpp"
#include "peer.hpp"
#include "report.hpp"
#include "worker.hpp"

namespace paired {

struct Options {
  bool quick = false;
  int threads = 1;
  std::string torch_python, extras_python;  ///< interpreters that have torch + peft, and the optional packages
  std::filesystem::path peers;              ///< the folder of the shared objects
  std::filesystem::path smollm;             ///< a SmolLM2-135M in Hugging Face's format; may be empty
  bool smollm_is_random = false;            ///< it has its shape and random values
};

/// A contender and the reason why there is none.
struct Contender {
  Seconds seconds{};
  std::string reason{};
};

/// What every area is given.
class Context {
 public:
  Context(Options asked, Machine& measured, Report& out) : options(std::move(asked)), machine(measured), report(out) {}

  const Options options;
  Machine& machine;
  Report& report;

  [[nodiscard]] Effort effort(double seconds = 0.5) const {
    return options.quick ? Effort{.seconds = 0.02, .sample = 2e-4, .least = 3, .most = 30}
                         : Effort{.seconds = seconds, .sample = 1e-3, .least = 9, .most = 300};
  }

  /// A call of a peer that is a shared object: "eigen", "eigen_plain", "openblas", "blis", "onednn", "graft_plain",
  /// "graft_native".
  Contender peer(const std::string& name, const PeerJob& job);
  /// A call of a peer in Python: "torch" (with PEFT), "onnxruntime", "openvino", "ggml".
  Contender worker(const std::string& name, const nlohmann::json& job);
  /// The name and version of each peer that was found, and why the others were not.
  [[nodiscard]] nlohmann::json peer_facts();

 private:
  struct Loaded {
    const PeerApi* api = nullptr;
    std::string reason;
  };
  const Loaded& load(const std::string& name);
  struct Started {
    std::shared_ptr<Worker> worker;
    std::string reason;
  };
  const Started& start(const std::string& name);

  std::map<std::string, Loaded> loaded_;
  std::map<std::string, Started> started_;
};

/// Measures contenders under their names, in turn.
class Race {
 public:
  Race& add(std::string name, Contender contender) {
    names_.push_back(std::move(name));
    contenders_.push_back(std::move(contender));
    return *this;
  }
  Race& add(std::string name, std::function<void()> call) { return add(std::move(name), Contender{here(std::move(call)), {}}); }

  /// The first call of each warms it up. A contender that cannot run after all leaves its reason.
  void run(const Effort& effort) {
    std::vector<Seconds> seconds;
    for (Contender& contender : contenders_) {
      if (contender.seconds) {
        try {
          contender.seconds(1);
        } catch (const std::exception& error) {
          contender = {{}, error.what()};
        }
      }
      seconds.push_back(contender.seconds);
    }
    series_ = in_turn(seconds, effort);
  }

  [[nodiscard]] const Series& operator[](const std::string& name) const { return series_.at(place(name)); }
  [[nodiscard]] const std::string& reason(const std::string& name) const { return contenders_.at(place(name)).reason; }
  [[nodiscard]] Beside beside(const std::string& name) const { return {name, (*this)[name], reason(name)}; }

 private:
  [[nodiscard]] std::size_t place(const std::string& name) const {
    for (std::size_t i = 0; i < names_.size(); ++i)
      if (names_[i] == name) return i;
    throw std::out_of_range(name);
  }

  std::vector<std::string> names_;
  std::vector<Contender> contenders_;
  std::vector<Series> series_;
};

/// A gate on a quotient of two contenders.
inline Gate ratio_gate(std::string goal, const Race& race, const std::string& over, const std::string& under, double target) {
  Gate gate{.goal = std::move(goal), .what = over + " / " + under, .target = target, .value = race[over] / race[under]};
  gate.reason = race[over].measured() ? race.reason(under) : race.reason(over);
  return gate;
}

/// "a7": the name of the seventh of something.
inline std::string numbered(std::string stem, int number) { return stem += std::to_string(number); }

inline const char* const not_quick = "left out by --quick";

// The areas, each in a file of its own under areas/.
void base_product(Context&);
void lora_overhead(Context&);
void many_adapters(Context&);
void merging(Context&);
void dora_norms(Context&);  // within that of merging
void narrow_weights(Context&);
void training_step(Context&);
void injection_and_load(Context&);
void sites(Context&);
void tales_tokens(Context&);
void tales_training(Context&);  // rows of the area that tales_tokens begins

}  // namespace paired
