#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <graft/graft.hpp>
#include <string>
#include <utility>
#include <vector>

/// What tests compare: bits of results and of state dicts, and values within graft's tolerance.
namespace results {

using graft::Index;

template <class T>
std::vector<T> values_of(const graft::Matrix<T>& y) {
  return {y.data(), y.data() + y.size()};
}
template <class T>
std::vector<T> values_of(const graft::Rows<T>& y) {
  return values_of(graft::Matrix<T>(y.value()));
}
template <class T, int N>
std::vector<T> values_of(const Eigen::Tensor<T, N, Eigen::RowMajor>& y) {
  return {y.data(), y.data() + y.size()};
}

/// The same numbers to the last bit: distinguishes -0 from 0, and NaN equals itself.
template <class Y, class Z>
bool same_bits(const Y& y, const Z& z) {
  const auto a = values_of(y), b = values_of(z);
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0);
}

/// max |y - z| <= tolerance * (1 + max |z|): 1e-5 in float, 1e-12 in double.
template <class T>
bool close(const std::vector<T>& y, const std::vector<T>& z,
           double tolerance = sizeof(T) == 8 ? 1e-12 : 1e-5) {
  double difference = 0, size = 0;
  if (y.size() != z.size()) return false;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!std::isfinite(double(y[i]))) return false;
    difference = std::max(difference, std::abs(double(y[i]) - double(z[i])));
    size = std::max(size, std::abs(double(z[i])));
  }
  return difference <= tolerance * (1 + size);
}
template <class Y, class Z>
bool same_values(const Y& y, const Z& z) {
  return close(values_of(y), values_of(z));
}

/// Keys, dtypes, shapes and bytes of a state dict.
inline std::string bytes_of(const graft::StateDict& state_dict) {
  std::string all;
  for (const auto& [key, view] : state_dict) {
    all += key + ' ' + std::string(graft::tag_of(view.dtype));
    for (const Index size : view.shape) all += ' ' + std::to_string(size);
    all += view.device() == graft::Device::meta ? " meta " : " cpu ";
    if (view.data) all.append(reinterpret_cast<const char*>(view.data), view.bytes());
    all += '\n';
  }
  return all;
}

/// Everything about a model that a failed verb must leave alone.
template <class M>
std::string everything(const M& model) {
  std::string all = bytes_of(graft::state_dict(model)) + bytes_of(graft::get_base_model_state_dict(model));
  all += "active:" + graft::join(graft::active_adapters(model), ",") + "\nall:";
  const graft::ModelSites sites = graft::sites_of(model);
  for (const auto& record : graft::detail::records_of(sites)) {
    all += record->name() + '#' + std::to_string(record->id) + '*' + std::to_string(record->strength());
    for (const graft::PlainBias& bias : record->plain_biases)
      all += bias.key + std::string(reinterpret_cast<const char*>(bias.values.data()), bias.values.bytes());
    all += record->plain_biases_in_place ? "in\n" : "out\n";
  }
  for (const auto& site : sites.sites) {
    const graft::SiteTable* table = site->table();
    all += site->path() + (table ? table->enabled ? " on" : " off" : " none");
    if (table) {
      for (const unsigned id : table->selected) all += " s" + std::to_string(id);
      for (const unsigned id : table->active) all += " a" + std::to_string(id);
      for (const unsigned id : table->merged) all += " m" + std::to_string(id);
      for (const graft::SiteEntry& entry : table->entries) {
        all += " e" + std::to_string(entry.id);
        if (!entry.state()) continue;
        for (const graft::AdapterParameter& parameter : entry.state()->parameters())
          all += parameter.data->requires_grad() ? 'g' : '-';
      }
    }
    all += '\n';
  }
  return all;
}

}  // namespace results
