"""
The same computation in plain PyTorch (eager, float32), for `npm run bench`: a LLaMA-shaped decoder, the visual edit adapter with its losses
(VisEdit Eq. 14-24), and the influence traces as the authors organise them: the attention module runs again on a perturbed copy of its input for
every sampled token of every traced layer. Layers up to the insert layer are given as their output, as they are to the other side.

Reads one JSON object per line on stdin: {"do": "load", ...}, {"do": "forward" | "step" | "traces"}; answers each with one line.
"""

import json
import math
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Decoder:
    def __init__(self, weights, config, attention):
        self.w = {name.removeprefix("language_model."): t.float() for name, t in weights.items() if name.startswith("language_model.")}
        self.layers, self.heads, self.width = config["layers"], config["heads"], config["headWidth"]
        self.eps, self.attention_kind = config["epsilon"], attention
        inverse = 1.0 / 10000 ** (torch.arange(0, self.width, 2).float() / self.width)
        angles = torch.outer(torch.arange(config["positions"]).float(), inverse)
        self.cos, self.sin = torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()

    def norm(self, name, x):
        return self.w[name + ".weight"] * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"])

    def rotate(self, x):
        l = x.shape[2]
        half = x.shape[-1] // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * self.cos[:l] + turned * self.sin[:l]

    def attention(self, i, x, bias):
        at = f"model.layers.{i}.self_attn."
        b, l, d = x.shape
        q, k, v = (self.linear(at + n, x).view(b, l, self.heads, self.width).transpose(1, 2) for n in ("q_proj", "k_proj", "v_proj"))
        q, k = self.rotate(q), self.rotate(k)
        if self.attention_kind == "sdpa":
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.width) + bias
            out = torch.matmul(torch.softmax(scores, -1), v)
        return self.linear(at + "o_proj", out.transpose(1, 2).reshape(b, l, d))

    def attention_input(self, i, x):
        return self.norm(f"model.layers.{i}.input_layernorm", x)

    def layer(self, i, x, bias):
        at = f"model.layers.{i}."
        x = x + self.attention(i, self.attention_input(i, x), bias)
        y = self.norm(at + "post_attention_layernorm", x)
        return x + self.linear(at + "mlp.down_proj", F.silu(self.linear(at + "mlp.gate_proj", y)) * self.linear(at + "mlp.up_proj", y))

    def head(self, x):
        return self.linear("lm_head", self.norm("model.norm", x))


def causal(l):
    return torch.full((l, l), -1e9).triu(1)


class Adapter:
    def __init__(self, weights, heads):
        self.w = {name: t.clone().requires_grad_() for name, t in weights.items()}
        self.heads = heads

    def linear(self, name, x):
        return F.linear(x, self.w[name + ".weight"], self.w[name + ".bias"])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"])

    def residual(self, name, x):
        return self.linear(name + ".l_out", F.relu(self.linear(name + ".l_in", x))) + x

    def split(self, x):
        b, l, d = x.shape
        return x.view(b, l, self.heads, d // self.heads).transpose(1, 2)

    def gate(self, visual, end):
        image = self.split(self.residual("influence_mapper.img_map", self.norm("influence_mapper.ln_img_reps", visual)))
        prompt = self.split(self.residual("influence_mapper.prompt_token_map", self.norm("influence_mapper.ln_edit_reps", end)))
        dots = torch.matmul(image, prompt.transpose(2, 3))  # b, heads, v, 1
        return dots.mean(1).squeeze(-1) / math.sqrt(visual.shape[-1] // self.heads)

    def __call__(self, visual, signal, bias, end):
        gate = self.gate(visual, end)
        query = self.split(self.linear("cross_att_q_mlp", self.linear("mlp_begin", self.norm("ln_img_reps", visual))))
        signal = self.norm("ln_edit_reps", signal)
        key, value = self.split(self.linear("cross_att_k_mlp", signal)), self.split(self.linear("cross_att_v_mlp", signal))
        scores = torch.matmul(query, key.transpose(2, 3)) / math.sqrt(key.shape[-1]) + bias[:, None, None]
        mixed = torch.matmul(torch.softmax(scores, -1), value).transpose(1, 2).flatten(2)
        return visual + self.linear("mlp_end", mixed) * torch.sigmoid(gate)[..., None], gate


class Bench:
    def load(self, request):
        torch.set_num_threads(request["threads"])
        torch.manual_seed(0)
        self.config = request["config"]
        self.decoder = Decoder(load_file(request["model"]), self.config, request["attention"])
        self.feeds = load_file(request["feeds"])
        self.adapter = Adapter({n.removeprefix("w:"): t for n, t in self.feeds.items() if n.startswith("w:")}, self.config["adapterHeads"])
        self.optimizer = torch.optim.Adam(self.adapter.w.values(), lr=self.config["rate"])
        return {"torch": torch.__version__, "threads": torch.get_num_threads()}

    def forward(self):
        with torch.no_grad():
            x = self.feeds["forward.embeddings"]
            bias = causal(x.shape[1])
            for i in range(self.decoder.layers):
                x = self.decoder.layer(i, x, bias)
            return {"mean": self.decoder.head(x).abs().mean().item()}

    def step(self):
        f, config = self.feeds, self.config
        decoder, first = self.decoder, config["insert"] + 1
        e, start, v = config["batch"], config["visualStart"], config["visualTokens"]
        l = f["hidden"].shape[1]
        bias = causal(l)
        signal = f["signal"]
        end = signal.flatten(0, 1)[f["signalEnds"]][:, None]
        rows, labels, parts = f["rows"], f["labels"], f["parts"]
        self.optimizer.zero_grad()
        terms, gates = [], []
        # one pass per kind of sample: reliability, text generality, modal generality, image locality
        for g in range(4):
            hidden = f["hidden"][g * e : (g + 1) * e]
            changed, gate = self.adapter(hidden[:, start : start + v], signal, f["signalBias"], end)
            gates.append(gate)
            x = torch.cat([hidden[:, :start], changed, hidden[:, start + v :]], 1)
            for i in range(first, decoder.layers):
                x = decoder.layer(i, x, bias)
            flat = decoder.head(x).flatten(0, 1)
            if g < 3:
                mine = (rows >= g * e * l) & (rows < (g + 1) * e * l)
                terms.append(F.cross_entropy(flat[rows[mine] - g * e * l], labels[mine]))
            else:
                after = flat[f["locRows"] - g * e * l].log_softmax(-1)
                terms.append(F.kl_div(after, f["before"].log_softmax(-1), reduction="batchmean", log_target=True))
        chosen = torch.cat(gates[:3])[f["choice"]].gather(1, f["sampled"])
        other = gates[3].gather(1, f["sampled"])
        up = -(torch.sigmoid(chosen) + 1e-8).log().mean()
        down = -(1 - torch.sigmoid(other) + 1e-8).log().mean()
        ima = -(f["target"] * (torch.softmax(chosen, 1) + 1e-8).log()).sum(1).mean()
        loss = sum(terms) + config["lambda"] * (up + down + ima)
        loss.backward()
        norm = torch.sqrt(sum(w.grad.pow(2).sum() for w in self.adapter.w.values()))
        self.optimizer.step()
        return {"loss": loss.item(), "gradientNorm": norm.item()}

    def traces(self):
        f, config = self.feeds, self.config
        decoder, start, v = self.decoder, config["visualStart"], config["visualTokens"]
        with torch.no_grad():
            edit, sample = f["trace.edit"], f["trace.sample"]
            ends = f["trace.ends"]
            who = torch.arange(len(ends))
            total = 0
            for i in range(config["insert"] + 1, config["traced"][-1] + 1):
                if i in config["traced"]:
                    mixed = decoder.attention_input(i, edit).clone()
                    mixed[:, start : start + v] = decoder.attention_input(i, sample)[:, start : start + v]
                    bias = causal(mixed.shape[1])
                    clean = decoder.attention(i, mixed, bias)[who, ends]
                    noise = f[f"trace.noise.{i}"]
                    values = []
                    for t, token in enumerate(f["trace.tokens"].tolist()):
                        copy = mixed.clone()
                        copy[:, token] += noise[:, t, 0]
                        dirty = decoder.attention(i, copy, bias)[who, ends]
                        values.append((1 - torch.cosine_similarity(dirty, clean, -1)) / 2)
                    total = total + torch.stack(values, 1)
                edit, sample = decoder.layer(i, edit, causal(edit.shape[1])), decoder.layer(i, sample, causal(sample.shape[1]))
            return {"c": (2 * total / len(config["traced"])).flatten().tolist()}


bench = Bench()
for line in sys.stdin:
    request = json.loads(line)
    started, cpu = time.perf_counter(), time.process_time()
    answer = bench.load(request) if request["do"] == "load" else getattr(bench, request["do"])()
    print(json.dumps({**answer, "seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}), flush=True)
