#include "graft/io/config_fields.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <string>

#include "temporary_directory.hpp"

using namespace graft;

namespace {
/// Every field that graft writes, and how often a field is listed.
template <class Config>
std::multiset<std::string> listed_fields() {
  std::multiset<std::string> names{"peft_type", "peft_version"};
  Config config;
  detail::ConfigFields<Config>::members(config, [&](const char* name, auto&&) { names.insert(name); });
  for (const auto& group : detail::ConfigFields<Config>::others)
    for (const auto& field : group) names.emplace(field.name);
  return names;
}
std::multiset<std::string> fields_of_file(const char* directory) {
  const auto path = std::filesystem::path(GRAFT_TEST_DATA) / "io" / directory / "adapter_config.json";
  std::multiset<std::string> names;
  const Json object = parse_json(read_text(path), path.string());
  for (const auto& [name, value] : object.items()) names.insert(name);
  return names;
}
}  // namespace

TEST_CASE("each config lists the fields that PEFT's file has, each once") {
  CHECK(listed_fields<LoraConfig>() == fields_of_file("lora"));
  CHECK(listed_fields<AdaLoraConfig>() == fields_of_file("adalora"));
  CHECK(listed_fields<Ia3Config>() == fields_of_file("ia3"));
}

TEST_CASE("fields without a member are found by the method that has them") {
  REQUIRE(detail::find_other_field<LoraConfig>("loftq_config"));
  CHECK(detail::find_other_field<LoraConfig>("loftq_config")->default_json == "{}");
  CHECK_FALSE(detail::find_other_field<LoraConfig>("r"));
  CHECK(detail::find_other_field<AdaLoraConfig>("r"));
  CHECK_FALSE(detail::find_other_field<Ia3Config>("loftq_config"));
  CHECK(detail::find_other_field<Ia3Config>("task_type"));
}
