#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "harness.hpp"

namespace paired {

/// A peer in a process of its own that answers requests, one JSON object a line: a Python library. While ours is
/// measured it waits for its next request, so rounds stay pairs.
class Worker {
 public:
  /// @throws std::runtime_error, with what the process said, if it does not start.
  explicit Worker(const std::vector<std::string>& command);
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  /// @throws std::runtime_error with the worker's own words if it cannot do that.
  nlohmann::json ask(const nlohmann::json& request);
  [[nodiscard]] const std::string& version() const { return version_; }

 private:
  nlohmann::json answer();

  int process_ = -1, to_ = -1, from_ = -1;
  std::string buffer_, version_;
};

/// Something that a worker has prepared; released with it.
class WorkerJob {
 public:
  /// @throws std::runtime_error if the worker cannot do it.
  WorkerJob(std::shared_ptr<Worker> worker, const nlohmann::json& description);
  ~WorkerJob();
  WorkerJob(const WorkerJob&) = delete;
  WorkerJob& operator=(const WorkerJob&) = delete;
  [[nodiscard]] double seconds(long calls) const;

 private:
  std::shared_ptr<Worker> worker_;
  int id_;
};

}  // namespace paired
