#include "graft/io/adapter_config.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "temporary_directory.hpp"

using namespace graft;

namespace {
const std::filesystem::path data = std::filesystem::path(GRAFT_TEST_DATA) / "io";

template <class Config>
Config parse(const std::string& fields, std::vector<std::string>* warnings = nullptr) {
  const std::string type(detail::ConfigFields<Config>::peft_type);
  return std::get<Config>(parse_config("{\"peft_type\": \"" + type + "\"" + fields + "}", warnings));
}
LoraConfig lora(const std::string& fields, std::vector<std::string>* warnings = nullptr) {
  return parse<LoraConfig>(fields, warnings);
}
template <class Config>
std::string complaint(const std::string& fields) {
  try {
    (void)parse<Config>(fields);
  } catch (const ConfigError& error) {
    return error.problem + ": " + error.why;
  }
  return "";
}
/// The lines of a field in a written config.
std::string field(const PeftConfig& config, const std::string& name) {
  const Json object = parse_json(config_text(config), "written");
  return python_json(object.at(name), {.indent = 0, .sort_keys = false});
}
}  // namespace

TEST_CASE("PEFT's files are read, and written byte for byte") {
  for (const char* name : {"lora", "adalora", "ia3"}) {
    CAPTURE(name);
    std::vector<std::string> warnings;
    const PeftConfig config = load_peft_config(data / name, &warnings);
    CHECK(config_text(config) == read_text(data / name / "adapter_config.json"));
    CHECK(warnings.empty());
  }
  const PeftConfig values = load_peft_config(data / "values");
  CHECK(config_text(values, false) == read_text(data / "values/adapter_config.json"));
}

TEST_CASE("every config among the test data is written again byte for byte") {
  int count = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(GRAFT_TEST_DATA)) {
    if (entry.path().filename() != "adapter_config.json") continue;
    CAPTURE(entry.path().string());
    const PeftConfig config = load_peft_config(entry.path().parent_path());
    const bool inference = std::visit([](const auto& one) { return one.inference_mode; }, config);
    CHECK(config_text(config, inference) == read_text(entry.path()));
    ++count;
  }
  CHECK(count > 100);
}

TEST_CASE("the values of PEFT's files arrive") {
  const auto plain = std::get<LoraConfig>(load_peft_config(data / "lora"));
  CHECK(plain.r == 2);
  CHECK(plain.bias == Bias::lora_only);
  CHECK(plain.target_modules == TargetModules{"lin0"});
  CHECK(plain.modules_to_save == std::vector<std::string>{"lin1"});
  CHECK(plain.inference_mode);
  CHECK(plain.init_lora_weights == InitLoraWeights(true));
  CHECK(plain.extra.size() == 1);
  REQUIRE(plain.extra.find("auto_mapping"));
  CHECK(*plain.extra.find("auto_mapping") == R"({"base_model_class": "MLP", "parent_library": "__main__"})");

  const auto pruned = std::get<AdaLoraConfig>(load_peft_config(data / "adalora"));
  CHECK(pruned.init_r == 2);
  CHECK(pruned.target_r == 1);
  CHECK(pruned.total_step == 9);
  CHECK(pruned.rank_pattern == RankPattern{{"lin0", {true, false}}, {"lin1", {false, false}}});

  const auto ia3 = std::get<Ia3Config>(load_peft_config(data / "ia3"));
  CHECK(ia3.target_modules == TargetModules{"lin0"});
  CHECK(ia3.feedforward_modules == TargetModules(std::vector<std::string>{}));

  const auto values = std::get<LoraConfig>(load_peft_config(data / "values"));
  CHECK(values.lora_alpha == 16);
  CHECK(values.lora_dropout == 1e-5);
  CHECK(values.target_modules == TargetModules{"é"});
  CHECK(values.layers_to_transform == std::vector<int>{1, 0});
  CHECK(values.layers_pattern == std::vector<std::string>{"h"});
  CHECK(values.rank_pattern == PatternMap<int>{{"a.b", 2}, {"q", 1}});
  CHECK(values.alpha_pattern == PatternMap<double>{{"q", 0.5}});
  CHECK(values.trainable_token_indices == TokenIndices{{"emb", {3, 1}}, {"😀", {}}});
  CHECK_FALSE(values.inference_mode);
}

TEST_CASE("a config made in code is written as PEFT writes it") {
  LoraConfig config{.r = 2, .bias = Bias::lora_only, .target_modules = {"lin0"}, .modules_to_save = {"lin1"}};
  config.extra = {{"auto_mapping", R"({"parent_library":"__main__","base_model_class":"MLP"})"}};
  CHECK(config_text(config) == read_text(data / "lora/adapter_config.json"));
  Ia3Config ia3{.target_modules = {"lin0"}};
  ia3.extra = config.extra;
  CHECK(config_text(ia3) == read_text(data / "ia3/adapter_config.json"));
  CHECK(field(LoraConfig{.target_modules = {"v_proj", "q_proj"}}, "target_modules") ==
        R"(["q_proj", "v_proj"])");
  CHECK(field(LoraConfig{}, "auto_mapping") == "null");
  CHECK(field(LoraConfig{.init_lora_weights = "eva"}, "eva_config") ==
        R"({"adjust_scaling_factors": true, "label_mask_value": -100, "rho": 2.0, "tau": 0.99, "use_label_mask": true, "whiten": false})");
  CHECK(field(LoraConfig{.init_lora_weights = "pissa"}, "eva_config") == "null");
  LoraConfig eva{.init_lora_weights = "eva"};
  eva.extra = {{"eva_config", R"({"rho": 1.5})"}};
  CHECK(field(eva, "eva_config") == R"({"rho": 1.5})");
  CHECK(field(LoraConfig{.lora_alpha = 16}, "lora_alpha") == "16");
  CHECK(field(LoraConfig{.lora_dropout = 0}, "lora_dropout") == "0.0");
  CHECK(field(AdaLoraConfig{}, "rank_pattern") == "null");
  CHECK(field(LoraConfig{.target_modules = all_linear}, "target_modules") == "\"all-linear\"");
  CHECK(field(LoraConfig{}, "inference_mode") == "true");
  CHECK(field(LoraConfig{}, "peft_version") == "\"0.21.2\"");
}

TEST_CASE("minimal files of other tools are read") {
  CHECK(lora("").r == 8);
  const LoraConfig config =
      lora(R"(, "target_modules": ["q"], "r": 4, "lora_alpha": 32.5, "lora_dropout": 0)");
  CHECK(config.r == 4);
  CHECK(config.lora_alpha == 32.5);
  CHECK(config.target_modules == TargetModules{"q"});
  CHECK(lora(R"(, "target_modules": "all-LINEAR")").target_modules == TargetModules(all_linear));
  CHECK(lora(R"(, "target_modules": ".*q")").target_modules.regex().matches("a.q"));
  CHECK(lora(R"(, "layers_to_transform": 3, "layers_pattern": "h")").layers_to_transform ==
        std::vector<int>{3});
  CHECK(parse<AdaLoraConfig>(R"(, "total_step": null)").total_step == 0);
  CHECK(parse<Ia3Config>(R"(, "feedforward_modules": ".*w0")").feedforward_modules.regex().matches("a.w0"));
}

TEST_CASE("what the file spelt in its own way is written so, until the member changes") {
  LoraConfig config = lora(R"(, "target_modules": ["v", "q"], "lora_alpha": 16.0, "modules_to_save": [],
      "layers_to_transform": 3, "lora_dropout": 0, "alpha_pattern": {"b": 2.0, "a": 1})");
  CHECK(config.extra.empty());
  CHECK(field(config, "target_modules") == R"(["v", "q"])");
  CHECK(field(config, "lora_alpha") == "16.0");
  CHECK(field(config, "modules_to_save") == "[]");
  CHECK(field(config, "layers_to_transform") == "3");
  CHECK(field(config, "lora_dropout") == "0");
  CHECK(field(config, "alpha_pattern") == R"({"a": 1, "b": 2.0})");
  config.target_modules = {"v", "k"};
  config.lora_alpha = 17;
  config.modules_to_save = {"head"};
  config.layers_to_transform = {4};
  config.lora_dropout = 1;
  config.alpha_pattern = {{"b", 2}};
  CHECK(field(config, "target_modules") == R"(["k", "v"])");
  CHECK(field(config, "lora_alpha") == "17");
  CHECK(field(config, "modules_to_save") == R"(["head"])");
  CHECK(field(config, "layers_to_transform") == "[4]");
  CHECK(field(config, "lora_dropout") == "1.0");
  CHECK(field(config, "alpha_pattern") == R"({"b": 2})");
}

TEST_CASE("patterns are sorted, as PEFT does, unless that would change which one matches first") {
  const auto ranks = [](PatternMap<int> patterns) {
    return field(LoraConfig{.rank_pattern = std::move(patterns)}, "rank_pattern");
  };
  CHECK(ranks({{"v", 1}, {"q", 2}}) == R"({"q": 2, "v": 1})");
  CHECK(ranks({{"q_proj", 2}, {"layers.0.q_proj", 3}}) == R"({"q_proj": 2, "layers.0.q_proj": 3})");
  CHECK(ranks({{"q_proj", 2}, {"layers.0.q_proj", 2}}) == R"({"layers.0.q_proj": 2, "q_proj": 2})");
  CHECK(ranks({{"layers.0.q_proj", 3}, {"q_proj", 2}}) == R"({"layers.0.q_proj": 3, "q_proj": 2})");
  CHECK(ranks({{"layers.0.q_proj", 3}, {"q_proj", 2}, {"a", 1}}) ==
        R"({"a": 1, "layers.0.q_proj": 3, "q_proj": 2})");
  CHECK(ranks({{"xq_proj", 2}, {"q_proj", 3}}) == R"({"q_proj": 3, "xq_proj": 2})");
  CHECK(ranks({{"q.*", 2}, {"a", 3}}) == R"({"q.*": 2, "a": 3})");
  const LoraConfig config = lora(R"(, "alpha_pattern": {"q_proj": 2.0, "layers.0.q_proj": 3})");
  CHECK(field(config, "alpha_pattern") == R"({"q_proj": 2.0, "layers.0.q_proj": 3})");
}

TEST_CASE("what has no member is kept, with a warning where graft does not know it") {
  std::vector<std::string> warnings;
  const LoraConfig config =
      lora(R"(, "base_model_name_or_path": "a/é", "task_type": "CAUSAL_LM", "revision": null,
      "new_field": {"b": [1, 2.50], "a": "é"}, "zebra": 1, "runtime_config": {}, "peft_version": "0.9.0",
      "eva_config": null, "loftq_config": {}, "use_qalora": false, "qalora_group_size": 32)",
           &warnings);
  CHECK(config.extra == ExtraFields{{"base_model_name_or_path", R"("a/\u00e9")"},
                                    {"task_type", "\"CAUSAL_LM\""},
                                    {"new_field", R"({"a": "\u00e9", "b": [1, 2.5]})"},
                                    {"zebra", "1"},
                                    {"qalora_group_size", "32"}});
  REQUIRE(warnings.size() == 2);
  CHECK(warnings[0].find("'runtime_config' is ignored") != std::string::npos);
  CHECK(warnings[1].find("new_field, zebra") != std::string::npos);
  const std::string text = config_text(config);
  CHECK(text.find(
            "  \"new_field\": {\n    \"a\": \"\\u00e9\",\n    \"b\": [\n      1,\n      2.5\n    ]\n  },\n"
            "  \"peft_type\"") != std::string::npos);
  CHECK(text.ends_with("\"velora_config\": null,\n  \"zebra\": 1\n}"));
  CHECK(text.find("runtime_config") == std::string::npos);
  CHECK(text.find("\"peft_version\": \"0.21.2\"") != std::string::npos);
  CHECK(config_text(parse_config(text)) == text);
}

TEST_CASE("AdaLoRA's inherited fields are kept, and warned about where PEFT ignores them") {
  std::vector<std::string> warnings;
  const auto config =
      parse<AdaLoraConfig>(R"(, "r": 4, "use_rslora": true, "lora_bias": false, "alpha_pattern": {"q": 1},
      "init_lora_weights": "gaussian", "use_dora": false, "target_parameters": null)",
                           &warnings);
  CHECK(config.init_lora_weights);
  CHECK(config.extra == ExtraFields{{"r", "4"}, {"use_rslora", "true"}, {"alpha_pattern", "{\"q\": 1}"}});
  REQUIRE(warnings.size() == 4);
  CHECK(warnings[0].find("\"gaussian\" means true") != std::string::npos);
  CHECK(warnings[1].find("'r' has no effect on AdaLoRA") != std::string::npos);
  CHECK(field(config, "r") == "4");
  CHECK(field(config, "init_lora_weights") == "\"gaussian\"");
  for (const char* refused :
       {R"("use_dora": true)", R"("trainable_token_indices": [1])", R"("target_parameters": ["a"])",
        R"("ensure_weight_tying": true)", R"("init_lora_weights": "loftq")"})
    CHECK(complaint<AdaLoraConfig>(std::string(", ") + refused) != "");
}

TEST_CASE("fields that graft would have to ignore are refused") {
  for (const char* refused :
       {R"("use_qalora": true)", R"("megatron_config": {"a": 1})", R"("layer_replication": [[0, 2]])", R"("alora_invocation_tokens": [1])", R"("kasa_config": {"a": 1})",
        R"("monteclora_config": {"a": 1})", R"("velora_config": {"a": 1})", R"("use_bdlora": {"a": 1})",
        R"("arrow_config": {"a": 1})"}) {
    CAPTURE(refused);
    CHECK(complaint<LoraConfig>(std::string(", ") + refused).find("is set to") != std::string::npos);
    CHECK(complaint<LoraConfig>(std::string(", ") + refused).starts_with("'adapter_config.json': the field"));
  }
}

// As PEFT 0.21 writes what it has converted to plain LoRA (path_initial_model_for_weight_conversion). It reads it with the
// same warnings, and then holds and writes an empty loftq_config.
TEST_CASE("fields of an initialisation that is not asked for have no effect") {
  const std::string corda =
      R"({"cache_file": null, "corda_method": "ipm", "covariance_file": null, "prune_temporary_fields": true, "use_float16_for_covariance": false, "verbose": false})";
  std::vector<std::string> warnings;
  const std::string fields =
      R"(, "init_lora_weights": true, "loftq_config": {"loftq_bits": 4, "loftq_iter": 1}, "lora_ga_config": {"direction": "ArB2r"}, "corda_config": )";
  const LoraConfig config = lora(fields + corda, &warnings);
  CHECK(field(config, "corda_config") == corda);
  CHECK(field(config, "lora_ga_config") == R"({"direction": "ArB2r"})");
  CHECK(field(config, "loftq_config") == "{}");
  REQUIRE(warnings.size() == 3);
  for (const std::string& warning : warnings) CHECK(warning.find("has no effect") != std::string::npos);
  CHECK_NOTHROW(config.validate());
  warnings.clear();
  CHECK(field(lora(R"(, "init_lora_weights": "eva", "eva_config": {"rho": 1.5})", &warnings), "eva_config") == R"({"rho": 1.5})");
  CHECK(warnings.empty());
  CHECK(complaint<AdaLoraConfig>(R"(, "loftq_config": {"loftq_bits": 4})") == "");
}

TEST_CASE("a wrong field is a ConfigError that names it") {
  const auto check = [](const std::string& fields, const std::string& expected) {
    const std::string text = complaint<LoraConfig>(", " + fields);
    CHECK_MESSAGE(text.starts_with(expected), text);
  };
  check(R"("r": "8")", "the field 'r' of 'adapter_config.json' is \"8\": it must be an integer");
  check(R"("r": 8.0)", "the field 'r' of 'adapter_config.json' is 8.0: it must be an integer");
  check(R"("lora_alpha": null)",
        "the field 'lora_alpha' of 'adapter_config.json' is null: it must be a number");
  check(R"("bias": "some")",
        "the field 'bias' of 'adapter_config.json' is \"some\": it must be \"none\", \"all\"");
  check(R"("target_modules": {"q": 1})", "the field 'target_modules' of");
  check(R"("target_modules": "q++")", "the field 'target_modules' of 'adapter_config.json': the regular expression 'q++' cannot be used");
  check(R"("target_parameters": "a")", "the field 'target_parameters' of");
  check(R"("rank_pattern": {"q": [true]})", "the field 'rank_pattern' of");
  check(R"("inference_mode": 1)", "the field 'inference_mode' of");
  check(R"("task_type": 1)", "'task_type' is 1");
  CHECK(complaint<Ia3Config>("").starts_with(
      "the field 'feedforward_modules' of 'adapter_config.json' is missing"));
  CHECK(complaint<Ia3Config>(R"(, "feedforward_modules": null)")
            .starts_with("the field 'feedforward_modules' of"));
  CHECK(complaint<AdaLoraConfig>(R"(, "rank_pattern": {"q": 3})").starts_with("the field 'rank_pattern' of"));
  std::vector<std::string> warnings;
  (void)lora(R"(, "task_type": "TELEPATHY")", &warnings);
  CHECK(warnings.size() == 1);
}

TEST_CASE("a text that is no adapter config is refused") {
  CHECK_THROWS_AS((void)parse_config(""), FileError);
  CHECK_THROWS_AS((void)parse_config("{\"peft_type\": \"LORA\""), FileError);
  CHECK_THROWS_AS((void)parse_config("[]"), FileError);
  CHECK_THROWS_AS((void)parse_config(R"({"peft_type": "LORA", "r": 8, "r": 8})"), FileError);
  for (const char* text :
       {"{}", R"({"peft_type": 1})", R"({"peft_type": "lora"})", R"({"peft_type": "LOHA"})"}) {
    CAPTURE(text);
    try {
      (void)parse_config(text);
      FAIL("was read");
    } catch (const ConfigError& error) {
      CHECK(error.problem.find("peft_type") != std::string::npos);
      CHECK(error.fix.find("LORA, ADALORA and IA3") != std::string::npos);
    }
  }
}

TEST_CASE("extra fields must be JSON, and none that has a place of its own") {
  const auto with = [](ExtraFields extra) { return LoraConfig{.extra = std::move(extra)}; };
  CHECK_THROWS_AS((void)config_text(with({{"x", "{"}})), FileError);
  CHECK_THROWS_AS((void)config_text(with({{"r", "4"}})), ConfigError);
  CHECK_THROWS_AS((void)config_text(with({{"x", "1"}, {"x", "1"}})), ConfigError);
  CHECK_THROWS_AS((void)config_text(with({{"peft_type", "\"IA3\""}})), ConfigError);
}

TEST_CASE("a directory without a config says where one is") {
  const TemporaryDirectory directory;
  const auto fix = [](const std::filesystem::path& path) -> std::string {
    try {
      (void)load_peft_config(path);
    } catch (const FileError& error) {
      CHECK(error.problem.find(path.string()) != std::string::npos);
      return error.fix;
    }
    return "";
  };
  CHECK(fix(directory / "missing") == "check the path");
  CHECK(fix(directory.path()) == "check the path");
  std::filesystem::create_directory(directory / "other");
  write_text(directory / "other/adapter_config.json", "{");
  CHECK(fix(directory.path()).find((directory / "other").string()) != std::string::npos);
  CHECK(fix(directory / "other/adapter_config.json").ends_with("such as '" + (directory / "other").string() + "'"));
  CHECK_THROWS_AS((void)load_peft_config(directory / "other"), FileError);
}
