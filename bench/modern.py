"""
One question about one picture by transformers, for `npm run bench:modern`: reads a model folder and the inputs that our side made of the same
picture, and answers greedily. Prints one JSON line.

    python modern.py FOLDER INPUTS float32|bfloat16 TOKENS
"""

import json
import resource
import sys
import time

import torch
import transformers
from safetensors.torch import load_file

started = time.perf_counter()
folder, inputs, dtype, tokens = sys.argv[1:]
model = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
opened = time.perf_counter() - started
given = load_file(inputs)
for name, value in given.items():
    if value.dtype == torch.float32:
        given[name] = value.to(model.dtype)
given["attention_mask"] = torch.ones_like(given["input_ids"])
with torch.no_grad():
    cpu, asked = time.process_time(), time.perf_counter()
    out = model.generate(**given, max_new_tokens=int(tokens), min_new_tokens=int(tokens), do_sample=False)
answered = time.perf_counter()
print(
    json.dumps(
        {
            "opening": opened,
            "answering": answered - asked,
            "seconds": opened + answered - asked,
            "cpu": time.process_time(),
            "answeringCpu": time.process_time() - cpu,
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "tokenIds": out[0, given["input_ids"].shape[1] :].tolist(),
            "versions": f"transformers {transformers.__version__}, PyTorch {torch.__version__}",
        }
    )
)
