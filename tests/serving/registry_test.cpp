#include <graft/serving/registry.hpp>

#include <doctest/doctest.h>

#include "io/temporary_directory.hpp"
#include "support/expert_model.hpp"
#include "support/results.hpp"
#include "support/trained.hpp"

using graft::LoraConfig;
using graft::Matrix;
using graft::PeftConfig;
using graft::ServeCode;
using results::same_bits;

namespace {

struct Net {
  graft::Adaptable<graft::Embedding<>> embed{11, 7};
  graft::Adaptable<graft::Linear<>> p{7, 13}, q{13, 5}, head{5, 3};
  graft::Linear<> plain{3, 3};
  auto operator()(const auto& ids) const { return plain(head(q(p(embed(ids))))); }
  GRAFT_MODULE(embed, p, q, head, plain)
};
Net base() {
  Net net;
  graft::initialise(net, 3);
  return net;
}
const std::vector<int> ids{1, 4, 10, 0};

const std::vector<PeftConfig> configs{
    LoraConfig{.r = 3, .lora_alpha = 7, .target_modules = {"embed", "p", "q"}},
    LoraConfig{.r = 5, .bias = graft::Bias::lora_only, .target_modules = {"p", "q"}, .use_dora = true, .modules_to_save = {"head"}},
    graft::AdaLoraConfig{.init_r = 4, .target_modules = {"p", "head"}},
    graft::Ia3Config{.target_modules = {"p", "q"}, .feedforward_modules = {"q"}}};

/// The folder of an adapter, and what a model that it was loaded into computes.
struct Saved {
  std::filesystem::path folder;
  Matrix<float> alone;
};
Saved save(const PeftConfig& config, const std::filesystem::path& folder, double seed) {
  Net net = base();
  trained::inject(config, net, "default", seed);
  graft::save_pretrained(net, folder);
  Net fresh = base();
  graft::load_adapter(fresh, folder);
  return {folder, fresh(ids)};
}
struct Adapters {
  TemporaryDirectory folder;
  std::vector<Saved> saved;
  Adapters() {
    for (std::size_t i = 0; i < configs.size(); ++i) saved.push_back(save(configs[i], folder / std::to_string(i), 10 + double(i)));
  }
  const Saved& operator[](std::size_t i) const { return saved[i]; }
};

Matrix<float> run(const Net& net, const graft::AdapterSelection& selection) {
  graft::Batch batch;
  batch.add(graft::Index(ids.size()), selection);
  return net(batch.input(ids)).value();
}

template <class F>
ServeCode code_of(F f) {
  try {
    f();
  } catch (const graft::Error& error) {
    return graft::serve_code_of(error);
  }
  return ServeCode::ok;
}

}  // namespace

TEST_CASE("registry: what it serves is what a model with the adapter computes, and the model does not notice it") {
  const Adapters adapters;
  Net net = base();
  trained::inject(LoraConfig{.r = 2, .target_modules = {"q"}}, net, "own", 5);
  const std::string tree = graft::repr(net), values = results::bytes_of(graft::state_dict(net));
  const Matrix<float> active = net(ids);
  graft::Registry registry(net);
  for (std::size_t i = 0; i < configs.size(); ++i) {
    const auto added = registry.add("a" + std::to_string(i), adapters[i].folder);
    CHECK(added.generation == i + 1);
    CHECK(std::size_t(added.type) == configs[i].index());
    CHECK_FALSE(added.is_resident);
  }
  CHECK(registry.metrics().bytes_resident == 0);
  for (std::size_t i = 0; i < configs.size(); ++i) {
    REQUIRE_FALSE(results::same_values(adapters[i].alone, base()(ids)));
    CHECK(same_bits(run(net, registry.select("a" + std::to_string(i))), adapters[i].alone));
  }
  CHECK(same_bits(run(net, graft::base_only()), base()(ids)));
  CHECK(same_bits(net(ids), active));
  CHECK(graft::repr(net) == tree);
  CHECK(results::bytes_of(graft::state_dict(net)) == values);
  CHECK(registry.list().size() == 4);
  CHECK(registry.look_up("a1")->rank == 5);
  CHECK_FALSE(registry.look_up("b"));

  // a mixed batch: registered, injected, weighted and none, each row as alone
  const std::vector<graft::AdapterSelection> all{registry.select("a1"), graft::base_only(), graft::select(net, {{"own"}}),
                                                 registry.select({{"a0", 0.5}, {"a3", 2}}), registry.select("a2")};
  graft::Batch batch;
  std::vector<int> many;
  for (const auto& selection : all) {
    batch.add(graft::Index(ids.size()), selection);
    many.insert(many.end(), ids.begin(), ids.end());
  }
  const Matrix<float> y = net(batch.input(many)).value();
  for (std::size_t i = 0; i < all.size(); ++i)
    CHECK(same_bits(Matrix<float>(y.middleRows(graft::Index(4 * i), 4)), run(net, all[i])));
  Net two = base();
  graft::load_adapter(two, adapters[0].folder, "x");
  graft::load_adapter(two, adapters[3].folder, "y");
  CHECK(same_bits(run(net, all[3]), run(two, graft::select(two, {{"x", 0.5}, {"y", 2}}))));
}

TEST_CASE("registry: from memory, kept or copied, and given back") {
  const Adapters adapters;
  const std::string file = read_text(adapters[0].folder / "adapter_model.safetensors");
  std::string config = read_text(adapters[0].folder / "adapter_config.json");
  Net net = base();
  graft::Registry registry(net);
  const auto bytes = std::make_shared<std::vector<std::byte>>(file.size());
  std::memcpy(bytes->data(), file.data(), file.size());
  {
    std::vector<std::byte> passing = *bytes;
    registry.add("copied", graft::AdapterBuffer{passing, config});
    std::fill(passing.begin(), passing.end(), std::byte{});
  }
  registry.add("kept", {.weights = *bytes, .config = config, .owner = bytes});
  config.clear();
  for (const char* name : {"copied", "kept", "copied"}) {
    CHECK(same_bits(run(net, registry.select(name)), adapters[0].alone));
    CHECK(registry.evict(name));
    CHECK_FALSE(registry.evict(name));
  }
  CHECK(registry.metrics().bytes_buffered == 2 * file.size());
  registry.remove("copied");
  registry.remove("kept");
  CHECK(registry.metrics().bytes_buffered == 0);
  CHECK(registry.metrics().bytes_alive == 0);
}

TEST_CASE("registry: the least recently used lose their memory and get it back") {
  const Adapters adapters;
  Net net = base();
  graft::Registry registry(net);
  std::size_t bytes = 0;
  for (int i = 0; i < 4; ++i) bytes = registry.add("a" + std::to_string(i), adapters[0].folder).bytes;
  CHECK(bytes == 4 * 3 * (11 + 7 + 7 + 13 + 13 + 5));
  registry.set_byte_budget(2 * bytes + 1);
  const auto resident = [&] {
    std::string names;
    for (const auto& one : registry.list())
      if (one.is_resident) names += one.name;
    return names;
  };
  (void)registry.select("a0");
  (void)registry.select("a1");
  CHECK(resident() == "a0a1");
  (void)registry.select("a0");
  (void)registry.select("a2");
  CHECK(resident() == "a0a2");
  CHECK(same_bits(run(net, registry.select("a1")), adapters[0].alone));
  CHECK(resident() == "a1a2");
  graft::ServeMetrics metrics = registry.metrics();
  CHECK(metrics.hits == 1);
  CHECK(metrics.misses == 4);
  CHECK(metrics.materialisations == 4);
  CHECK(metrics.evictions == 2);
  CHECK(metrics.adapters == 4);
  CHECK(metrics.resident == 2);
  CHECK(metrics.bytes_resident == 2 * bytes);
  CHECK(metrics.bytes_alive == 2 * bytes);

  // what is in flight stays whole, and is found again instead of being read again
  const auto held = registry.select("a1");
  registry.set_byte_budget(bytes);
  (void)registry.select("a3");
  CHECK(resident() == "a3");
  CHECK(registry.metrics().bytes_alive == 2 * bytes);
  CHECK(same_bits(run(net, held), adapters[0].alone));
  const auto again = registry.select("a1");
  CHECK(again.list()[0].generation == held.list()[0].generation);
  CHECK(registry.metrics().materialisations == 5);
  CHECK(resident() == "a1");
}

TEST_CASE("registry: replaced only by who knows what is there, and removed under requests") {
  const Adapters adapters;
  Net net = base();
  graft::Registry registry(net);
  const auto first = registry.add("a", adapters[0].folder);
  const auto in_flight = registry.select("a");
  const auto second = registry.replace("a", first.generation, adapters[3].folder);
  CHECK(second.generation > first.generation);
  CHECK(second.is_resident);  // as it was
  CHECK(code_of([&] { registry.replace("a", first.generation, adapters[2].folder); }) == ServeCode::generation_conflict);
  CHECK(code_of([&] { registry.remove("a", first.generation); }) == ServeCode::generation_conflict);
  CHECK(same_bits(run(net, registry.select("a")), adapters[3].alone));
  CHECK(same_bits(run(net, in_flight), adapters[0].alone));
  registry.remove("a", second.generation);
  CHECK(code_of([&] { (void)registry.select("a"); }) == ServeCode::unknown_adapter);
  CHECK(same_bits(run(net, in_flight), adapters[0].alone));
  CHECK(registry.add("a", adapters[1].folder).generation > second.generation);  // a name again, never a number
  CHECK(code_of([&] { registry.replace("a", second.generation, adapters[2].folder); }) == ServeCode::generation_conflict);
  const auto metrics = registry.metrics();
  CHECK(metrics.conflicts == 3);
  CHECK(metrics.replacements == 1);
  CHECK(metrics.removals == 1);
}

TEST_CASE("registry: limits and mistakes have codes, and leave no trace") {
  const Adapters adapters;
  Net net = base();
  graft::Registry registry(net, {.max_adapters = 2, .max_rank = 4, .max_adapter_bytes = 700});
  registry.add("a", adapters[0].folder);
  CHECK(code_of([&] { registry.add("a", adapters[0].folder); }) == ServeCode::name_taken);
  CHECK(code_of([&] { registry.add("", adapters[0].folder); }) == ServeCode::invalid_name);
  CHECK(code_of([&] { registry.add("__base__", adapters[0].folder); }) == ServeCode::invalid_name);
  CHECK(code_of([&] { registry.add("b", adapters[1].folder); }) == ServeCode::rank_too_large);
  CHECK(code_of([&] { registry.add("b", adapters.folder / "none"); }) == ServeCode::unreadable);
  const auto larger = save(LoraConfig{.r = 4, .target_modules = {"embed", "p", "q"}}, adapters.folder / "larger", 1);
  CHECK(code_of([&] { registry.add("b", larger.folder); }) == ServeCode::adapter_too_large);  // 896 bytes
  const auto all = save(LoraConfig{.r = 1, .bias = graft::Bias::all, .target_modules = {"p"}}, adapters.folder / "all", 1);
  CHECK(code_of([&] { registry.add("b", all.folder); }) == ServeCode::unsupported);
  std::filesystem::copy(adapters[3].folder, adapters.folder / "mixed");
  std::filesystem::remove(adapters.folder / "mixed" / "adapter_model.safetensors");
  std::filesystem::copy(adapters[0].folder / "adapter_model.safetensors", adapters.folder / "mixed");
  CHECK(code_of([&] { registry.add("b", adapters.folder / "mixed"); }) == ServeCode::wrong_model);
  write_text(adapters.folder / "mixed" / "adapter_config.json", "{");
  CHECK(code_of([&] { registry.add("b", adapters.folder / "mixed"); }) == ServeCode::unreadable);
  const std::string config = read_text(adapters[0].folder / "adapter_config.json");
  CHECK(code_of([&] { registry.add("b", graft::AdapterBuffer{{}, config}); }) == ServeCode::unreadable);
  CHECK(code_of([&] { registry.add("b", graft::AdapterBuffer{{}, "{\"peft_type\": \"VERA\"}"}); }) == ServeCode::invalid_config);
  CHECK(code_of([&] { (void)registry.select({{"a"}, {"b"}}); }) == ServeCode::unknown_adapter);
  CHECK(registry.list().size() == 1);
  registry.add("b", adapters[3].folder);
  CHECK(code_of([&] { registry.add("c", adapters[3].folder); }) == ServeCode::too_many_adapters);
  CHECK(code_of([&] { registry.replace("b", 2, adapters[1].folder); }) == ServeCode::rank_too_large);
  CHECK(registry.look_up("b")->generation == 2);
  try {
    registry.add("d", adapters[3].folder);
  } catch (const graft::ServeError& error) {
    CHECK(graft::to_string(error.serve_code) == "too_many_adapters");
    CHECK(error.fix.find("max_adapters") != std::string::npos);
  }
}

TEST_CASE("registry: a selection is for its model, and follows disable_adapter") {
  const Adapters adapters;
  Net net = base();
  graft::Registry registry(net);
  registry.add("a", adapters[0].folder);
  const auto selection = registry.select("a");
  {
    const auto off = graft::disable_adapter(net);
    CHECK(same_bits(run(net, selection), base()(ids)));
  }
  CHECK(same_bits(run(net, selection), adapters[0].alone));
  const Net copy = net;
  CHECK_THROWS_AS(run(copy, selection), graft::AdapterError);
  // verbs on the model go on beside the registry
  graft::load_adapter(net, adapters[3].folder, "own");
  CHECK(same_bits(net(ids), adapters[3].alone));
  CHECK(same_bits(run(net, selection), adapters[0].alone));
  graft::merge_adapter(net);
  CHECK_THROWS_AS(run(net, selection), graft::MergeError);
  graft::unmerge_adapter(net);
  graft::delete_adapter(net, "own");
  CHECK(same_bits(run(net, registry.select("a")), adapters[0].alone));
}

TEST_CASE("adapters of parameters are served as well, rows with experts of their own") {
  const TemporaryDirectory folder;
  const Matrix<float> x = awkward::rows<float>(10, 7);
  experts::Net<float> net;
  const Matrix<float> base = net(x);
  std::vector<Matrix<float>> alone;
  for (const int r : {2, 3}) {
    experts::Net<float> trained;
    (void)graft::inject_adapter_in_model(experts::config(r), trained);
    experts::train(trained, "default", r);
    graft::save_pretrained(trained, folder / std::to_string(r));
    alone.push_back(trained(x));
    REQUIRE_FALSE(results::same_values(alone.back(), base));
  }
  graft::Registry registry(net);
  registry.add("two", folder / "2");
  registry.add("three", folder / "3");
  graft::Batch batch;
  batch.add(3, registry.select("three")).add(2).add(5, registry.select("two"));
  Matrix<float> expected = base;
  expected.topRows(3) = alone[1].topRows(3);
  expected.bottomRows(5) = alone[0].bottomRows(5);
  CHECK(same_bits(net(batch.input(x)), expected));
}
