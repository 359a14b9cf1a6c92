"""Named chat templates, for models without one and for runs that want another than the tokenizer's. Torch-free.

Each marks what the assistant wrote, its end token included, with ``{% generation %}``, so the trained tokens are known
without rendering a conversation piece by piece.
"""

from __future__ import annotations

from trimtab.errors import ModelError
from trimtab.schema import did_you_mean

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}"
    "{{ message['content'] + '<|im_end|>\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""ChatML as its models were trained on it, without a system turn that nobody wrote."""

PLAIN = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\\n' }}"
    "{% elif message['role'] == 'tool' %}{{ 'Tool: ' + message['content'] + '\\n' }}"
    "{% else %}{{ 'User: ' + message['content'] + '\\n' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""Roles in words and the tokenizer's own end-of-text token: for base models whose vocabulary has no turn tokens."""

_BOS = "{% if bos_token is defined and bos_token and bos_token != eos_token %}{{ bos_token }}{% endif %}"
"""Where a tokenizer has a token for beginnings alone, its models were trained with it; none is invented."""

_NO_OTHER = "{{ raise_exception('this template has no ' + message['role'] + ' turns here') }}"

LLAMA_3 = (
    _BOS + "{% for message in messages %}"
    "{% set role = 'ipython' if message['role'] == 'tool' else message['role'] %}"
    "{{ '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' }}"
    "{% if role == 'assistant' %}{% generation %}{{ message['content'] + '<|eot_id|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] | trim + '<|eot_id|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
"""Llama 3 Instruct (its model card). The published template also trims answers; here an answer is what it is, so that
what was sampled and what is scored are the same tokens."""

_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user\\'s questions."
)
VICUNA_1_1 = (
    _BOS + "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    "{% else %}{{ '" + _VICUNA_SYSTEM + "' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ (' ' if loop.first or loop.previtem['role'] != 'assistant' else '') + 'USER: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ASSISTANT:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% elif not loop.first or message['role'] != 'system' %}" + _NO_OTHER + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
"""FastChat's ``vicuna_v1.1``: roles in words, a space after system text and question, ``</s>`` after answers."""

HUMAN_ASSISTANT = (
    _BOS + "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '\\n\\nHuman: ' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '\\n\\nAssistant:' }}{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}"
    "{% elif loop.first and message['role'] == 'system' %}{{ message['content'] }}"
    "{% else %}" + _NO_OTHER + "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:' }}{% endif %}"
)
"""The transcripts of Anthropic's HH-RLHF, with the tokenizer's end-of-text token after answers."""


def _moss(human: str, assistant: str) -> str:
    return (
        _BOS + "{% for message in messages %}"
        "{% if message['role'] == 'user' %}{{ '" + human + "' + message['content'] + eos_token }}"
        "{% elif message['role'] == 'assistant' %}{{ '" + assistant + "' }}"
        "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
        "{% else %}" + _NO_OTHER + "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + assistant + "' }}{% endif %}"
    )


MOSS = _moss("<|Human|>", "<|MOSS|>")
"""MOSS-RLHF, Chinese: a token for each speaker, ``</s>`` after every turn."""

MOSS_EN = _moss("Human:", "Assistant:")
"""MOSS-RLHF, English: the speakers in words."""

TEMPLATES: dict[str, str] = {
    "chatml": CHATML,
    "plain": PLAIN,
    "llama-3": LLAMA_3,
    "vicuna_v1.1": VICUNA_1_1,
    "human_assistant": HUMAN_ASSISTANT,
    "moss": MOSS,
    "moss-en": MOSS_EN,
}

TOKENS: dict[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama-3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "moss": ("<|Human|>", "<|MOSS|>"),
}
"""Tokens that a template writes; a tokenizer without them would spell them out, letter by letter."""


def template_text(name: str) -> str:
    """The jinja text of a named template.

    Raises:
        ModelError: there is none of this name.
    """
    if name not in TEMPLATES:
        fix = f"{did_you_mean(name, TEMPLATES)}; null is the tokenizer's own"
        raise ModelError(f"no chat template is called '{name}'", fix=fix)
    return TEMPLATES[name]
