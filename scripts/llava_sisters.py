"""What transformers computes for LLaVAs with another image encoder or decoder than LLaVA-1.5: `test/models/llava-sisters.json`.

Weights are made by a formula that the test repeats, so that no weights are kept. Run with transformers 5.24 and torch 2.7:
    python scripts/llava_sisters.py ../shared/fixtures-modern/tiny-llava_onevision test/models/llava-sisters.json
"""

import json
import sys

import torch
from transformers import AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration

folder, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
image_id = tokenizer.convert_tokens_to_ids("<image>")
vocabulary = 440
PROMPT = "What is in the picture? <image>\nTell me, what is it?"

sizes = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, vocab_size=vocabulary)
vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2)
sisters = {
    "siglip-qwen2": dict(
        text_config=dict(model_type="qwen2", num_key_value_heads=2, max_position_embeddings=256, rope_theta=1e6, **sizes),
        vision_config=dict(model_type="siglip_vision_model", image_size=30, patch_size=10, vision_use_head=False, **vision),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    ),
    "clip-mistral": dict(
        text_config=dict(
            model_type="mistral", num_key_value_heads=2, head_dim=20, max_position_embeddings=4096, sliding_window=64, rope_theta=1e5, **sizes
        ),
        vision_config=dict(model_type="clip_vision_model", image_size=28, patch_size=14, hidden_act="quick_gelu", **vision),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    ),
}


def weight(name, shape):
    """sin(0.7311 i + 1.3 n) of element i, n the number of letters of the name: norms about 1, the rest scaled by what a row sums up."""
    count = torch.Size(shape).numel()
    wave = torch.sin(torch.arange(count, dtype=torch.float64) * 0.7311 + 1.3 * len(name))
    if "norm" in name and name.endswith("weight"):
        wave = 1 + 0.1 * wave
    elif len(shape) == 1:
        wave = 0.1 * wave
    else:
        wave = wave * 1.5 / (count / shape[0]) ** 0.5
    return wave.reshape(shape).float()


result = {}
for name, given in sisters.items():
    config = dict(
        model_type="llava", image_token_index=image_id, projector_hidden_act="gelu", tie_word_embeddings=False, eos_token_id=vocabulary - 1, **given
    )
    model = LlavaForConditionalGeneration._from_config(LlavaConfig(**config), attn_implementation="eager").float().eval()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(weight(key, value.shape))
    size, patch = given["vision_config"]["image_size"], given["vision_config"]["patch_size"]
    bytes_ = torch.arange(size * size * 3) * 37 % 256
    # Mean and deviation 0.5 in both folders, so that pixels are bytes between -1 and 1.
    pixels = (bytes_.reshape(size, size, 3).permute(2, 0, 1).float() / 255 - 0.5) / 0.5
    ids = [i for token in tokenizer(PROMPT)["input_ids"] for i in [token] * ((size // patch) ** 2 if token == image_id else 1)]
    inputs = dict(input_ids=torch.tensor([ids]), pixel_values=pixels[None])
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
        answer = model.generate(**inputs, attention_mask=torch.ones(1, len(ids), dtype=torch.long), max_new_tokens=5, do_sample=False)
    result[name] = dict(
        config=config,
        weights={key: list(value.shape) for key, value in model.named_parameters()},
        prompt=PROMPT,
        ids=ids,
        greedy=answer[0, len(ids) :].tolist(),
        logits=[round(x, 5) for x in logits.tolist()],
    )
json.dump(result, open(out, "w"))
