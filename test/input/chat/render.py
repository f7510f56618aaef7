"""Renders conversations with transformers (5.24.0) for render.test.ts: python render.py [FOLDER...] rewrites rendered.json.

Templates are those of the model folders given, and those beside this file.
"""

import datetime
import json
import pathlib
import sys

from transformers.utils import chat_template_utils

here = pathlib.Path(__file__).parent
NOW = datetime.datetime(2024, 7, 6, 9, 5, 3)


class Frozen(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = Frozen


def text(words):
    return {"type": "text", "text": words}


IMAGE = {"type": "image"}


def turn(role, *parts):
    return {"role": role, "content": list(parts)}


CONVERSATIONS = {
    "question": [turn("user", text("What is this?"))],
    "picture": [turn("user", IMAGE, text("What is this?"))],
    "picture after": [turn("user", text("Look: "), IMAGE)],
    "two pictures": [turn("user", IMAGE, text("First. "), IMAGE, text("Second. Which has a pizza?"))],
    "system": [turn("system", text("Answer briefly.")), turn("user", IMAGE, text("What is this?"))],
    "turns": [
        turn("system", text("Answer briefly.")),
        turn("user", text("Hello! 12 + 30?")),
        turn("assistant", text("42, I think.")),
        turn("user", IMAGE, text("Is this a dog?")),
    ],
    "earlier picture": [
        turn("user", IMAGE, text("What is this?")),
        turn("assistant", text("A dog.")),
        turn("user", text("What colour?")),
        turn("assistant", text("Brown.")),
        turn("user", IMAGE, text("And here?")),
    ],
    "odd text": [turn("user", IMAGE, text("  {{ messages }} {% if %} \n\tcafé 犬 😀 <b>&\"'\\n  \n"))],
}


def folder(path):
    """As ProcessorMixin and the tokenizer find it."""
    config = json.loads((path / "tokenizer_config.json").read_text())
    tokens = {
        key: value["content"] if isinstance(value, dict) else value
        for key, value in config.items()
        if key.endswith("_token") and isinstance(value, (str, dict))
    }
    legacy, jinja = path / "chat_template.json", path / "chat_template.jinja"
    source = json.loads(legacy.read_text())["chat_template"] if legacy.exists() else jinja.read_text()
    meta = path.parent / "expected" / path.name.removesuffix("-hub").removesuffix("-457") / "meta.json"
    image = json.loads(meta.read_text())["image_token"]
    return {"name": path.name, "source": source, "tokens": tokens, "placeholder": {"<image_soft_token>": "<start_of_image>"}.get(image, image)}


def render(template, messages):
    if "image" not in template["source"].lower():
        messages = [
            {"role": m["role"], "content": "\n".join(p.get("text", template["placeholder"]) for p in m["content"])} for m in messages
        ]
    try:
        return chat_template_utils.render_jinja_template(
            [messages], chat_template=template["source"], add_generation_prompt=True, **template["tokens"]
        )[0][0]
    except Exception as error:
        return {"error": str(error)}


known = json.loads((here / "rendered.json").read_text()) if (here / "rendered.json").exists() else {"templates": []}
folders = [folder(pathlib.Path(path)) for path in sys.argv[1:]] or [t for t in known["templates"] if t["name"].startswith("tiny-")]
own = [
    {"name": path.stem, "source": path.read_text(), "tokens": {"bos_token": "<s>", "eos_token": "</s>"}, "placeholder": "<image>"}
    for path in sorted(here.glob("*.jinja"))
]
templates = folders + own
for template in templates:
    template["rendered"] = {name: render(template, messages) for name, messages in CONVERSATIONS.items()}
out = {"now": NOW.isoformat(), "conversations": CONVERSATIONS, "templates": templates}
(here / "rendered.json").write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n")
