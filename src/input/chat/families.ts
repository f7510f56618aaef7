/**
 * Chat templates of families whose published folders have none, as their authors' code writes conversations.
 *
 * LLaVA-1.5: `USER: <image>\nquestion ASSISTANT: answer</s>USER: ...`, without the system prompt of its demo.
 * BLIP-2 (the notebook of its authors): `Question: ... Answer: ... . Question: ... Answer:`; its pictures stand before the whole text.
 * MiniGPT-4 (`CONV_VISION_Vicuna0`): `system###Human: <Img>...</Img> question###Assistant: answer###...`; answers end at `###`.
 */

/** How a family chats. */
export interface FamilyChat {
  /** what stands for a picture in a rendered template */
  readonly placeholder: string;
  /** the template of folders that have none of their own; absent where all published folders have one */
  readonly template?: string;
  /** texts that end an answer */
  readonly stop?: readonly string[];
}

const macros = (image: string): string => `
{%- macro texts(m) -%}
  {%- for c in m.content %}{% if c.type == 'text' %}{{ c.text }}{% endif %}{% endfor -%}
{%- endmacro -%}
{%- macro images(m, after) -%}
  {%- for c in m.content %}{% if c.type == 'image' %}{{ '${image}' + after }}{% endif %}{% endfor -%}
{%- endmacro -%}`;

export const llavaChat: FamilyChat = {
  placeholder: '<image>',
  template: `${macros('<image>')}
{%- for m in messages -%}
  {%- if m.role == 'system' %}{{ texts(m) + ' ' }}
  {%- elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + texts(m) + (eos_token or '</s>') }}
  {%- else %}{{ 'USER: ' + images(m, '\\n') + texts(m) + ' ' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif -%}`,
};

export const blip2Chat: FamilyChat = {
  placeholder: '<image>',
  template: `${macros('<image>')}
{%- for m in messages %}{{ images(m, '') }}{% endfor -%}
{%- for m in messages -%}
  {%- set said = texts(m) -%}
  {%- if not loop.first %}{{ ' ' }}{% endif -%}
  {%- if m.role == 'system' %}{{ said }}
  {%- elif m.role == 'assistant' %}{{ 'Answer: ' + said + ('' if said.endswith(('.', '!', '?')) else '.') }}
  {%- else %}{{ 'Question: ' + said }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt %}{{ ' Answer:' }}{% endif -%}`,
};

const miniGpt4System =
  'Give the following image: <Img>ImageContent</Img>. You will be able to see the image once I provide it to you. Please answer my questions.';

export const miniGpt4Chat: FamilyChat = {
  placeholder: '<ImageHere>',
  template: `${macros('<Img><ImageHere></Img>')}
{%- if messages[0].role != 'system' %}{{ '${miniGpt4System}###' }}{% endif -%}
{%- for m in messages -%}
  {%- if m.role == 'system' %}{{ texts(m) }}
  {%- elif m.role == 'assistant' %}{{ 'Assistant: ' + texts(m) }}
  {%- else %}{{ 'Human: ' + images(m, ' ') + texts(m) }}
  {%- endif -%}
  {{- '###' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ 'Assistant: ' }}{% endif -%}`,
  stop: ['###'],
};
