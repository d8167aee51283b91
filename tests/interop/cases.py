"""A case is data: a model, the adapters that PEFT writes for it, and the steps that both sides run."""


def model(kind, sizes, seed, dtype="f32", **more):
    return {"type": kind, "sizes": sizes, "seed": seed, "dtype": dtype, **more}


def adapter(method, config, seed, name="default", style="pretrained", file_dtype=None, pruned=False):
    return {
        "name": name,
        "method": method,
        "config": config,
        "seed": seed,
        "style": style,
        "file_dtype": file_dtype,
        "pruned": pruned,
        "dir": f"adapters/{name}",
    }


def forward(to, **more):
    return {"do": "forward", "to": to, **more}


def load(one, low_cpu_mem_usage=True, mapped=False, activate=True):
    return {
        "do": "load",
        "dir": one["dir"],
        "name": one["name"],
        "low_cpu_mem_usage": low_cpu_mem_usage,
        "mapped": mapped,
        "activate": activate,
    }


def inject(name, config, source="file", low_cpu_mem_usage=False, seed=0, state_dict=None, written=None):
    return {
        "do": "inject",
        "to": name,
        "name": name,
        "config": config,
        "source": source,
        "low_cpu_mem_usage": low_cpu_mem_usage,
        "seed": seed,
        "state_dict": state_dict,
        "written": written,
    }


def save(name, output, identical_to=None, bare=False):
    """graft writes the adapter; PEFT must read it back and give the output of that name. `bare`: its bare keys too."""
    step = {"do": "save", "name": name, "dir": f"saved/{name}", "output": output, "identical_to": identical_to}
    return step | ({"bare": True} if bare else {})


def finish(category, name, model, adapters, steps):
    return {"category": category, "name": name, "model": model, "adapters": adapters, "steps": steps}


def loaded(category, name, model, one, **options):
    """PEFT writes one adapter with save_pretrained; graft loads it, runs it, writes it again."""
    own = one["name"]
    steps = [forward("base"), load(one, **options), forward(own), {"do": "disable", "to": "disabled"}]
    steps += [{"do": "tree", "to": own}, {"do": "keys", "to": own}, save(own, own, one["dir"])]
    return finish(category, name, model, [one], steps)


def several(category, name, model, adapters, activate_last, scale=None, **options):
    """Several adapters: alone, together, scaled, and the last one deleted."""
    names = [a["name"] for a in adapters]
    steps = [forward("base")]
    steps += [load(a, activate=a is not adapters[-1] or activate_last, **options) for a in adapters]
    steps += [forward("after_load"), {"do": "tree", "to": "all"}]
    for one in adapters:
        steps += [{"do": "set_adapter", "names": [one["name"]]}, forward(one["name"])]
        steps += [save(one["name"], one["name"], one["dir"])]
    steps += [{"do": "set_adapter", "names": names[::-1]}, forward("together")]
    if scale is not None:
        steps += [{"do": "set_scale", "name": names[0], "value": scale}, forward("scaled")]
        steps += [{"do": "set_scale", "name": names[0], "value": 1.0}, forward("rescaled")]
    steps += [{"do": "disable", "to": "disabled"}, {"do": "set_adapter", "names": [names[0]]}]
    steps += [{"do": "delete", "name": names[-1]}, forward("left"), {"do": "tree", "to": "left"}]
    return finish(category, name, model, adapters, steps)


def low_level(
    category, name, model, one, low_cpu_mem_usage=False, from_state_dict=False, source="file", targets=None, bare=False
):
    """Bare keys from get_peft_model_state_dict; graft injects by the config, or by the keys, and sets them."""
    own, file = one["name"], one["dir"] + "/adapter_model.safetensors"
    config, written = one["dir"], None
    if targets is not None:
        config, written = "configs/" + own, {**one, "config": {**one["config"], "target_modules": targets}}
    steps = [forward("base")]
    steps += [inject(own, config, source, low_cpu_mem_usage, 1, file if from_state_dict else None, written)]
    steps += [{"do": "set", "name": own, "file": file, "low_cpu_mem_usage": low_cpu_mem_usage}, forward(own)]
    steps += [{"do": "tree", "to": own}, {"do": "keys", "to": own}]
    steps += [] if from_state_dict else [save(own, own, bare=bare)]
    return finish(category, name, model, [one], steps)


def mixed(category, name, model, adapters, low_cpu_mem_usage=False):
    """Adapters of different methods in one model, each at sites of its own, injected one after the other."""
    steps = [forward("base")]
    for one in adapters:
        steps += [inject(one["name"], one["dir"], "file", low_cpu_mem_usage, 1)]
        steps += [{"do": "set", "name": one["name"], "file": one["dir"] + "/adapter_model.safetensors",
                   "low_cpu_mem_usage": low_cpu_mem_usage}]
    names = [one["name"] for one in adapters]
    for one in names:
        steps += [{"do": "set_adapter", "names": [one]}, forward(one), save(one, one)]
    steps += [{"do": "set_adapter", "names": names}, forward("together"), {"do": "tree", "to": "all"}]
    steps += [{"do": "keys", "to": "all"}, {"do": "disable", "to": "disabled"}]
    return finish(category, name, model, adapters, steps)


def fresh(category, name, model, one, source="struct", low_cpu_mem_usage=False, bare=False):
    """graft makes the adapter, draws its values and writes it; PEFT only reads."""
    own = one["name"]
    steps = [forward("base"), inject(own, "configs/" + own, source, low_cpu_mem_usage, one["seed"], None, one)]
    steps += [{"do": "randomise", "name": own, "seed": one["seed"]}, forward(own, unknown=True)]
    steps += [{"do": "tree", "to": own}, {"do": "keys", "to": own}, save(own, own, bare=bare)]
    return finish(category, name, model, [], steps)


def with_gradients(case):
    """Gradients of sum(y * G), G drawn, by all that the active adapters train: at the end, or where most are active."""
    steps, names, at = case["steps"], [], len(case["steps"])
    for i, step in enumerate(steps):
        if step["do"] in ("load", "inject"):
            names = [step["name"]]
        elif step["do"] == "forward" and step["to"] in ("together", "scaled"):
            at = i + 1
    if at < len(steps):
        names = [s["names"] for s in steps[:at] if s["do"] == "set_adapter"][-1]
    if case["model"]["sizes"].get("sparse"):  # torch transposes no sparse gradient
        return case
    configs = [a["config"] for a in case["adapters"]] + [s["written"]["config"] for s in steps if s.get("written")]
    copies = {name for c in configs for name in c.get("modules_to_save") or []}
    slices = case["model"].get("packed") and copies - {"norm", "lm_head", "embed_tokens"}
    if case["model"]["type"] in ("transposed", "user", "user_conv") and copies or slices:
        return case  # an optimiser needs a graft::Parameter, and these layers hold matrices of their own
    drawn_by_graft = any(s.get("unknown") for s in steps)  # PEFT then computes them from what graft saved
    case["steps"] = steps[:at] + [{"do": "gradients", "names": names, "read_back": drawn_by_graft}] + steps[at:]
    return case
