#pragma once

#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "../adapters/adapted.hpp"
#include "../adapters/parameter_lora.hpp"
#include "../core/compile_once.hpp"
#include "../core/keys.hpp"
#include "../core/make_unique_as.hpp"
#include "../core/text.hpp"
#include "../core/type_name.hpp"
#include "../modules/base_tensors.hpp"
#include "../modules/weight_door.hpp"
#include "../modules/visit.hpp"

namespace graft {

/// A site without its type, so that everything that is not arithmetic is compiled once.
class AnySite {
 public:
  explicit AnySite(std::string_view path) : path_(path) {}
  virtual ~AnySite() = default;

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] virtual LayerKind kind() const = 0;
  /// The attention that the layer is the output projection of, or null.
  [[nodiscard]] const AnySite* outer() const { return outer_; }
  void set_outer(const AnySite& site) { outer_ = &site; }
  [[nodiscard]] virtual LayerFacts facts() const = 0;
  [[nodiscard]] virtual std::string_view layer_name() const = 0;
  /// Whether the site's list has the method, whatever the layer is.
  [[nodiscard]] virtual bool lists(PeftType type) const = 0;
  /// Whether it lists it and the layer is of a kind that the method supports.
  [[nodiscard]] virtual bool permits(PeftType type) const = 0;
  /// The dtype of activations, and so of adapters.
  [[nodiscard]] virtual Dtype dtype() const = 0;
  [[nodiscard]] virtual SiteTable* table() const = 0;
  /// Makes one, under that number, where there is none.
  virtual SiteTable& make_table(unsigned number) const = 0;
  virtual void drop_table() const = 0;
  [[nodiscard]] virtual std::unique_ptr<AnyAdapterState> make_state(const PeftConfig&, const AdapterPlan&) const = 0;
  /// Gives a state that belongs here the values that its config says, from the seed and the layer's weight.
  virtual void initialise(AnyAdapterState& state, std::uint64_t seed) const = 0;
  /// Whether the layer's traits show its weight.
  [[nodiscard]] virtual bool shows_weight() const = 0;
  /// The sizes of the matrix that a user's traits show as the weight, {} where there is none or graft's own layers know.
  [[nodiscard]] virtual Shape shown_weight() const = 0;
  /// One row of the base weight, as `shows_weight` shows it, into row `place` of a matrix of the activations' dtype.
  virtual void copy_weight_row(Index row, ParameterData& to, Index place) const = 0;
  /// Whether the layer's type can be copied at all.
  [[nodiscard]] virtual bool can_copy() const = 0;
  /// @throws AdapterError where a copy would share the layer's memory.
  [[nodiscard]] virtual std::unique_ptr<AnyModuleCopy> make_copy() const = 0;
  /// Makes a copy's layer the base layer. Whether its memory was taken over, so that what was tied no longer is.
  virtual bool adopt(AnyModuleCopy& copy) const = 0;
  /// The weight of the base layer, or of a copy of it, to be changed.
  [[nodiscard]] virtual std::unique_ptr<detail::AnyWeightDoor> door(AnyModuleCopy* copy = nullptr) const = 0;
  /// The tensors of the base layer, or of a copy of it.
  [[nodiscard]] virtual std::vector<detail::BaseTensor> tensors(AnyModuleCopy* copy = nullptr) const = 0;

 private:
  std::string path_;
  const AnySite* outer_ = nullptr;
};

namespace detail {
/// The module that an adapter's parameters stand in: "q_proj"; inside of wrappers of other methods "q_proj.base_layer"; of an
/// output projection that is adapted with its attention "attn.base_layer.out_proj".
[[nodiscard]] inline std::string adapter_module(const AnySite& site, unsigned depth, bool with_outer) {
  if (with_outer && site.outer()) return module_inside(site.outer()->path(), site.path());
  return nested_path(site.path(), depth);
}
/// A site inside of a wrapper of `modules_to_save` around the module so many segments up its path:
/// "head.original_module", of 1 "side.original_module.fc".
[[nodiscard]] inline std::string copied_module(const AnySite& site, std::string_view in_wrapper, unsigned above) {
  const std::string_view module = ancestor_path(site.path(), above);
  const std::string_view rest = std::string_view(site.path()).substr(module.size());
  return join_path(join_path(module, in_wrapper), module.empty() || rest.empty() ? rest : rest.substr(1));
}
/// Whether PEFT has put a tuner layer around what the site is inside of, and so passes over the site itself.
[[nodiscard]] inline bool is_inside_adapted(const AnySite& site) {
  const SiteTable* table = site.outer() ? site.outer()->table() : nullptr;
  return table && table->is_wrapped();
}

template <class S>
class SiteOf;

template <class Declared, class... As>
class SiteOf<Adapted<Declared, As...>> final : public AnySite {
  using Site = Adapted<Declared, As...>;
  using L = typename SiteLayer<Declared, As...>::adapted;
  using T = layer_scalar<L>;

 public:
  SiteOf(std::string_view path, Site& site) : AnySite(path), site_(site) {}

  [[nodiscard]] LayerKind kind() const override { return traits_of<L>::kind; }
  [[nodiscard]] LayerFacts facts() const override { return facts_of(std::as_const(layer())); }
  [[nodiscard]] std::string_view layer_name() const override { return type_name<Declared>(); }
  [[nodiscard]] bool lists(PeftType type) const override { return ((As::type == type) || ...); }
  [[nodiscard]] bool permits(PeftType type) const override { return ((As::type == type && Site::template permits<As>) || ...); }
  [[nodiscard]] Dtype dtype() const override { return dtype_of<T>; }
  [[nodiscard]] SiteTable* table() const override { return SiteAccess<Site>::table(site_).get(); }
  SiteTable& make_table(unsigned number) const override {
    auto& table = SiteAccess<Site>::table(site_);
    if (!table) {
      table = std::make_unique<SiteTable>();
      table->number = number;
      table->path = path();
    }
    return *table;
  }
  void drop_table() const override { SiteAccess<Site>::table(site_).reset(); }

  [[nodiscard]] std::unique_ptr<AnyAdapterState> make_state(const PeftConfig& config, const AdapterPlan& plan) const override {
    std::unique_ptr<AnyAdapterState> state;
    const auto offer = [&]<class A>() {
      if constexpr (Site::template permits<A>)
        if (const auto* own = std::get_if<typename A::Config>(&config)) {
          // of a layer (out, in), LoRA of its weight is LoRA of the layer; convolutions have none
          if constexpr (std::same_as<A, Lora> && traits_of<L>::kind != LayerKind::conv &&
                        (traits_of<L>::kind != LayerKind::linear || is_transposed<L>))
            if (!plan.parameter.empty()) return void(state = make_unique_as<AnyAdapterState, ParameterLora<T>>(*own, facts(), plan));
          state = make_unique_as<AnyAdapterState, typename A::template State<T>>(*own, facts(), plan);
        }
    };
    (offer.template operator()<As>(), ...);
    return state;
  }
  void initialise(AnyAdapterState& state, std::uint64_t seed) const override {
    state.initialise(seed, path());
    static_cast<AdapterState<T>&>(state).start_from(base_weight_of(std::as_const(layer())));
  }
  [[nodiscard]] bool shows_weight() const override { return has_weight<const L>; }
  [[nodiscard]] Shape shown_weight() const override {
    if constexpr (has_weight<const L> && !Module<L> && !requires { traits_of<L>::tensors(layer()); }) {
      auto&& weight = weight_of(std::as_const(layer()));
      return {Index(weight.rows()), Index(weight.cols())};
    } else {
      return {};
    }
  }
  void copy_weight_row(Index row, ParameterData& to, Index place) const override {
    const Index width = to.shape().cols();
    base_weight_of(std::as_const(layer())).copy_rows(row, out(reinterpret_cast<T*>(to.data()) + place * width, 1, width));
  }
  [[nodiscard]] bool can_copy() const override { return std::copy_constructible<L>; }
  [[nodiscard]] std::unique_ptr<AnyModuleCopy> make_copy() const override {
    if constexpr (std::copy_constructible<L>) {
      auto copy = make_unique_as<AnyModuleCopy, ModuleCopy<L>>(layer());
      if (shares_weight(static_cast<ModuleCopy<L>&>(*copy).layer)) shared_copy();
      return copy;
    } else {
      return nullptr;
    }
  }
  bool adopt(AnyModuleCopy& copy) const override {
    L& from = static_cast<ModuleCopy<L>&>(copy).layer;
    if constexpr (std::is_move_assignable_v<L>) {
      layer() = std::move(from);
      return true;
    } else {
      const std::vector<BaseTensor> source = base_tensors(from), target = base_tensors(layer());
      for (std::size_t i = 0; i < target.size(); ++i) target[i].write(source[i].read(), false);
      return false;
    }
  }
  [[nodiscard]] std::unique_ptr<AnyWeightDoor> door(AnyModuleCopy* copy) const override {
    return make_unique_as<AnyWeightDoor, typename DoorOf<L>::type>(copy ? static_cast<ModuleCopy<L>*>(copy)->layer : layer());
  }
  [[nodiscard]] std::vector<BaseTensor> tensors(AnyModuleCopy* copy) const override {
    return base_tensors(copy ? static_cast<ModuleCopy<L>*>(copy)->layer : layer());
  }

 private:
  /// A borrowed Parameter is detached before it is written; a view of the user's own would be written through.
  [[nodiscard]] bool shares_weight(L& copy) const {
    if constexpr (!Module<L> && has_weight<L>)
      if constexpr (requires { weight_of(copy).data(); })
        return weight_of(copy).size() && weight_of(copy).data() == weight_of(layer()).data();
    return false;
  }
  [[noreturn]] void shared_copy() const {
    fail<AdapterError>("a copy of '" + path() + "' would share the weight of the layer that it copies",
                       "modules_to_save keeps weights of its own, and the layer's copy constructor copies a pointer",
                       "let the layer own its weight, or leave it out of modules_to_save");
  }

  [[nodiscard]] L& layer() const { return site_.base_layer(); }

  Site& site_;
};
}  // namespace detail

/// A module of a model as a plan sees it.
struct ModelNode {
  std::string path;
  std::string_view type;          ///< the bare class name
  int site = -1;                  ///< its place in `ModelSites::sites`, or -1
  bool is_layer = false;          ///< has layer_traits: without a site it has no room
  LayerKind kind = LayerKind::linear;
  bool is_attention = false;      ///< a target by its name alone
};

/// A path at which shared pointers reach once more what stands under `first`. torch names its tensors by both.
struct SecondName {
  std::string path, first;
  std::size_t sites_before, plain_before;  ///< how many sites and plain tensors stand before it
};

/// A model, read once: its modules in torch's order, its sites, and the tensors outside of sites.
struct ModelSites {
  std::vector<ModelNode> nodes;
  std::vector<std::unique_ptr<AnySite>> sites;
  std::vector<detail::BaseTensor> plain;      ///< keys are whole paths
  std::vector<std::size_t> plain_before;      ///< for each site, how many plain tensors stand before it
  std::vector<SecondName> second_names{};     ///< in torch's order
};

/// Reads a model. Verbs that only look take const models: they call const members only.
template <class M>
ModelSites sites_of(const M& const_model) {
  ModelSites all;
  const AnySite* attention = nullptr;  // the last one: what is in it comes next
  const auto again = [&](std::string_view path, const std::string& first) {
    // what holds itself has no end of names: torch cannot walk it either
    if (!path.starts_with(first + ".")) all.second_names.push_back({std::string(path), first, all.sites.size(), all.plain.size()});
  };
  const auto node_of = [&](std::string_view path, auto& node) {
    using Node = std::remove_cvref_t<decltype(node)>;
    constexpr bool is_const = std::is_const_v<std::remove_reference_t<decltype(node)>>;
    if constexpr (enable_site<Node> && is_const) {  // a const member cannot be adapted: it is a plain layer
      all.nodes.push_back({std::string(path), type_name<typename Node::layer_type>(), -1, true,
                           detail::traits_of<typename Node::layer_type>::kind, detail::is_attention<typename Node::layer_type>});
      for (detail::BaseTensor& tensor : detail::base_tensors(node.base_layer())) {
        tensor.key = join_path(path, tensor.key);
        all.plain.push_back(std::move(tensor));
      }
    } else if constexpr (enable_site<Node>) {
      all.nodes.push_back({std::string(path), type_name<typename Node::layer_type>(), int(all.sites.size()), true,
                           detail::traits_of<typename Node::layer_type>::kind, detail::is_attention<typename Node::layer_type>});
      all.plain_before.push_back(all.plain.size());
      all.sites.push_back(detail::make_unique_as<AnySite, detail::SiteOf<Node>>(path, node));
      if (attention && parent_path(path) == attention->path()) all.sites.back()->set_outer(*attention);
      if constexpr (has_inner_sites<Node>) attention = all.sites.back().get();
    } else if constexpr (enable_parameter<Node>) {
      if (node.size()) all.plain.push_back(detail::tensor_of_parameter(std::string(path), node));
    } else {
      ModelNode entry{std::string(path), type_name<Node>(), -1, false, LayerKind::linear};
      if constexpr (detail::has_layer_traits<Node>) {
        entry.is_layer = true;
        entry.kind = detail::traits_of<Node>::kind;
        entry.is_attention = detail::is_attention<Node>;
        if constexpr (!Module<Node>) detail::tensors_of_traits(node, path.empty() ? "" : std::string(path) + ".", all.plain);
      }
      all.nodes.push_back(std::move(entry));
    }
  };
  walk(const_cast<M&>(const_model), detail::CallOnSecondPathsToo<decltype(node_of), decltype(again)>{{node_of}, again});
  return all;
}

GRAFT_SHARED_CLASS(detail::SiteOf<Adapted<Linear<float>, Lora, AdaLora, Ia3>>)

}  // namespace graft
