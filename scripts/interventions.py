"""Interventions on tiny models in plain PyTorch, with hooks on transformers' own modules: what causal tracing, activation patching and knock-out compute.

    python scripts/interventions.py FIXTURES OUT

FIXTURES: folder with tiny-llava, tiny-blip2-opt and expected/ (see its README). Writes OUT/MODEL.json, which test/attribution/interventions.test.ts reads.
Needs torch, transformers and safetensors. Inputs are the stored embeddings, so that no processor takes part.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration, LlavaForConditionalGeneration

fixtures, out = Path(sys.argv[1]), Path(sys.argv[2])


def llava(folder):
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    text = model.model.language_model
    return text, model.lm_head, text.layers, "mlp"


def blip2(folder):
    model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    text = model.language_model
    return text.model, text.lm_head, text.model.decoder.layers, "fc2"


def module_of(layers, mlp, kind, layer):
    block = layers[layer]
    return {"out": block, "attn.out": block.self_attn, "mlp.out": getattr(block, mlp)}[kind]


def first(output):
    return output[0] if isinstance(output, tuple) else output


def with_first(output, value):
    return (value, *output[1:]) if isinstance(output, tuple) else value


def corrupt(embeddings, start, end):
    """Adds to the visual tokens a wave that any language can repeat, three times as strong as they are."""
    visual = embeddings[start:end]
    wave = torch.sin(torch.arange(visual.numel(), dtype=torch.float64) * 12.9898 + 0.5)
    added = 3 * visual.double().std(correction=0) * 2**0.5 * wave.reshape(visual.shape)
    changed = embeddings.clone()
    changed[start:end] = (visual.double() + added).float()
    return changed


@torch.no_grad()
def run(name, open_model):
    meta = json.loads((fixtures / "expected" / name / "meta.json").read_text())
    tensors = load_file(fixtures / "expected" / name / "tensors.safetensors")
    case = next(i for i, one in enumerate(meta["cases"]) if one["visual_range"])
    start, end = meta["cases"][case]["visual_range"]
    text, head, layers, mlp = open_model(fixtures / name)
    text.eval()
    clean = tensors[f"{case}.inputs_embeds"]
    corrupted = corrupt(clean, start, end)
    length = len(clean)
    last = length - 1
    key = meta["cases"][case]["greedy_ids"][0]

    def probability(embeddings):
        states = text(inputs_embeds=embeddings[None], use_cache=False).last_hidden_state
        return head(states[0, last]).softmax(-1)[key].item()

    kinds = ["out", "attn.out", "mlp.out"]
    states, hooks = {}, []
    for kind in kinds:
        for layer in range(len(layers)):
            def keep(_module, _inputs, output, at=(kind, layer)):
                states[at] = first(output).clone()

            hooks.append(module_of(layers, mlp, kind, layer).register_forward_hook(keep))
    found = {"case": case, "key": key, "clean": probability(clean)}
    for hook in hooks:
        hook.remove()
    found["corrupted"] = probability(corrupted)

    parts = {"picture": list(range(start, end)), "one patch": [start + 3], "words": list(range(end, last)), "last": [last]}
    found["restored"] = []
    for kind in kinds:
        for part, places in parts.items():
            row = []
            for layer in range(len(layers)):
                def put(_module, _inputs, output, at=(kind, layer), places=places):
                    value = first(output).clone()
                    shape = value.shape
                    flat = value.reshape(length, -1)
                    flat[places] = states[at].reshape(length, -1)[places]
                    return with_first(output, flat.reshape(shape))

                hook = module_of(layers, mlp, kind, layer).register_forward_hook(put)
                row.append(probability(corrupted))
                hook.remove()
            found["restored"].append({"module": kind, "part": part, "places": places, "probability": row})

    found["cut"] = []
    edges = {"picture to last": ([last], parts["picture"]), "picture to words": (parts["words"], parts["picture"]), "words to last": ([last], parts["words"])}
    for name_of, (queries, keys) in edges.items():
        for chosen in [[layer] for layer in range(len(layers))] + [list(range(len(layers)))]:
            hooks = []
            for layer in chosen:
                def cut(_module, args, kwargs, queries=queries, keys=keys):
                    mask = torch.full((length, length), torch.finfo(torch.float32).min).triu(1)
                    for query in queries:
                        mask[query, keys] = torch.finfo(torch.float32).min
                    return args, {**kwargs, "attention_mask": mask[None, None]}

                hooks.append(layers[layer].register_forward_pre_hook(cut, with_kwargs=True))
            found["cut"].append({"edges": name_of, "queries": queries, "keys": keys, "layers": chosen, "probability": probability(clean)})
            for hook in hooks:
                hook.remove()
    (out / f"{name}.json").write_text(json.dumps(found) + "\n")
    print(name, "clean", found["clean"], "corrupted", found["corrupted"])


run("tiny-llava", llava)
run("tiny-blip2-opt", blip2)
