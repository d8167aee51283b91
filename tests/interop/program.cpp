// Runs interop cases: program --from LIST, or program FOLDER… A list names one folder per line.
// Beside each case.json it leaves reply-f32/ and reply-f64/ (outputs.safetensors, gradients.safetensors, report.json, saved/) and, last, a file `done`.
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include <graft/io.hpp>

#include "case.hpp"

namespace {

template <class T>
void write(const std::map<std::string, interop::Reply::Output>& outputs, const std::filesystem::path& file) {
  graft::StateDict packed;
  std::vector<std::vector<T>> memory;
  for (const auto& [name, output] : outputs) {
    const std::vector<T>& values = memory.emplace_back(output.values.begin(), output.values.end());
    packed.insert(name, {graft::dtype_of<T>, output.shape, reinterpret_cast<const std::byte*>(values.data()), nullptr});
  }
  graft::safetensors::save_file(packed, file);
}
template <class T>
void write_tensors(const interop::Reply& reply, const std::filesystem::path& folder) {
  write<T>(reply.outputs, folder / "outputs.safetensors");
  write<T>(reply.gradients, folder / "gradients.safetensors");
}

void write(const interop::Reply& reply, const std::filesystem::path& folder, const std::string& error) {
  const nlohmann::json report{
      {"error", error}, {"trees", reply.trees}, {"matched", reply.matched}, {"keys", reply.keys}};
  if (reply.dtype == graft::Dtype::f64) write_tensors<double>(reply, folder);
  else write_tensors<float>(reply, folder);
  std::ofstream(folder / "report.json") << report;
}

void answer(const std::filesystem::path& folder) {
  interop::Case one = interop::read_case(folder, {});
  for (const graft::Dtype scalar : interop::scalars(one)) {
    one.reply_folder = folder / (scalar == graft::Dtype::f64 ? "reply-f64" : "reply-f32");
    std::filesystem::remove_all(one.reply_folder);
    std::filesystem::create_directories(one.reply_folder);
    interop::Reply reply;
    std::string error;
    try {
      reply = interop::run_case(one, scalar);
    } catch (const std::exception& problem) {
      error = problem.what();
    }
    write(reply, one.reply_folder, error);
  }
  std::ofstream(folder / "done") << "\n";
}

}  // namespace

int main(int count, char** words) {
  std::vector<std::string> folders(words + 1, words + count);
  if (folders.size() == 2 && folders[0] == "--from") {
    std::ifstream list(folders[1]);
    folders.clear();
    for (std::string line; std::getline(list, line);) folders.push_back(line);
  }
  if (folders.empty()) {
    std::cerr << "usage: interop --from LIST | FOLDER...\n";
    return 2;
  }
  for (const std::string& folder : folders) answer(folder);
  return 0;
}
