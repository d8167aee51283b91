#include "worker.hpp"

#include <cerrno>
#include <csignal>
#include <cstring>
#include <stdexcept>

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

namespace paired {
namespace {

constexpr int longest_answer_ms = 600'000;

}  // namespace

Worker::Worker(const std::vector<std::string>& command) {
  std::signal(SIGPIPE, SIG_IGN);
  int down[2], up[2];
  // closed on exec: a worker that held the ends of an earlier one would keep it from ending
  if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
  process_ = fork();
  if (process_ == 0) {
    dup2(down[0], STDIN_FILENO);
    dup2(up[1], STDOUT_FILENO);
    std::vector<char*> arguments;
    for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(down[0]);
  close(up[1]);
  to_ = down[1];
  from_ = up[0];
  version_ = answer().at("version").get<std::string>();
}

Worker::~Worker() {
  close(to_);  // a worker ends with its input
  close(from_);
  if (process_ > 0) waitpid(process_, nullptr, 0);
}

nlohmann::json Worker::ask(const nlohmann::json& request) {
  const std::string line = request.dump() + "\n";
  for (std::size_t done = 0; done < line.size();) {
    const ssize_t count = write(to_, line.data() + done, line.size() - done);
    if (count <= 0) throw std::runtime_error("the worker has ended");
    done += std::size_t(count);
  }
  return answer();
}

nlohmann::json Worker::answer() {
  std::size_t end;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    pollfd wait{from_, POLLIN, 0};
    char chunk[4096];
    const int ready = poll(&wait, 1, longest_answer_ms);
    if (ready < 0 && errno == EINTR) continue;
    const ssize_t count = ready > 0 ? read(from_, chunk, sizeof chunk) : 0;
    if (count <= 0) throw std::runtime_error(ready ? "it ended" : "it did not answer");
    buffer_.append(chunk, std::size_t(count));
  }
  const auto reply = nlohmann::json::parse(buffer_.substr(0, end), nullptr, false);
  buffer_.erase(0, end + 1);
  if (!reply.is_object()) throw std::runtime_error("it answered something else");
  if (reply.contains("error")) throw std::runtime_error(reply["error"].get<std::string>());
  return reply;
}

WorkerJob::WorkerJob(std::shared_ptr<Worker> worker, const nlohmann::json& description)
    : worker_(std::move(worker)), id_(worker_->ask({{"prepare", description}}).at("id").get<int>()) {}

WorkerJob::~WorkerJob() {
  try {
    worker_->ask({{"release", id_}});
  } catch (const std::exception&) {  // it has ended: nothing is left to release
  }
}

double WorkerJob::seconds(long calls) const {
  return worker_->ask({{"time", id_}, {"calls", calls}}).at("seconds").get<double>();
}

}  // namespace paired
