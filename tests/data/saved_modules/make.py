"""Writes cases.txt, what torch and PEFT make of modules that are saved whole: python3 make.py > cases.txt

Made with torch 2.13, peft 0.21.2. A line "@ name" stands before each tree, "# memory" before the keys in memory and
"# file adapter" before those that PEFT would save of it.
"""
import warnings

import torch
from peft import IA3Config, LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import nn

warnings.simplefilter("ignore")
PREFIX = "base_model.model."


class Side(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.side = Side()
        self.last = nn.Linear(7, 3)


class Twin(Side):
    def __init__(self):
        super().__init__()
        self.again = self.fc


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(4, 5))
        self.gate = nn.Linear(5, 3)


class Net(nn.Module):
    def __init__(self, **modules):
        super().__init__()
        self.lin = nn.Linear(6, 6)
        for name, module in modules.items():
            setattr(self, name, module)


def one():
    return Net(side=Side())


def nested():
    return Net(outer=Outer())


def listed():
    return Net(side=nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7)), list=nn.ModuleList([Side(), Side()]))


def shared():
    side = Side()
    return Net(side=side, other=side, fc_again=side.fc)


def shared_inside():
    return Net(side=Twin())


def shared_around():
    outer = Outer()
    return Net(outer=outer, again=outer)


def attention():
    return Net(m=nn.MultiheadAttention(6, 2))


def experts():
    module = Experts()
    return Net(experts=module, again=module)


def lora(*targets, save=(), **fields):
    return LoraConfig(r=2, target_modules=list(targets or ["lin"]), modules_to_save=list(save) or None, **fields)


def ia3(*targets, save=()):
    return IA3Config(target_modules=list(targets), feedforward_modules=[], modules_to_save=list(save) or None)


def show(name, model, config, second=None, delete=(), files=True):
    """`files`: whether PEFT can save the adapters so that it would load them into another model."""
    model = get_peft_model(model, config)
    if second:
        model.add_adapter("b", second)
    for adapter in delete:
        model.delete_adapter(adapter)
    print("@", name)
    print(model.base_model.model)
    print("# memory")
    print("\n".join(key.removeprefix(PREFIX) for key in model.state_dict()))
    for adapter in model.peft_config if files else ():
        print("# file", adapter)
        print("\n".join(key.removeprefix(PREFIX) for key in get_peft_model_state_dict(model, adapter_name=adapter)))


side = lora(save=["side"])
show("one adapter", one(), side)
show("two adapters", one(), side, side)
show("the second saves nothing", one(), side, lora())
show("the first saves nothing", one(), lora(), side)
show("all biases", one(), lora(save=["side"], bias="all"))
show("the first deleted", one(), side, side, delete=["default"])
show("both deleted", one(), side, side, delete=["default", "b"])

# modules in modules
show("outer", nested(), lora(save=["outer"]))
show("inner", nested(), lora(save=["outer.side"]))
show("inner, then outer", nested(), lora(save=["side"]), lora(save=["outer"]), files=False)
show("layer, then its module", one(), lora(save=["fc"]), side, files=False)
show("layer, then its module, the first deleted", one(), lora(save=["fc"]), side, delete=["default"], files=False)
show("sequential", listed(), side)
show("a module with a parameter", experts(), lora(save=["experts"], bias="all"))
show("modules of a list", listed(), lora(save=["list.0", "list.1"]))

# with adapters of others in them
show("lora into a saved module", one(), side, lora("fc"), files=False)
show("lora into a saved module, deleted", one(), side, lora("fc"), delete=["b"], files=False)
show("lora into a saved module that is deleted", one(), side, lora("fc"), delete=["default"], files=False)
show("a module with lora is saved", one(), lora("fc"), side, files=False)
show("ia3 into a saved module", one(), ia3("lin", save=["side"]), ia3("lin", "fc"), files=False)

# under several names
show("shared", shared(), side)
show("shared, all biases", shared(), lora(save=["side"], bias="all"))
show("shared inside", shared_inside(), side)
show("shared inside, all biases", shared_inside(), lora(save=["side"], bias="all"))
show("shared inside, two adapters", shared_inside(), side, side)
show("shared around", shared_around(), side)
show("shared around, all biases", shared_around(), lora(save=["side"], bias="all"))
show("a shared module's parameter is adapted", experts(), LoraConfig(r=2, target_modules=[], target_parameters=["experts.w"]))

# attentions
show("attention", attention(), lora(save=["m"]))
show("attention, two adapters", attention(), lora(save=["m"]), lora(save=["m"]))
show("lora into a saved attention", attention(), lora(save=["m"]), lora("out_proj"), files=False)
