"""PyTorch's side of the table: a forward of 620 positions and a step of VEAD's shape over the same folder, in half precision.
usage: torch_step.py DIR RECORDS eager|sdpa [INSERT LAYER]"""
import math, sys, time
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

folder, records, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
insert = int(sys.argv[4]) if len(sys.argv) > 4 else 18
heads, width, layers, hidden, length, adapter = 32, 128, 32, 4096, 620, 1024
device = 'cuda'
W = {n.removeprefix('language_model.'): w.to(device) for n, w in load_file(f'{folder}/model.safetensors').items() if n.startswith('language_model.')}


def tables():
    inverse = 1 / 10000 ** (torch.arange(0, width, 2, device=device).float() / width)
    angles = torch.outer(torch.arange(length, device=device).float(), inverse)
    angles = torch.cat([angles, angles], -1)
    return angles.cos().half(), angles.sin().half()


def norm(name, x):
    y = x.float()
    return W[f'{name}.weight'] * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-5)).half()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def layer(i, x, angles, bias):
    at = f'model.layers.{i}.'
    b, l, _ = x.shape
    y = norm(f'{at}input_layernorm', x)
    q, k, v = (F.linear(y, W[f'{at}self_attn.{n}_proj.weight']).view(b, l, heads, width).transpose(1, 2) for n in 'qkv')
    q, k = rotate(q, *angles), rotate(k, *angles)
    if kind == 'sdpa':
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    else:
        o = torch.softmax((q @ k.transpose(2, 3) / math.sqrt(width) + bias).float(), -1).half() @ v
    x = x + F.linear(o.transpose(1, 2).reshape(b, l, hidden), W[f'{at}self_attn.o_proj.weight'])
    y = norm(f'{at}post_attention_layernorm', x)
    gate, up = (F.linear(y, W[f'{at}mlp.{n}_proj.weight']) for n in ('gate', 'up'))
    return x + F.linear(F.silu(gate) * up, W[f'{at}mlp.down_proj.weight'])


def measure(what, work, runs):
    work()
    torch.cuda.synchronize()
    times = []
    for _ in range(runs):
        start = time.time()
        work()
        torch.cuda.synchronize()
        times.append(time.time() - start)
    print(f'PyTorch {torch.__version__} {kind}, {what}: fastest {min(times):.4f} s, median {sorted(times)[runs // 2]:.4f} s, '
          f'peak {torch.cuda.max_memory_allocated() / 1e9:.1f} GB', flush=True)


angles = tables()
bias = torch.full((length, length), -6e4, device=device).triu(1).half()


@torch.no_grad()
def forward():
    x = torch.randn(1, length, hidden, device=device).half() * 0.5
    for i in range(layers):
        x = layer(i, x, angles, bias)
    return F.linear(norm('model.norm', x), W['lm_head.weight'])


def weight(*shape):
    return (torch.randn(*shape, device=device) * shape[-1] ** -0.5).requires_grad_()


A = {name: weight(adapter, hidden) for name in 'qkv'} | {'end': weight(hidden, adapter)}
optimizer = torch.optim.Adam(A.values(), lr=1e-4)
states = torch.randn(4 * records, length, hidden, device=device).half() * 0.5
signal = torch.randn(records, 40, hidden, device=device).half()
labels = torch.randint(0, 32000, (2 * records,), device=device)


def step():
    optimizer.zero_grad()
    loss = 0
    # as the objective does: the unedited sample is read from what was prepared
    for group in range(3):
        h = states[group * records:(group + 1) * records]
        visual = h[:, 5:581]
        with torch.autocast('cuda', dtype=torch.float16):
            split = lambda z: z.view(records, -1, 8, adapter // 8).transpose(1, 2)
            q, k, v = split(F.linear(visual, A['q'])), split(F.linear(signal, A['k'])), split(F.linear(signal, A['v']))
            o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(records, -1, adapter)
            changed = visual + F.linear(o, A['end'])
        x = torch.cat([h[:, :5], changed.half(), h[:, 581:]], 1)
        for i in range(insert + 1, layers):
            x = layer(i, x, angles, bias)
        logits = F.linear(norm('model.norm', x[:, -3:-1]), W['lm_head.weight']).flatten(0, 1).float()
        loss = loss + F.cross_entropy(logits, labels)
    loss.backward()
    optimizer.step()


measure('forward of 620 positions', forward, 5)
measure(f'step of {records} records after layer {insert}', step, 4)
